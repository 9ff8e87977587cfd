"""Fetches, unpacks and converts what a dataset YAML names and this machine lacks: a command of its own.

    python -m utils.dataset.dataset_download VisDrone.yaml

``train.py``, ``val.py``, ``export.py`` and ``inspect`` call it where a data set is not complete.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from utils.config.dataset_file import find_dataset_yaml
from utils.config.dataset_yaml import DatasetSpec, is_archive, read_dataset_yaml
from utils.dataset.available_dataset import UNFINISHED, lacks_files, lacks_labels
from utils.dataset.converters import convert_in_place
from utils.runtime.archives import unpack
from utils.runtime.console_log import counted, run_verb
from utils.runtime.downloads import FetchError, Patience, fetch
from utils.user_error import UsageError, UserError

LOGGER = logging.getLogger("utils.dataset.dataset_download")  # not __main__, which the console does not show


def make_available(spec: DatasetSpec, patience: Patience | None = None) -> None:
    """Fetch what ``download:`` names, resumed after a cut, checked, unpacked within the folder that the YAML names.

    Then ``convert:`` makes label files. Processes that ask at once wait for the first.

    Raises:
        UserError: a download or conversion that fails.
    """
    with _alone(spec):
        if spec.download and lacks_files(spec):
            fetch_dataset(spec, patience)
        if lacks_labels(spec):
            _convert(spec)
        _finish(spec)


def fetch_dataset(spec: DatasetSpec, patience: Patience | None = None) -> None:
    """Fetch and unpack every file of ``download:`` that an earlier call has not, and nobody has put at its place.

    Raises:
        UserError: one cannot be fetched; it says where to put it by hand.
    """
    files = spec.root / UNFINISHED / "files"
    files.mkdir(parents=True, exist_ok=True)
    count = len(spec.download)
    size = f"{spec.size} for all {count} files" if spec.size and count > 1 else spec.size
    LOGGER.info("%s: fetching %s%s", spec.file.name, counted(count, "file"), f", {spec.size}" if spec.size else "")
    for item in spec.download:
        name = f"{zlib.crc32(item.url.encode()):08x}-{item.place.name}"  # two folders may have files of one name
        done = files / f"{name}.done"
        if done.exists():
            continue
        item.folder.mkdir(parents=True, exist_ok=True)
        archive = is_archive(item.url)
        target = files / name if archive and not item.place.is_file() else item.place
        try:
            fetch(item.url, target, sha256=item.sha256, patience=patience)
        except FetchError as error:
            with suppress(OSError):
                files.rmdir()  # with nothing in it, it would tell that files which are there are not all
            raise FetchError(error.reason, item.place, size) from error
        if archive:
            LOGGER.info("unpacking %s into %s", item.place.name, item.folder)
            unpack(target, item.folder)
            if target != item.place:
                target.unlink()
        done.touch()


def _convert(spec: DatasetSpec) -> None:
    assert spec.convert is not None
    LOGGER.info("making label files of the %s annotations in %s", spec.convert, spec.root)
    try:
        summaries = convert_in_place(spec.convert, spec.root, spec.names)
    except UserError as error:
        raise UserError(f"{error}{f'; {spec.obtain}' if spec.obtain else ''}") from error
    for summary in summaries:
        LOGGER.info("%s", "\n".join(summary.lines(spec.names)))


@contextmanager
def _alone(spec: DatasetSpec) -> Iterator[None]:
    """This process alone of all that want this data set."""
    folder = spec.root / UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UserError(f"{spec.root}: cannot be written: {error.strerror or error}") from error


def _finish(spec: DatasetSpec) -> None:
    """Forget what was fetched, once every part is there."""
    if all(part.exists() for part in (*spec.train, *spec.val)):
        shutil.rmtree(spec.root / UNFINISHED, ignore_errors=True)


def main() -> None:
    if len(sys.argv) != 2:
        raise UsageError("python -m utils.dataset.dataset_download: takes the name of a dataset YAML")
    spec = read_dataset_yaml(find_dataset_yaml(sys.argv[1]), quiet=True)
    make_available(spec)


if __name__ == "__main__":
    sys.exit(run_verb(main))

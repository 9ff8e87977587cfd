"""A data set made available: what its YAML says to fetch is fetched, unpacked and converted where it is missing."""

from __future__ import annotations

import fcntl
import logging
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from utils.config.dataset_file import find_dataset_yaml
from utils.config.dataset_yaml import DatasetSpec, Download, is_archive, read_dataset_yaml
from utils.dataset.converters import FORMATS, convert_in_place
from utils.dataset.image_files import label_path, list_images
from utils.runtime.archives import unpack
from utils.runtime.downloads import Patience, fetch
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

UNFINISHED = ".unfinished-download"  # folder in the data set's own while it is fetched; has what is fetched so far
CHECKED = 50  # images of the training part whose label files are looked for


def available_dataset(name: str | Path, *, patience: Patience | None = None) -> DatasetSpec:
    """The data set of a YAML (`find_dataset_yaml`), on this machine.

    Where its training or validation part is missing and the YAML has ``download:``, every file is fetched, resumed
    after a cut, checked, and unpacked within the folder that the YAML names; then ``convert:`` makes label files.
    Processes that ask at once wait for the first.

    Raises:
        UserError: a wrong YAML, a part that is missing after all, a download or conversion that fails.
    """
    file = find_dataset_yaml(name)
    spec = read_dataset_yaml(file, check_files=False)
    if spec.convert is not None and spec.convert not in FORMATS:
        raise UserError(f"{file}: convert: {spec.convert!r} is not a format; the formats are {', '.join(FORMATS)}")
    if (spec.download and _is_missing(spec)) or _needs_labels(spec):
        with _alone(spec):
            if spec.download and _is_missing(spec):
                fetch_dataset(spec, patience)
            if _needs_labels(spec):
                _convert(spec)
            _finish(spec)
    return read_dataset_yaml(file)


def _is_missing(spec: DatasetSpec) -> bool:
    parts = (*spec.train, *spec.val)
    return (spec.root / UNFINISHED / "files").is_dir() or not all(part.exists() for part in parts)


def fetch_dataset(spec: DatasetSpec, patience: Patience | None = None) -> None:
    """Fetch and unpack every file of ``download:`` that an earlier call has not."""
    files = spec.root / UNFINISHED / "files"
    files.mkdir(parents=True, exist_ok=True)
    for number, item in enumerate(spec.download, 1):
        LOGGER.info("%s: file %d of %d", spec.file.name, number, len(spec.download))
        name = f"{zlib.crc32(item.url.encode()):08x}-{_file_name(item)}"  # two folders may have files of one name
        done = files / f"{name}.done"
        if done.exists():
            continue
        item.folder.mkdir(parents=True, exist_ok=True)
        if is_archive(item.url):
            archive = fetch(item.url, files / name, sha256=item.sha256, patience=patience)
            LOGGER.info("unpacking %s into %s", archive.name, item.folder)
            unpack(archive, item.folder)
            archive.unlink()
        else:
            fetch(item.url, item.folder / _file_name(item), sha256=item.sha256, patience=patience)
        done.touch()


def _file_name(item: Download) -> str:
    name = Path(unquote(urlsplit(item.url).path)).name
    return name.replace("\0", "") or "file"


def _needs_labels(spec: DatasetSpec) -> bool:
    """Whether the format's own annotations are there and the label files, lists or regions made of them are not."""
    if spec.convert is None or not spec.root.is_dir():
        return False
    made = (*spec.train, *spec.val, *(spec.annotations[part] for part in spec.annotations))
    if not all(path.exists() for path in made):
        return True
    return not any(label_path(image).exists() for image in list_images(spec.train)[:CHECKED])


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

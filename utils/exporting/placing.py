"""Where an export goes: made aside, put in its place in one step, nothing of others lost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.inference.graph_runtimes import OPENVINO_SUFFIX
from utils.user_error import UserError

OPENVINO_FILES = (".xml", ".bin", ".yaml", ".mapping")  # the last is of OpenVINO's older converters


@contextmanager
def folder_beside(final: Path) -> Iterator[Path]:
    """A folder on the file system of ``final`` to make the export in; it goes when the block ends.

    Raises:
        UserError: the block's own, naming ``final``; it cannot be written there, or stands where something else is.
    """
    _check_place(final)
    try:
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{final.name}.") as name:
            try:
                yield Path(name)
            except UserError as error:
                raise type(error)(f"{final}: not written, {error}".replace(f"{name}/", "")) from None
    except OSError as error:
        raise UserError(f"{final}: not written, {error.strerror or error}") from error


def put_in_place(fresh: Path, final: Path) -> None:
    """Give ``fresh``, in a folder of `folder_beside`, its final name; an older export makes room."""
    if final.is_dir():
        final.replace(fresh.with_name(f"older-{final.name}"))  # goes with the folder that it is now in
    fresh.replace(final)


def _check_place(final: Path) -> None:
    """Refuse a place that holds what no export has written."""
    is_folder = final.name.endswith(OPENVINO_SUFFIX)
    if final.is_dir() and not is_folder:
        raise UserError(f"{final}: is a folder; the export would be a file of that name")
    if is_folder and final.exists():
        if not final.is_dir():
            raise UserError(f"{final}: is a file; the export would be a folder of that name")
        foreign = [path.name for path in sorted(final.iterdir()) if path.suffix not in OPENVINO_FILES]
        if foreign:
            raise UserError(f"{final}: holds {foreign[0]}, which no export has written; move it away first")

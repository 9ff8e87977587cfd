"""Weights by the name of an official YOLOv5 release: found on disk or fetched."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from utils.runtime.downloads import Patience, fetch
from utils.user_error import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0"
MIRROR = "SPD_WEIGHTS_URL"  # environment variable: address of a folder with the same files
OFFICIAL = tuple(f"yolov5{size}{ending}.pt" for ending in ("", "6", "-cls") for size in "nsmlx")
SIZES = {"yolov5n.pt": 4_062_133}  # bytes; the length that the server states is what the others are checked by


def find_weights(name: str, *, patience: Patience | None = None) -> Path:
    """The file of ``--weights name``.

    A path that exists is taken as it is. A missing ``yolov5{n,s,m,l,x}[6|-cls].pt`` is looked for in the repository's
    ``weights/`` and then fetched from YOLOv5's release v7.0, or the mirror that ``SPD_WEIGHTS_URL`` names, to the path
    given: a bare name to the working folder.

    Raises:
        UserError: no such file and no official name (with near ones), or not to be fetched (with the address and
            where to put the file by hand).
    """
    given = Path(name)
    if not name or "\0" in name:
        raise UserError(f"{name!r}: not the name of a weights file")
    try:
        if given.exists():
            return given
        if given.name not in OFFICIAL or not given.parent.is_dir():
            raise UserError(f"{name}: no such weights file{_near(given)}")
    except OSError as error:  # no permission, or too long for a name
        raise UserError(f"{name}: cannot be read: {error.strerror}") from error
    beside_the_code = REPOSITORY / "weights" / given.name
    if beside_the_code.is_file():
        return beside_the_code
    base = os.environ.get(MIRROR, "").strip() or RELEASE
    return fetch(f"{base.rstrip('/')}/{given.name}", given, size=SIZES.get(given.name), patience=patience)


def _near(path: Path) -> str:
    """Names like that of ``path`` that would have been found, as the end of a sentence."""
    if not path.parent.is_dir():
        return f" (nor a folder {path.parent})"
    there = [str(file) for file in path.parent.glob("*.pt")]
    near = difflib.get_close_matches(str(path), dict.fromkeys([*there, *OFFICIAL]), n=3)
    return f"; near: {', '.join(near)}" if near else ""

"""Image files: their size without decoding, their pixels."""

from __future__ import annotations

import io
import logging
import math
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.geometry.letterbox import FrameSize
from utils.runtime.console_log import SAID, is_first
from utils.user_error import UserError

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dng", ".j2k", ".jp2", ".jpeg", ".jpg", ".mpo", ".pfm", ".png", ".tif", ".tiff", ".webp"}
)

_REDUCED_READ = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# Formats whose header gives the size that OpenCV will decode to, once the orientation tag is applied.
_HEADER_FORMATS = frozenset({"JPEG", "MPO", "PNG"})
ORIENTATION_TAG = 0x0112
_JPEG_START = b"\xff\xd8"
_SIXTEEN_BIT_STARTS = (b"\x89PNG", b"II*\0", b"MM\0*")  # of formats that may have 16 bits
_BY_PILLOW = ("AVIF", "JPEG2000")  # where OpenCV was built without them
_DARK = 64  # of 256: nothing in the image is brighter if the two upper bits of 16 are never used
_UNUSED_BITS = "16-bit images whose upper bits are never used"
LOGGER = logging.getLogger(__name__)


class ImageReadError(UserError):
    """An image that is missing, cut short, or no image: one line naming the file."""


def folders_below(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """``folder`` and every folder below it, once, links followed; with the names of the files there."""
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_say_skipped):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield here, files


def _say_skipped(error: OSError) -> None:
    LOGGER.warning("%s: cannot be read: %s (skipped)", error.filename, error.strerror)


def image_size(path: Path) -> FrameSize:
    """Height and width in pixels as `read_image` gives them, from the file's header where the format permits.

    Raises:
        ImageReadError: not a readable image, or cut short, or a PNG with a wrong check sum.
    """
    try:
        with path.open("rb") as file, Image.open(file) as image:
            if image.format not in _HEADER_FORMATS:
                return FrameSize(*read_image(path).shape[:2])
            width, height = image.size
            exif = image.info.get("exif")
            if image.format in ("JPEG", "MPO"):
                _require_ending(path, b"\xff\xd9", after_scan=True)
            elif image.format == "PNG":
                _require_ending(path, b"IEND\xae\x42\x60\x82", after_scan=False)
                image.verify()  # check sums; OpenCV refuses a file in which one is wrong, in the middle of a run
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise _as_read_error(path, error) from error
    return FrameSize(width, height) if _swaps_sides(exif) else FrameSize(height, width)


def _as_read_error(path: Path, error: Exception) -> ImageReadError:
    if isinstance(error, ImageReadError):
        return error
    if isinstance(error, UnidentifiedImageError):
        return ImageReadError(f"{path}: not an image that can be read")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ImageReadError(f"{path}: cannot be read: {' '.join(reason.split()) or type(error).__name__}")


def _swaps_sides(exif: bytes | None) -> bool:
    """Whether the orientation tag turns the image by 90 or 270 degrees."""
    if not exif:
        return False
    tags = Image.Exif()
    try:
        tags.load(exif)
        return tags.get(ORIENTATION_TAG) in (5, 6, 7, 8)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, IndexError):
        return False  # a broken tag block; OpenCV ignores it too


def _require_ending(path: Path, ending: bytes, *, after_scan: bool) -> None:
    """Refuse a file without its end mark. Bytes after the mark are common (motion photos) and harmless."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - len(ending), 0))
        if file.read() == ending:
            return
        file.seek(0)
        content = file.read()
    start = _jpeg_scan_start(content) if after_scan else 0
    if content.find(ending, start) < 0:
        raise ImageReadError(f"{path}: cut short")


def _jpeg_scan_start(content: bytes) -> int:
    """Where the pixels of a JPEG begin: behind the header, whose thumbnail has an end mark of its own."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xDA:
            break
        at += 1 if marker == 0xFF else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return at


def read_image(path: Path, reduction: int = 1) -> np.ndarray:
    """Pixels (H, W, 3) uint8 RGB with the orientation tag applied; grey, alpha, palette and 16 bit become RGB.

    ``reduction`` 2, 4 or 8 gives an image of that fraction of the size (rounded up): a JPEG then skips most of its
    inverse transform, and every pixel is the mean of those it stands for.

    Raises:
        ImageReadError: naming the file.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)
        # Of other formats OpenCV's reduced reading is a decimation, which is no faster and loses small objects.
        by_decoder = reduction if content[:2].tobytes() == _JPEG_START else 1
        image = cv2.imdecode(content, _REDUCED_READ[by_decoder]) if content.size else None
    except (OSError, cv2.error) as error:
        raise _as_read_error(path, error) from error
    if image is None:
        image = _by_pillow(path, content)
    may_be_wide = content[:4].tobytes() in _SIXTEEN_BIT_STARTS and image.dtype == np.uint8
    if may_be_wide and _UNUSED_BITS not in SAID and image.max() < _DARK:
        whole = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
        if whole is not None and whole.dtype == np.uint16:
            warn_of_unused_bits(str(path), whole)
    if image.dtype != np.uint8:  # floating point formats (PFM, some TIFF), 0-1 by convention
        image = (np.nan_to_num(image).clip(0, 1) * 255).round().astype(np.uint8)
    if by_decoder > 1:  # OpenCV has no reduced reading to RGB
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    elif reduction > 1:
        height, width = (math.ceil(side / reduction) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return image


def _by_pillow(path: Path, content: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 3) uint8 RGB of a file that OpenCV does not read."""
    Image.init()
    formats = [name for name in _BY_PILLOW if name in Image.OPEN]
    try:
        with Image.open(io.BytesIO(content.tobytes()), formats=formats) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise _as_read_error(path, error) from error


def warn_of_unused_bits(name: str, values: np.ndarray) -> None:
    """Say of the first such image that the 12 bits, for example, of a camera are read nearly black out of 16."""
    highest = int(values.max())
    in_worker = multiprocessing.parent_process() is not None  # which knows nothing of what others have said
    if 0 < highest < _DARK << 8 and not in_worker and is_first(_UNUSED_BITS):
        LOGGER.warning(
            "%s: a 16-bit image whose highest value is %d: its upper %d bits are never used and it is read nearly "
            "black; docs/datasets.md says how to convert such images",
            *(name, highest, 16 - highest.bit_length()),
        )

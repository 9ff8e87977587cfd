"""Images in any of the forms that Python programs have them in."""

from __future__ import annotations

import tempfile
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from utils.dataset.image_files import read_image, warn_of_unused_bits
from utils.runtime.downloads import fetch
from utils.user_error import UserError

ImageInput = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True, slots=True)
class NamedImage:
    """Pixels, and the name that files about them are given."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    name: str  # ends in .jpg


def as_images(inputs: ImageInput | Sequence[ImageInput]) -> list[NamedImage]:
    """The images behind one input or several.

    Args:
        inputs: a file, an address (http, https), a PIL image, or an array: (H, W, 3) RGB, (H, W, 4) RGBA, (H, W) grey,
            channels first or last, uint8, uint16 (its upper byte is taken), or floating point 0-1.

    Raises:
        UserError: a file that is not there or not readable, or an array of another shape or range.
    """
    several = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    return [_as_image(each, number) for number, each in enumerate(several)]


def _as_image(source: object, number: int) -> NamedImage:
    if isinstance(source, str | Path):
        return _from_address(str(source)) if str(source).startswith(("http://", "https://")) else _from_file(source)
    if isinstance(source, Image.Image):
        upright = ImageOps.exif_transpose(source)
        name = Path(getattr(source, "filename", "") or f"image{number}").with_suffix(".jpg").name
        return NamedImage(_pil_pixels(upright, number), name)
    if isinstance(source, np.ndarray):
        return NamedImage(_rgb(source, number), f"image{number}.jpg")
    raise UserError(f"image {number}: a {type(source).__name__}; a path, address, PIL image or array is needed")


def _pil_pixels(image: Image.Image, number: int) -> np.ndarray:
    """Pixels (H, W, 3) uint8 RGB. Grey of 16 bits, or of floating point 0-1, as from a file: Pillow cuts off at 255."""
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image)
        low, high = grey.min(initial=0), grey.max(initial=0)
        if image.mode == "F" and low >= 0 and high <= 1:
            return _rgb(grey, number)
        if image.mode.startswith("I;16") or (image.mode == "I" and low >= 0 and 255 < high < 2**16):
            return _rgb(grey.astype(np.uint16), number)
    return np.asarray(image.convert("RGB"))


def _from_file(path: str | Path) -> NamedImage:
    return NamedImage(read_image(Path(path)), Path(path).with_suffix(".jpg").name)


def _from_address(address: str) -> NamedImage:
    name = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).name or "image"
    with tempfile.TemporaryDirectory(prefix="detect-") as folder:
        return _from_file(fetch(address, Path(folder) / name))


def _rgb(array: np.ndarray, number: int) -> np.ndarray:
    """Array (H, W, 3) uint8 RGB out of any layout that ``as_images`` takes."""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(f"image {number}: an array of shape {array.shape}; (H, W, 3), (H, W, 4) or (H, W) is needed")
    if array.dtype == np.uint16:
        warn_of_unused_bits(f"image {number}", array)
        array = (array >> 8).astype(np.uint8)  # as OpenCV reads it from a file
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating) or not (array.min() >= 0 and array.max() <= 1):
            raise UserError(
                f"image {number}: an array of {array.dtype}; uint8, uint16, or floating point 0-1, is needed"
            )
        array = (array * 255).round().astype(np.uint8)
    return np.ascontiguousarray(np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., :3])

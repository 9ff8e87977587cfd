"""Overlapping windows that cover an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.geometry.letterbox import FrameSize


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of an image, source pixels, ends excluded."""

    left: int
    top: int
    right: int
    bottom: int


def tiles_of(image: FrameSize, size: int, overlap: float) -> list[Tile]:
    """Windows of ``size`` pixels that cover the image, spread evenly, neighbours overlapping by ``overlap`` or more.

    An image that fits into one window has no tiles.
    """
    if max(image) <= size:
        return []
    return [
        Tile(left, top, min(left + size, image.width), min(top + size, image.height))
        for top in _starts(image.height, size, overlap)
        for left in _starts(image.width, size, overlap)
    ]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    if length <= size:
        return [0]
    count = math.ceil((length - size) / max(size * (1 - overlap), 1)) + 1
    return [round(i * (length - size) / (count - 1)) for i in range(count)]

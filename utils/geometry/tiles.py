"""Overlapping windows that cover a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.geometry.letterbox import FrameSize


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of a picture, source pixels, ends excluded."""

    left: int
    top: int
    right: int
    bottom: int


def tiles_of(picture: FrameSize, size: int, overlap: float) -> list[Tile]:
    """Windows of ``size`` pixels that cover the picture, spread evenly, neighbours overlapping by ``overlap`` or more.

    A picture that fits into one window has no tiles.
    """
    if max(picture) <= size:
        return []
    return [
        Tile(left, top, min(left + size, picture.width), min(top + size, picture.height))
        for top in _starts(picture.height, size, overlap)
        for left in _starts(picture.width, size, overlap)
    ]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    if length <= size:
        return [0]
    count = math.ceil((length - size) / max(size * (1 - overlap), 1)) + 1
    return [round(i * (length - size) / (count - 1)) for i in range(count)]

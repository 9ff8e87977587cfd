"""How an image comes into the network's frame, and boxes back: whole, scaled and padded (letterbox), or in tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from utils.geometry.boxes import Rows, clip_boxes

PAD_VALUE = 114  # the grey that YOLOv5 weights were trained with


class FrameSize(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


@dataclass(frozen=True, slots=True)
class LetterboxTransform:
    """Where a source image lies in a network frame.

    ``scale_x`` and ``scale_y`` are the true ratios resized / source; they differ by the rounding of the resized
    size. ``network = source * scale + pad``, in pixels.
    """

    source: FrameSize
    network: FrameSize
    scale_x: float
    scale_y: float
    pad_left: float
    pad_top: float

    def to_network(self, boxes: Rows) -> Rows:
        """Source boxes (N, 4) xyxy to network pixels."""
        moved: Rows = boxes * self._like(boxes, self._scale) + self._like(boxes, self._shift)
        return moved

    def to_source(self, boxes: Rows) -> Rows:
        """Network boxes (N, 4) xyxy to source pixels, clipped to the source image."""
        unclipped = (boxes - self._like(boxes, self._shift)) / self._like(boxes, self._scale)
        return clip_boxes(unclipped, self.source.height, self.source.width)

    @property
    def _scale(self) -> tuple[float, ...]:
        return (self.scale_x, self.scale_y, self.scale_x, self.scale_y)

    @property
    def _shift(self) -> tuple[float, ...]:
        return (self.pad_left, self.pad_top, self.pad_left, self.pad_top)

    @staticmethod
    def _like(boxes: Rows, row: tuple[float, ...]) -> Rows:
        if isinstance(boxes, np.ndarray):
            return np.asarray(row, dtype=boxes.dtype)
        return boxes.new_tensor(row)


def resize_to_long_side(image: np.ndarray, long_side: int, *, smooth: bool) -> np.ndarray:
    """Image (H, W, 3) scaled so that its longer side is ``long_side`` pixels; the other side is rounded up.

    ``smooth`` averages areas when shrinking (evaluation); without it the cheaper bilinear filter is used (training).
    """
    height, width = image.shape[:2]
    ratio = long_side / max(height, width)
    if ratio == 1:
        return image
    size = (math.ceil(width * ratio), math.ceil(height * ratio))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if smooth and ratio < 1 else cv2.INTER_LINEAR)


def letterbox(
    image: np.ndarray, network: FrameSize, *, source: FrameSize | None = None, enlarge: bool = True
) -> tuple[np.ndarray, LetterboxTransform]:
    """Image (H, W, 3) uint8 fitted into ``network``, centred, padded with grey.

    ``source`` is the size of the image on disk when ``image`` is already a scaled copy of it: the transform then
    leads back to the file's own pixels. ``enlarge=False`` never scales up.
    """
    here = FrameSize(*image.shape[:2])
    source = source or here
    ratio = min(network.height / here.height, network.width / here.width)
    if not enlarge:
        ratio = min(ratio, 1.0)
    resized = FrameSize(max(round(here.height * ratio), 1), max(round(here.width * ratio), 1))
    if resized != here:
        image = cv2.resize(image, (resized.width, resized.height), interpolation=cv2.INTER_LINEAR)
    # An odd rest leaves the extra row at the bottom and the extra column at the right.
    top, left = (network.height - resized.height) // 2, (network.width - resized.width) // 2
    if resized != network:
        canvas = np.full((*network, 3), PAD_VALUE, dtype=np.uint8)
        canvas[top : top + resized.height, left : left + resized.width] = image
        image = canvas
    transform = LetterboxTransform(
        source=source,
        network=network,
        scale_x=resized.width / source.width,
        scale_y=resized.height / source.height,
        pad_left=left,
        pad_top=top,
    )
    return image, transform


def padded_frame(source: FrameSize, long_side: int, stride: int) -> FrameSize:
    """Smallest frame, in multiples of ``stride``, that holds ``source`` scaled to ``long_side`` (detection)."""
    ratio = long_side / max(source)
    height, width = (max(round(side * ratio), 1) for side in source)
    return FrameSize(math.ceil(height / stride) * stride, math.ceil(width / stride) * stride)


def multiple_of_stride(side: int, stride: int) -> int:
    """The smallest multiple of ``stride`` that is not below ``side``, pixels."""
    return math.ceil(side / stride) * stride


def middle_square(image: np.ndarray, side: int) -> np.ndarray:
    """The largest square in the middle of ``image`` (H, W, 3), scaled to ``side`` pixels: a classifier's input."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    return resized_to_square(image[top : top + shorter, left : left + shorter], side)


def resized_to_square(image: np.ndarray, side: int) -> np.ndarray:
    """The image scaled to a square of ``side`` pixels."""
    if image.shape[:2] == (side, side):
        return image
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)


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

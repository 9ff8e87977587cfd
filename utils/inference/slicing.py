"""Sliced inference: detections of a large image in overlapping tiles and as a whole, so that small objects stay large.

The idea is that of Akyon et al., "Slicing Aided Hyper Inference and Fine-tuning for Small Object Detection" (ICIP
2022).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from utils.geometry.boxes import box_area, intersection
from utils.geometry.letterbox import FrameSize, Tile, tiles_of
from utils.geometry.records import Detections
from utils.inference.nms import CLASS_OFFSET
from utils.inference.predictor import FittedImage, Predictor
from utils.runtime.torchvision_operators import nms

MERGES = ("nms", "greedy")
COVERED = 0.5  # part of the smaller box that lies in the other, above which two boxes are taken for one object
SURE = 0.5  # part of the best score that a box needs to widen the frame that it is united into
BORDER = 2.0  # pixels: a box that comes so near to a tile's inner border may be a piece of an object


@dataclass(frozen=True, slots=True)
class SliceSettings:
    """How images are cut and the pieces joined."""

    size: int  # side of a tile, source pixels
    overlap: float = 0.2  # of neighbouring tiles at least, part of their side
    merge: str = "nms"  # or "greedy": boxes of one object are united instead of dropped


@dataclass(frozen=True, slots=True)
class SlicedImage:
    """An image's tiles and, last, the image itself, each in its network frame."""

    views: tuple[FittedImage, ...]
    windows: tuple[Tile, ...]  # where each view lies
    size: FrameSize


class SlicedPredictor:
    """A predictor that takes every image in tiles and as a whole. Keeps no state between calls."""

    def __init__(self, predictor: Predictor, settings: SliceSettings, batch_size: int) -> None:
        self.predictor = predictor
        self.settings = settings
        self.batch_size = batch_size  # views that go through the network together

    @property
    def names(self) -> tuple[str, ...]:
        return self.predictor.names

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detections on the CPU, in pixels of its own image, for each of the images (H, W, 3) uint8 RGB."""
        return [self.detect([self.prepare(image)])[0] for image in images]

    def prepare(self, image: np.ndarray) -> SlicedImage:
        """All views of the image (H, W, 3) uint8 RGB."""
        size = FrameSize(*image.shape[:2])
        windows = (*tiles_of(size, self.settings.size, self.settings.overlap), Tile(0, 0, size.width, size.height))
        views = (self.predictor.prepare(image[w.top : w.bottom, w.left : w.right]) for w in windows)
        return SlicedImage(tuple(views), windows, size)

    def detect(self, images: Sequence[SlicedImage], seen: Callable[[int, int], None] | None = None) -> list[Detections]:
        """Detections on the CPU, in pixels of its own image, for each of the images.

        Views of all images go through the network in batches; ``seen`` is told after each how many of how many have.
        """
        views = [view for image in images for view in image.views]
        found: list[Detections] = []
        for start in range(0, len(views), self.batch_size):
            found += self.predictor.detect(views[start : start + self.batch_size])
            if seen is not None:
                seen(len(found), len(views))
        ends = itertools.accumulate(len(image.views) for image in images)
        return [
            self._joined(image, found[end - len(image.views) : end]) for image, end in zip(images, ends, strict=True)
        ]

    def _joined(self, image: SlicedImage, found: Sequence[Detections]) -> Detections:
        """What the views of one image have found, in pixels of the image, each object once."""
        if len(image.views) == 1:
            return found[0]
        size = image.size
        windows = torch.tensor([(w.left, w.top, w.right, w.bottom) for w in image.windows])
        counts = torch.tensor([len(one) for one in found])
        shift = windows[:, [0, 1, 0, 1]].repeat_interleave(counts, dim=0)
        everything = Detections(
            boxes=torch.cat([one.boxes for one in found]) + shift,
            scores=torch.cat([one.scores for one in found]),
            classes=torch.cat([one.classes for one in found]),
            size=size,
        )
        pieces = _touches_inner_border(everything.boxes, windows.repeat_interleave(counts, dim=0), size)
        suppression = self.predictor.settings.nms
        if self.settings.merge == "greedy":
            merged = merge_greedily(everything, agnostic=suppression.agnostic, pieces=pieces)
        else:
            merged = drop_repeats(everything, pieces, suppression.iou_thres, agnostic=suppression.agnostic)
        return _first(merged, suppression.max_det)


def drop_repeats(detections: Detections, pieces: torch.Tensor, iou_thres: float, *, agnostic: bool) -> Detections:
    """Suppression over all tiles: the best of boxes that overlap, and no pieces of objects that are there whole.

    Args:
        detections: of all tiles, pixels of the image, in any order.
        pieces: (N,) bool, boxes that end at an inner border of their tile. Such a box is dropped too where half of
            it lies in a whole one of its class, whatever the scores; pieces among themselves are united.
        iou_thres: overlap above which the lower-scored of two whole boxes is dropped.
        agnostic: classes are not told apart.

    Returns:
        Detections, best score first.
    """
    whole = _sorted(detections.keep(~pieces))
    whole = whole.keep(nms(_shifted(whole, agnostic), whole.scores.double(), iou_thres))
    rest = merge_greedily(detections.keep(pieces), agnostic=agnostic)
    if len(whole) and len(rest):
        covered = _shared(_shifted(rest, agnostic), _shifted(whole, agnostic)).amax(dim=1)
        rest = rest.keep(covered <= COVERED)
    return _sorted(
        replace(
            whole,
            boxes=torch.cat((whole.boxes, rest.boxes)),
            scores=torch.cat((whole.scores, rest.scores)),
            classes=torch.cat((whole.classes, rest.classes)),
        )
    )


def merge_greedily(detections: Detections, *, agnostic: bool, pieces: torch.Tensor | None = None) -> Detections:
    """Greedy non-maximum merging: the best box takes in every box of its class that shares more than half of the
    smaller of both with it, then every box that does so with the frame around them, and becomes the frame around
    all; then the next best that is left.

    Args:
        detections: of all tiles, pixels of the image, in any order.
        agnostic: classes are not told apart.
        pieces: (N,) bool, boxes that end at an inner border of their tile, by default all. Where the best box is a
            whole one, only pieces widen its frame: other whole boxes would blur the object's outline. Boxes of less
            than half the best one's score never widen it.

    Returns:
        Detections, best score first.
    """
    order = detections.scores.argsort(descending=True, stable=True)
    ordered = detections.keep(order)
    shifted = _shifted(ordered, agnostic)
    widening = torch.ones(len(ordered), dtype=torch.bool) if pieces is None else pieces[order]
    free = torch.ones(len(ordered), dtype=torch.bool)
    kept, frames = [], []
    for row in range(len(ordered)):
        if not free[row]:
            continue
        frame = shifted[row : row + 1]
        counts = (widening | widening[row]) & (ordered.scores >= SURE * ordered.scores[row])
        counts[row] = True
        for _ in range(2):  # what the best box shares half with, then what lies in the frame around them
            own = free & (_shared(frame, shifted)[0] > COVERED)
            own[row] = True
            frame = _frame_around(shifted[own & counts])
        free &= ~own
        kept.append(row)
        frames.append(_frame_around(ordered.boxes[own & counts])[0])
    chosen = ordered.keep(torch.tensor(kept, dtype=torch.int64))
    return replace(chosen, boxes=torch.stack(frames)) if frames else chosen


def _frame_around(boxes: torch.Tensor) -> torch.Tensor:
    """The smallest box (1, 4) that holds all boxes (N, 4), xyxy."""
    return torch.cat((boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)))[None]


def _touches_inner_border(boxes: torch.Tensor, windows: torch.Tensor, size: FrameSize) -> torch.Tensor:
    """Whether each box (N, 4) ends where its window (N, 4) ends inside the image."""
    borders = torch.tensor([0, 0, size.width, size.height])
    return ((boxes - windows).abs().le(BORDER) & windows.ne(borders)).any(dim=1)


def _shared(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Intersection over the smaller of both areas (N, M) of boxes (N, 4) and others (M, 4), xyxy."""
    smaller = torch.minimum(box_area(boxes)[:, None], box_area(others)[None])
    return intersection(boxes[:, None], others[None]) / smaller.clamp(min=1e-9)


def _shifted(detections: Detections, agnostic: bool) -> torch.Tensor:
    """Boxes (N, 4) moved so that those of different classes do not overlap."""
    if agnostic:
        return detections.boxes.double()
    span = max(CLASS_OFFSET, *detections.size)
    return detections.boxes.double() + detections.classes.double()[:, None] * span


def _sorted(detections: Detections) -> Detections:
    return detections.keep(detections.scores.argsort(descending=True, stable=True))


def _first(detections: Detections, count: int) -> Detections:
    return detections.keep(torch.arange(min(count, len(detections))))

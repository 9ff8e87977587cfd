"""Large images as overlapping windows: each window is an image of its own to whatever trains on the data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from utils.dataset.affine_warp import clip_polygon
from utils.dataset.detection_dataset import DetectionDataset
from utils.dataset.label_index import LabelIndex, PathList
from utils.geometry.boxes import box_area, xyxy_to_cxcywh
from utils.geometry.letterbox import FrameSize, Tile, tiles_of
from utils.geometry.records import Labels

OVERLAP = 0.2  # of neighbouring windows, part of their side: what is smaller than that lies whole in one of them
LEAST_VISIBLE = 0.3  # part of its area that an object must show in a window to be learned there
EMPTY_PER_FULL = 1.0  # windows without objects, at most so many for each window with some


@dataclass(frozen=True, slots=True)
class Windows:
    """W windows of the images of a split, in the order of the images."""

    images: np.ndarray  # (W,) int32, row of the split
    corners: np.ndarray  # (W, 4) int32 xyxy, pixels of the image on disk


class TiledDataset(DetectionDataset):
    """The windows of a data set's images, cut when they are asked for.

    Images should be cached (`cached_dataset`), at best in a mapped file, of which a window reads only its
    own part; otherwise every window decodes its whole image.
    """

    def __init__(self, images: DetectionDataset, size: int) -> None:
        index, self.windows = tiled_index(images.index, size)
        super().__init__(index, images.names)
        self._images = images
        self._size = size

    def source_image(self, index: int, scale: float = 1.0) -> np.ndarray:
        """Window ``index`` (H, W, 3) uint8 RGB in full size, whatever the scale."""
        x1, y1, x2, y2 = self.windows.corners[index].tolist()
        return self._images.source_image(int(self.windows.images[index]))[y1:y2, x1:x2]


def tiled_index(index: LabelIndex, size: int) -> tuple[LabelIndex, Windows]:
    """The index of windows of ``size`` pixels, and where they lie.

    Objects are cut by their window; one of which less than `LEAST_VISIBLE` is in it is left out there. All windows
    with objects are taken, of those without at most `EMPTY_PER_FULL` times as many, spread over the split.
    """
    images, corners, parts = [], [], []
    for image in range(len(index)):
        labels = index.labels(image)
        for tile, part in _cut(labels, size):
            images.append(image)
            corners.append((tile.left, tile.top, tile.right, tile.bottom))
            parts.append(part)
    kept = _balanced(np.array([len(part) for part in parts]))
    chosen = [parts[i] for i in kept.tolist()]
    windows = Windows(np.array(images, dtype=np.int32)[kept], np.array(corners, dtype=np.int32)[kept])
    outlines = [polygon for part in chosen for polygon in part.polygons]
    points = [p / _sides(part.size) for part in chosen for p in part.polygons if p is not None]
    none = np.zeros(len(chosen), dtype=np.int64)
    tiled = LabelIndex(
        paths=PathList([str(index.paths[image]) for image in windows.images.tolist()]),
        sizes=np.array([part.size for part in chosen], dtype=np.int32),
        rows=np.concatenate([_rows(part) for part in chosen]),
        row_ends=np.cumsum([len(part) for part in chosen], dtype=np.int64),
        points=np.concatenate(points) if points else np.zeros((0, 2), np.float32),
        point_ends=np.cumsum([0 if p is None else len(p) for p in outlines], dtype=np.int64),
        ignored=np.zeros((0, 5), np.float32),
        ignored_ends=none,
        unlabelled=sum(not len(part) for part in chosen),
        duplicates=index.duplicates,
        problems=index.problems,
    )
    return tiled, windows


def _cut(labels: Labels, size: int) -> Iterator[tuple[Tile, Labels]]:
    """Each window of an image with what is visible in it, in pixels of the window."""
    height, width = labels.size
    for tile in tiles_of(labels.size, size, OVERLAP) or [Tile(0, 0, width, height)]:
        window = np.array([tile.left, tile.top, tile.right, tile.bottom], dtype=np.float32)
        corner, frame = window[:2], FrameSize(tile.bottom - tile.top, tile.right - tile.left)
        boxes = np.concatenate(
            (labels.boxes[:, :2].clip(window[:2], window[2:]), labels.boxes[:, 2:].clip(window[:2], window[2:])), axis=1
        )
        area, whole = box_area(boxes), box_area(labels.boxes)
        own = Labels(boxes - np.tile(corner, 2), labels.classes, labels.polygons, frame)
        own = own.keep((area > 0) & (area >= LEAST_VISIBLE * whole))
        yield tile, _with_cut_outlines(own, corner)


def _with_cut_outlines(labels: Labels, corner: np.ndarray) -> Labels:
    """Outlines moved into the window and cut by it; the box of an object is that of what is left of its outline."""
    height, width = labels.size
    boxes, polygons = labels.boxes.copy(), list(labels.polygons)
    for i, polygon in enumerate(polygons):
        if polygon is not None:
            inside = clip_polygon(polygon - corner, (0, 0, width, height))
            polygons[i] = inside
            boxes[i] = (*inside.min(axis=0), *inside.max(axis=0)) if len(inside) else 0
    return Labels(boxes, labels.classes, tuple(polygons), labels.size).keep(box_area(boxes) > 0)


def _balanced(counts: np.ndarray) -> np.ndarray:
    """Rows of the windows that are kept, from the number of objects in each (W,)."""
    full, empty = np.flatnonzero(counts), np.flatnonzero(counts == 0)
    most = round(EMPTY_PER_FULL * len(full)) if len(full) else len(empty)
    if len(empty) > most:
        empty = empty[np.linspace(0, len(empty) - 1, most).round().astype(np.int64)]
    return np.sort(np.concatenate((full, empty)))


def _sides(size: FrameSize) -> np.ndarray:
    return np.array([size.width, size.height], dtype=np.float32)


def _rows(labels: Labels) -> np.ndarray:
    """(N, 5) float32 class cx cy w h, fractions of the window."""
    boxes = xyxy_to_cxcywh(labels.boxes) / np.tile(_sides(labels.size), 2)
    return np.column_stack((labels.classes, boxes)).astype(np.float32).reshape(-1, 5)

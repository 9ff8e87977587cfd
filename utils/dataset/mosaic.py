"""Training images made of several: mosaics, mixup, copy-paste.

A mosaic is a canvas on which each image has a place, and the drawing of what a view of the canvas shows.

A view that only zooms and shifts (the usual hyperparameters) is drawn from the files to the output at once: each
image is cropped to whole pixels and resized into a whole-pixel rectangle, and its labels follow exactly that
rectangle. No canvas of twice the size is filled, pasted and warped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from utils.dataset.affine_warp import clip_polygon
from utils.geometry.boxes import box_area, intersection
from utils.geometry.letterbox import PAD_VALUE, FrameSize
from utils.geometry.records import Labels

_SLIVER = 1e-3  # pixels; what the canvas's border leaves of an object
_BETA = 32.0  # a narrow distribution about one half: both images stay visible
MAX_COVERED = 0.3  # share of any present object that a pasted one may hide
_PLACES = 10  # drawn for a small object, of which the first free one is taken
_MOST_PADDING = 0.1  # share of such a place


class ImageSource(Protocol):
    """Where tiles get their images from."""

    def source_size(self, index: int) -> FrameSize:
        """Size of the image on disk, pixels."""

    def source_image(self, index: int, scale: float = 1.0) -> np.ndarray:
        """Image (H, W, 3) uint8 RGB, not smaller than ``scale`` times (at most 1) its size on disk."""

    def source_labels(self, index: int) -> Labels:
        """Its objects, in pixels of the image on disk."""


class Tile(NamedTuple):
    """An image on a canvas."""

    image: int  # row of the data set
    scale: float  # canvas pixels per image pixel
    left: float  # of the image's corner on the canvas, pixels
    top: float


class View(NamedTuple):
    """A window on a canvas: output = zoom * canvas + shift, pixels."""

    zoom: float
    shift_x: float
    shift_y: float
    size: FrameSize


def letterbox_tile(source: ImageSource, index: int, canvas: FrameSize) -> Tile:
    """One image in the middle of a canvas that it fills in one direction."""
    height, width = source.source_size(index)
    scale = min(canvas.height / height, canvas.width / width)
    return Tile(index, scale, (canvas.width - width * scale) / 2, (canvas.height - height * scale) / 2)


def mosaic_tiles(source: ImageSource, four: Sequence[int], side: int, rng: np.random.Generator) -> list[Tile]:
    """Four images that meet in a point drawn from the middle half of a canvas of twice ``side``."""
    meet_x, meet_y = rng.uniform(0.5 * side, 1.5 * side, 2)
    tiles = []
    for place, index in enumerate(four):
        height, width = source.source_size(index)
        scale = side / max(height, width)
        left = meet_x if place % 2 else meet_x - width * scale
        top = meet_y if place >= 2 else meet_y - height * scale
        tiles.append(Tile(index, scale, left, top))
    return tiles


def mosaic9_tiles(source: ImageSource, nine: Sequence[int], side: int, rng: np.random.Generator) -> list[Tile]:
    """Nine images on a canvas of twice ``side``: one in the middle of three times ``side``, eight around it
    clockwise from the top, each against its forerunner; the canvas is a window drawn from that square."""
    window_x, window_y = rng.uniform(0, side, 2)
    scales = [side / max(source.source_size(index)) for index in nine]
    sizes = [source.source_size(i) for i in nine]
    w = [size.width * scale for size, scale in zip(sizes, scales, strict=True)]
    h = [size.height * scale for size, scale in zip(sizes, scales, strict=True)]
    right, bottom = side + w[0], side + h[0]  # of the middle image
    corners = [
        (side, side),
        (side, side - h[1]),
        (side + w[1], side - h[2]),
        (right, side),
        (right, side + h[3]),
        (right - w[5], bottom),
        (right - w[5] - w[6], bottom),
        (side - w[7], bottom - h[7]),
        (side - w[8], bottom - h[7] - h[8]),
    ]
    return [
        Tile(index, scale, x - window_x, y - window_y)
        for index, scale, (x, y) in zip(nine, scales, corners, strict=True)
    ]


def draw_tiles(
    source: ImageSource, tiles: Sequence[Tile], canvas: FrameSize, view: View
) -> tuple[np.ndarray, Labels, np.ndarray]:
    """What ``view`` shows of a canvas of tiles.

    Returns:
        The image (H, W, 3) uint8 of ``view.size``, grey where no tile lies; the objects of the tiles it shows, cut
        by the canvas but not yet by the view; and their areas (N,) at that moment, square pixels of the output.
    """
    image = np.full((*view.size, 3), PAD_VALUE, dtype=np.uint8)
    drawn = [(tile, _draw_tile(source, tile, canvas, view, image)) for tile in tiles]
    labels = _labels_of_tiles(
        view.size, [(source.source_labels(tile.image), place) for tile, place in drawn if place is not None]
    )
    return image, labels, box_area(labels.boxes)


class _Place(NamedTuple):
    """Which part of an image a canvas shows, and where it was drawn: output = gain * source pixel + shift."""

    window: tuple[float, float, float, float]  # x1 y1 x2 y2, source pixels
    gain: tuple[float, float]
    shift: tuple[float, float]


def _draw_tile(source: ImageSource, tile: Tile, canvas: FrameSize, view: View, image: np.ndarray) -> _Place | None:
    """Draw a tile into ``image``; None when it is out of sight."""
    height, width = source.source_size(tile.image)
    scale = tile.scale * view.zoom
    columns = _span(tile.left, width * tile.scale, canvas.width, view.zoom, view.shift_x, view.size.width)
    rows = _span(tile.top, height * tile.scale, canvas.height, view.zoom, view.shift_y, view.size.height)
    if columns is None or rows is None:
        return None
    pixels = source.source_image(tile.image, min(scale, 1.0))
    x = _axis(columns, tile.left * view.zoom + view.shift_x, scale, width, pixels.shape[1])
    y = _axis(rows, tile.top * view.zoom + view.shift_y, scale, height, pixels.shape[0])
    crop = pixels[y.crop_start : y.crop_end, x.crop_start : x.crop_end]
    place = (columns[1] - columns[0], rows[1] - rows[0])
    cv2.resize(crop, place, dst=image[rows[0] : rows[1], columns[0] : columns[1]], interpolation=cv2.INTER_LINEAR)
    window = (
        max(-tile.left / tile.scale, 0.0),
        max(-tile.top / tile.scale, 0.0),
        min((canvas.width - tile.left) / tile.scale, width),
        min((canvas.height - tile.top) / tile.scale, height),
    )
    return _Place(window, (x.gain, y.gain), (x.shift, y.shift))


def _labels_of_tiles(size: FrameSize, tiles: Sequence[tuple[Labels, _Place]]) -> Labels:
    """The objects of drawn tiles, cut by what the canvas shows of their image, in pixels of the output.

    All tiles at once: most of the time that labels take is that of calls, not of arithmetic.
    """
    if not tiles:
        return _empty_labels(size)
    labels = replace(join_labels(*(own for own, _ in tiles)), size=size)
    of_tile = np.repeat(np.arange(len(tiles)), [len(own) for own, _ in tiles])
    places = np.array([(*place.window, *place.gain, *place.shift) for _, place in tiles], np.float32)[of_tile]
    low, high, gain, shift = (places[:, None, start : start + 2] for start in (0, 2, 4, 6))  # each (N, 1, 2)
    corners = labels.boxes.reshape(-1, 2, 2).clip(low, high)
    polygons = list(labels.polygons)
    for i, polygon in enumerate(polygons):
        if polygon is not None:
            inside = clip_polygon(polygon, tiles[of_tile[i]][1].window)
            polygons[i] = inside * gain[i] + shift[i]
            corners[i] = (inside.min(axis=0), inside.max(axis=0)) if len(inside) else 0
    left = (corners[:, 1] - corners[:, 0] > _SLIVER).all(axis=1)
    boxes = (corners * gain + shift).reshape(-1, 4)
    moved = replace(labels, boxes=boxes, polygons=tuple(polygons))
    return moved if left.all() else moved.keep(left)


def _span(start: float, length: float, limit: float, zoom: float, shift: float, size: int) -> tuple[int, int] | None:
    """Output pixels that a tile covers along one axis, cut by canvas and view; None when it is out of sight."""
    low, high = max(start, 0.0) * zoom + shift, min(start + length, limit) * zoom + shift
    first, last = max(round(low), 0), min(round(high), size)
    return (first, last) if last > first else None


class _Axis(NamedTuple):
    """One axis of a drawn tile: the decoded pixels used, and output = gain * source pixel + shift."""

    crop_start: int
    crop_end: int
    gain: float
    shift: float


def _axis(span: tuple[int, int], origin: float, scale: float, source: int, decoded: int) -> _Axis:
    """The whole decoded pixels that best fill ``span`` of the output, and the mapping that this amounts to.

    Args:
        origin: output coordinate of the image's first pixel.
        scale: output pixels per source pixel.
    """
    per_source = decoded / source
    start = round((span[0] - origin) / scale * per_source)
    end = round((span[1] - origin) / scale * per_source)
    start = min(max(start, 0), decoded - 1)
    end = min(max(end, start + 1), decoded)
    gain = (span[1] - span[0]) / (end - start)
    return _Axis(start, end, gain * per_source, span[0] - gain * start)


def _empty_labels(size: FrameSize) -> Labels:
    return Labels(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), (), size)


def mix(
    first: tuple[np.ndarray, Labels], second: tuple[np.ndarray, Labels], rng: np.random.Generator
) -> tuple[np.ndarray, Labels]:
    """Mixup: two images (H, W, 3) of one size blended with a weight from Beta(32, 32), and the objects of both.

    Zhang et al., ICLR 2018.
    """
    weight = float(rng.beta(_BETA, _BETA))
    image = cv2.addWeighted(first[0], weight, second[0], 1 - weight, 0)
    return image, join_labels(first[1], second[1])


def join_labels(first: Labels, *others: Labels) -> Labels:
    """All objects in the frame of ``first``."""
    parts = (first, *others)
    return replace(
        first,
        boxes=np.concatenate([part.boxes for part in parts]),
        classes=np.concatenate([part.classes for part in parts]),
        polygons=tuple(polygon for part in parts for polygon in part.polygons),
    )


def paste_mirrored(
    image: np.ndarray, labels: Labels, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, Labels]:
    """Copy-paste: mirror ``share`` of the outlined objects left to right where they hide little of what is there.

    Ghiasi et al., CVPR 2021. Image (H, W, 3) uint8 and labels in its frame; both are returned anew.
    """
    outlined = np.array([i for i, polygon in enumerate(labels.polygons) if polygon is not None], dtype=np.int64)
    count = round(share * len(outlined))
    if not count:
        return image, labels
    width = labels.size.width
    mask = np.zeros(image.shape[:2], dtype=np.uint8)
    pasted: list[Labels] = []
    present = labels.boxes
    for i in rng.permutation(outlined)[:count]:
        polygon = labels.polygons[i]
        if polygon is None:
            continue
        mirrored = polygon * np.array([-1, 1], np.float32) + np.array([width, 0], np.float32)
        box = np.concatenate([mirrored.min(axis=0), mirrored.max(axis=0)])
        if (_covered(present, box) >= MAX_COVERED).any():
            continue
        cv2.fillPoly(mask, [np.round(mirrored).astype(np.int32)], 1)
        one = labels.keep(np.array([i]))
        pasted.append(replace(one, boxes=box[None].astype(np.float32), polygons=(mirrored.astype(np.float32),)))
        present = np.concatenate([present, pasted[-1].boxes])
    if not pasted:
        return image, labels
    image = np.where(mask[..., None] > 0, cv2.flip(image, 1), image)
    return image, join_labels(labels, *pasted)


def paste_small(
    image: np.ndarray, labels: Labels, share: float, size: float, rng: np.random.Generator
) -> tuple[np.ndarray, Labels]:
    """Copy each small object with probability ``share`` to a place without objects: its outline, or its rectangle.

    Kisantal et al., "Augmentation for small object detection", 2019. An object is copied as it is, if it lies whole in
    the image, no other reaches into its rectangle, and one of a few places drawn for it is free and not padding.

    Args:
        image: (H, W, 3) uint8; returned anew, as the labels in its frame are.
        labels: boxes inside the frame.
        size: pixels; an object of less area than a square with this side is small.
    """
    frame = np.array([labels.size.width, labels.size.height])
    taken = np.concatenate([np.floor(labels.boxes[:, :2]), np.ceil(labels.boxes[:, 2:])], axis=1).astype(np.int64)
    whole = (labels.boxes[:, :2] > 0).all(axis=1) & (labels.boxes[:, 2:] < frame).all(axis=1)
    small = np.flatnonzero(whole & (box_area(labels.boxes) < size**2))
    wanted = small[rng.random(len(small)) < share]
    alone = (intersection(taken[wanted, None], taken) > 0).sum(axis=1) == 1  # meets itself
    result, copied, shifts = image.copy(), [], []
    for i in wanted[alone].tolist():
        place = _free_place(image, taken[i], taken, rng)
        if place is not None:
            _copy_pixels(image, taken[i], result, place, labels.polygons[i])
            copied.append(i)
            shifts.append(np.tile(place[:2] - taken[i, :2], 2).astype(np.float32))
            taken = np.concatenate([taken, place[None]])
    if not copied:
        return image, labels
    originals = labels.keep(np.array(copied))
    moved = replace(
        originals,
        boxes=originals.boxes + np.array(shifts),
        polygons=tuple(
            None if polygon is None else polygon + shift[:2]
            for polygon, shift in zip(originals.polygons, shifts, strict=True)
        ),
    )
    return result, join_labels(labels, moved)


def _free_place(
    image: np.ndarray, window: np.ndarray, taken: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """A rectangle (4,) of the size of ``window`` (4,) apart from all those ``taken`` (N, 4), whole pixels, if found."""
    sides = window[2:] - window[:2]
    corners = rng.integers(0, np.array(image.shape[1::-1]) - sides + 1, size=(_PLACES, 2))
    places = np.concatenate([corners, corners + sides], axis=1)
    for place in places[~(intersection(places[:, None], taken) > 0).any(axis=1)]:
        x1, y1, x2, y2 = place.tolist()
        if (image[y1:y2, x1:x2] == PAD_VALUE).all(axis=2).mean() < _MOST_PADDING:
            return np.array(place)
    return None


def _copy_pixels(
    image: np.ndarray, window: np.ndarray, target: np.ndarray, place: np.ndarray, polygon: np.ndarray | None
) -> None:
    """Write what ``window`` (4,) shows of ``image``, or what of it the outline holds, into ``target`` at ``place``."""
    (x1, y1, x2, y2), (left, top, right, bottom) = window.tolist(), place.tolist()
    mask = np.ones((y2 - y1, x2 - x1), dtype=np.uint8)
    if polygon is not None:
        mask[:] = 0
        cv2.fillPoly(mask, [np.round(polygon - window[:2]).astype(np.int32)], 1)
    np.copyto(target[top:bottom, left:right], image[y1:y2, x1:x2], where=mask[..., None] > 0)


def _covered(boxes: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Share (N,) of each box that lies under ``cover`` (4,)."""
    hidden: np.ndarray = intersection(boxes, cover) / np.maximum(box_area(boxes), 1e-9)
    return hidden

"""Random rotation, zoom, shear, shift and perspective of a canvas, and what becomes of its objects.

Coordinates are continuous: pixel (row i, column j) covers ``[j, j + 1] x [i, i + 1]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from utils.geometry.boxes import box_area, clip_boxes
from utils.geometry.letterbox import PAD_VALUE, FrameSize
from utils.geometry.records import Labels

MIN_SIDE = 2.0  # pixels; a thinner object is dropped
MAX_ASPECT = 100.0
MIN_AREA_LEFT = 0.1  # share of the area that has to stay in the frame
MIN_AREA_LEFT_OUTLINED = 0.01  # an outline's box stays tight when it is cut, so that less will do


@dataclass(frozen=True, slots=True)
class WarpRanges:
    """How far a warp may go; each value is drawn uniformly from -x to +x."""

    degrees: float = 0.0
    translate: float = 0.0  # fraction of the output's sides
    scale: float = 0.0  # zoom is drawn from 1 - scale to 1 + scale
    shear: float = 0.0  # degrees
    perspective: float = 0.0  # change of depth per pixel


@dataclass(frozen=True, slots=True)
class Warp:
    """A mapping of canvas to output, pixels to pixels."""

    matrix: np.ndarray  # (3, 3) float64
    zoom: float  # lengths at the middle of the canvas grow by this (shear aside)
    output: FrameSize

    @property
    def is_axis_aligned(self) -> bool:
        """Whether it is nothing but zoom and shift, the usual case."""
        m = self.matrix
        return bool(m[0, 1] == m[1, 0] == m[2, 0] == m[2, 1] == 0)

    def apply(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points (K, 2) of the canvas in output pixels, and their depth (K,), 1 without perspective."""
        projected = points.astype(np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2]
        depth = projected[:, 2]
        return (projected[:, :2] / np.where(np.abs(depth) < 1e-6, 1e-6, depth)[:, None]).astype(np.float32), depth


def draw_warp(rng: np.random.Generator, ranges: WarpRanges, canvas: FrameSize, output: FrameSize) -> Warp:
    """A warp about the middle of ``canvas``, whose middle comes to lie near that of ``output``."""
    angle = math.radians(rng.uniform(-ranges.degrees, ranges.degrees))
    zoom = rng.uniform(1 - ranges.scale, 1 + ranges.scale)
    shear_x, shear_y = (math.tan(math.radians(rng.uniform(-ranges.shear, ranges.shear))) for _ in range(2))
    depth_x, depth_y = (rng.uniform(-ranges.perspective, ranges.perspective) for _ in range(2))
    shift_x, shift_y = (rng.uniform(0.5 - ranges.translate, 0.5 + ranges.translate) for _ in range(2))

    to_middle = np.array([[1, 0, -canvas.width / 2], [0, 1, -canvas.height / 2], [0, 0, 1]])
    depth = np.array([[1, 0, 0], [0, 1, 0], [depth_x, depth_y, 1]])
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    shear = np.array([[1, shear_x, 0], [shear_y, 1, 0], [0, 0, 1]])
    to_output = np.array([[1, 0, shift_x * output.width], [0, 1, shift_y * output.height], [0, 0, 1]])
    return Warp(to_output @ shear @ turn @ depth @ to_middle, zoom, output)


def warp_image(image: np.ndarray, warp: Warp) -> np.ndarray:
    """Image (H, W, 3) uint8 warped to ``warp.output``, grey where the canvas has ended."""
    # OpenCV puts whole numbers at pixel centres, half a pixel from this module's coordinates.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(half) @ warp.matrix @ half
    size = (warp.output.width, warp.output.height)
    grey = (PAD_VALUE,) * 3
    if warp.matrix[2, 0] == 0 and warp.matrix[2, 1] == 0:
        return cv2.warpAffine(image, matrix[:2], size, flags=cv2.INTER_LINEAR, borderValue=grey)
    return cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=grey)


def warp_labels(labels: Labels, warp: Warp) -> Labels:
    """Objects after the warp: the box around the warped outline or, without one, around the warped corners.

    What leaves the frame, or of which too little stays, is dropped; the rest is clipped to the frame.
    """
    boxes = np.zeros((len(labels), 4), dtype=np.float32)
    polygons: list[np.ndarray | None] = []
    in_front = np.ones(len(labels), dtype=bool)
    for i, (box, polygon) in enumerate(zip(labels.boxes, labels.polygons, strict=True)):
        outline = polygon if polygon is not None else box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2)
        points, depth = warp.apply(outline)
        in_front[i] = bool((depth > 0.01).all())  # what lies behind the eye has no place in the image
        boxes[i] = (*points.min(axis=0), *points.max(axis=0))
        polygons.append(points if polygon is not None else None)
    whole = box_area(labels.boxes) * warp.zoom**2
    warped = replace(labels, boxes=boxes, polygons=tuple(polygons), size=warp.output)
    return visible_objects(warped.keep(in_front), whole[in_front])


def visible_objects(labels: Labels, whole: np.ndarray) -> Labels:
    """Objects clipped to ``labels.size``, those dropped that are too thin or of whose area too little is left.

    Args:
        labels: boxes and outlines that may reach beyond the frame.
        whole: (N,) area of each object before the frame cut it, square pixels.
    """
    height, width = labels.size
    boxes = clip_boxes(labels.boxes, height, width)
    polygons = list(labels.polygons)
    for i, polygon in enumerate(polygons):
        if polygon is not None:
            inside = clip_polygon(polygon, (0, 0, width, height))
            polygons[i] = inside
            boxes[i] = (*inside.min(axis=0), *inside.max(axis=0)) if len(inside) else 0
    sides = boxes[:, 2:] - boxes[:, :2]
    short, long = sides.min(axis=1, initial=np.inf), sides.max(axis=1, initial=0)
    outlined = np.array([polygon is not None for polygon in polygons], dtype=bool)
    enough = box_area(boxes) > np.where(outlined, MIN_AREA_LEFT_OUTLINED, MIN_AREA_LEFT) * whole
    keep = (short > MIN_SIDE) & enough & (long < MAX_ASPECT * np.maximum(short, 1e-6))
    return replace(labels, boxes=boxes.astype(np.float32), polygons=tuple(polygons)).keep(keep)


def clip_polygon(polygon: np.ndarray, window: tuple[float, float, float, float]) -> np.ndarray:
    """The part of an outline (K, 2) inside ``window`` x1 y1 x2 y2, side by side (Sutherland & Hodgman, CACM 1974).

    Parts of a concave outline stay joined along the window's side, which leaves their common box as it is.
    """
    x1, y1, x2, y2 = window
    for axis, border, sign in ((0, x1, 1.0), (0, x2, -1.0), (1, y1, 1.0), (1, y2, -1.0)):
        if not len(polygon):
            break
        after = np.roll(polygon, -1, axis=0)
        depth, depth_after = sign * (polygon[:, axis] - border), sign * (after[:, axis] - border)
        inside, crosses = depth >= 0, (depth >= 0) != (depth_after >= 0)
        share = np.divide(depth, depth - depth_after, out=np.zeros_like(depth), where=crosses)
        crossing = polygon + share[:, None] * (after - polygon)
        crossing[:, axis] = border
        pairs = np.stack([polygon, crossing], axis=1).reshape(-1, 2)
        polygon = pairs[np.stack([inside, crosses], axis=1).reshape(-1)]
    return polygon

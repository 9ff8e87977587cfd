"""What stands in a scene: vehicles, boats and people, which are the objects, and houses and trees, which are not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

VEHICLE, BOAT, PERSON = range(3)
LEAST_VISIBLE = 0.5  # share of an object that must stay uncovered
SUBPIXEL_BITS = 4  # coordinates are drawn in 1/16 pixels

VEHICLE_COLOURS = (
    (225, 225, 228),
    (40, 42, 46),
    (150, 30, 32),
    (34, 62, 120),
    (200, 200, 190),
    (120, 124, 128),
    (210, 170, 40),
)
BOAT_COLOURS = ((240, 240, 236), (210, 205, 190), (60, 70, 90), (170, 60, 40))
SHIRT_COLOURS = ((200, 40, 50), (240, 220, 60), (40, 70, 160), (245, 245, 245), (30, 30, 34), (230, 120, 40))


@dataclass(slots=True)
class Scene:
    """An image in the making: float RGB 0-255, where water and roads lie, what is taken, and the ground truth."""

    image: np.ndarray  # (H, W, 3) float32
    water: np.ndarray  # (H, W) bool
    road: np.ndarray  # (H, W) bool
    taken: np.ndarray  # (H, W) bool, where something stands
    scale: float  # pixels per pixel of an image taken from the usual height
    light: tuple[float, float]  # direction in which shadows fall, of length 1
    outlines: list[tuple[int, np.ndarray]]  # class and polygon (K, 2) in pixels
    lengths: tuple[float, float] | None = None  # of objects, pixels, in place of their usual ones


def _rotated(shape: np.ndarray, angle: float, centre: np.ndarray) -> np.ndarray:
    """Points (K, 2) around the origin, turned by ``angle`` and moved to ``centre``."""
    cos, sin = math.cos(angle), math.sin(angle)
    turned: np.ndarray = shape @ np.array(((cos, sin), (-sin, cos))) + centre
    return turned


def _fill(image: np.ndarray, polygon: np.ndarray, colour: Sequence[float] | np.ndarray, opacity: float = 1.0) -> None:
    """Fill a polygon (K, 2) in pixels, smooth at its border. Pixel (i, j) covers [j, j+1) x [i, i+1)."""
    x1, y1 = np.maximum(np.floor(polygon.min(axis=0)).astype(int) - 1, 0)
    x2, y2 = np.minimum(np.ceil(polygon.max(axis=0)).astype(int) + 2, (image.shape[1], image.shape[0]))
    if x2 <= x1 or y2 <= y1:
        return
    cover = np.zeros((y2 - y1, x2 - x1), np.uint8)
    points = ((polygon - (x1, y1) - 0.5) * 2**SUBPIXEL_BITS).round().astype(np.int32)
    cv2.fillPoly(cover, [points], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    alpha = cover[..., None].astype(np.float32) * (opacity / 255)
    window = image[y1:y2, x1:x2]
    window += (np.asarray(colour, np.float32) - window) * alpha


def _mask(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [(polygon - 0.5).round().astype(np.int32)], 1)
    return mask.astype(bool)


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """The smallest window that holds all of a mask (H, W)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _shape(rng: np.random.Generator, kind: int, scale: float) -> tuple[np.ndarray, float]:
    """Outline (K, 2) around the origin, nose towards +x, and length in pixels."""
    if kind == VEHICLE:
        length = float(
            np.clip(rng.choice((20, 22, 25, 34), p=(0.35, 0.3, 0.2, 0.15)) * scale * rng.uniform(0.85, 1.15), 12, 40)
        )
        wide = length * rng.uniform(0.40, 0.48) if length < 30 * scale else length * 0.3
        x, y, c = length / 2, wide / 2, wide * 0.18
        corners = [
            (-x, -y + c),
            (-x + c, -y),
            (x - c, -y),
            (x, -y + c),
            (x, y - c),
            (x - c, y),
            (-x + c, y),
            (-x, y - c),
        ]
        return np.array(corners), length
    if kind == BOAT:
        length = float(np.clip(rng.uniform(13, 36) * scale, 10, 40))
        x, y = length / 2, length * rng.uniform(0.14, 0.19)
        return np.array(
            [
                (-x, -y * 0.8),
                (x * 0.2, -y),
                (x * 0.7, -y * 0.6),
                (x, 0),
                (x * 0.7, y * 0.6),
                (x * 0.2, y),
                (-x, y * 0.8),
            ]
        ), length
    length = float(np.clip(rng.uniform(7.5, 11.5) * scale, 6, 14))
    angle = np.linspace(0, 2 * math.pi, 12, endpoint=False)
    return np.stack((np.cos(angle) * length * 0.3, np.sin(angle) * length * 0.5), axis=1), length


def place_object(scene: Scene, rng: np.random.Generator, kind: int) -> None:
    """Draw one object at a free place of its ground; none if the image has no such place."""
    height, width = scene.taken.shape
    for _ in range(30):
        outline, length = _shape(rng, kind, scene.scale)
        if scene.lengths is not None:
            drawn = float(rng.uniform(*scene.lengths))
            outline, length = outline * (drawn / length), drawn
        centre = rng.uniform((-0.1 * length,) * 2, (width + 0.1 * length, height + 0.1 * length))
        column, row = (int(np.clip(v, 0, side - 1)) for v, side in zip(centre, (width, height), strict=True))
        wanted = {VEHICLE: scene.road if rng.random() < 0.8 else ~scene.water, BOAT: scene.water}.get(
            kind, ~scene.water
        )
        if not wanted[row, column]:
            continue
        outline = _rotated(outline, rng.uniform(0, 2 * math.pi), centre)
        footprint = _mask(_rotated(outline - centre, 0.0, np.zeros(2)) * 1.35 + centre, height, width)
        ground = ~scene.water if kind != BOAT else scene.water
        inside = _mask(outline, height, width)
        if not inside.any() or (footprint & scene.taken).any() or (inside & ~ground).any():
            continue
        (x1, y1), (x2, y2) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
        seen = (min(x2, width) - max(x1, 0)) * (min(y2, height) - max(y1, 0)) / ((x2 - x1) * (y2 - y1))
        if seen < 0.6:
            continue
        scene.taken |= footprint
        DRAWERS[kind](scene, rng, outline, length)
        scene.outlines.append((kind, outline))
        return


def _shadow(scene: Scene, outline: np.ndarray, reach: float) -> None:
    for share in (0.5, 1.0):
        _fill(scene.image, outline + np.array(scene.light) * reach * share, (22, 26, 34), 0.3)


def _draw_vehicle(scene: Scene, rng: np.random.Generator, outline: np.ndarray, length: float) -> None:
    colour = np.array(VEHICLE_COLOURS[rng.integers(len(VEHICLE_COLOURS))]) + rng.uniform(-12, 12, 3)
    _shadow(scene, outline, length * 0.14)
    _fill(scene.image, outline, colour)
    centre, axis, side = _axes(outline, nose=(3, 4), tail=(0, 7))
    for front, back, wide, tint in (
        (0.42, 0.16, 0.8, (38, 46, 58)),
        (-0.5, -0.72, 0.74, (46, 54, 64)),
        (0.12, -0.46, 0.78, colour * 1.08),
    ):
        window = np.array(
            [centre + axis * a + side * wide * s for a, s in ((front, -1), (front, 1), (back, 1), (back, -1))]
        )
        _fill(scene.image, window, np.clip(tint, 0, 255), 0.9)


def _draw_boat(scene: Scene, rng: np.random.Generator, outline: np.ndarray, length: float) -> None:
    colour = np.array(BOAT_COLOURS[rng.integers(len(BOAT_COLOURS))]) + rng.uniform(-8, 8, 3)
    centre, axis, side = _axes(outline, nose=(3, 3), tail=(0, 6))
    if rng.random() < 0.55:  # a wake, which is not part of the boat
        for spread in (-1, 1):
            tail = centre - axis
            wake = np.array(
                [
                    tail + side * spread * 0.5,
                    tail - axis * rng.uniform(1.2, 3) + side * spread * 2.2,
                    tail - axis * 0.6 + side * spread * 0.4,
                ]
            )
            _fill(scene.image, wake, (205, 218, 222), 0.45)
    _shadow(scene, outline, length * 0.07)
    _fill(scene.image, outline, colour)
    deck = centre + (outline - centre) * np.array((0.66, 0.66)) - axis * 0.08
    _fill(scene.image, deck, (168, 128, 84) if rng.random() < 0.5 else colour * 0.82, 0.85)
    cabin = np.array([centre + axis * a + side * 0.5 * s for a, s in ((0.15, -1), (0.15, 1), (-0.3, 1), (-0.3, -1))])
    _fill(scene.image, cabin, (244, 244, 242), 0.9)


def _draw_person(scene: Scene, rng: np.random.Generator, outline: np.ndarray, length: float) -> None:
    centre = outline.mean(axis=0)
    reach = np.array(scene.light) * length * rng.uniform(0.7, 1.2)
    _fill(scene.image, np.concatenate((outline[:6], outline[6:] + reach)), (24, 26, 32), 0.35)
    _fill(scene.image, outline, np.array(SHIRT_COLOURS[rng.integers(len(SHIRT_COLOURS))]) + rng.uniform(-10, 10, 3))
    head = centre + (outline - outline.mean(axis=0)) * (0.62, 0.62)
    radius = length * 0.2
    angle = np.linspace(0, 2 * math.pi, 10, endpoint=False)
    head = centre + np.stack((np.cos(angle), np.sin(angle)), axis=1) * radius
    _fill(scene.image, head, ((72, 48, 34), (30, 26, 24), (190, 150, 90))[rng.integers(3)])


DRAWERS = {VEHICLE: _draw_vehicle, BOAT: _draw_boat, PERSON: _draw_person}


def _axes(
    outline: np.ndarray, *, nose: tuple[int, int], tail: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre, half-length vector towards the nose, and half-width vector, of an outline."""
    front, back = outline[list(nose)].mean(axis=0), outline[list(tail)].mean(axis=0)
    axis = (front - back) / 2
    normal = np.array((-axis[1], axis[0])) / (np.linalg.norm(axis) + 1e-6)
    half_width = np.abs((outline - outline.mean(axis=0)) @ normal).max()
    return (front + back) / 2, axis, normal * half_width


def draw_houses(scene: Scene, rng: np.random.Generator, count: int) -> None:
    """Roofs with two slopes and a shadow: large, unlabelled, like buildings in real images."""
    height, width = scene.taken.shape
    for _ in range(count * 4):
        if count == 0:
            return
        half = rng.uniform(22, 46, 2) * scene.scale
        centre, angle = rng.uniform((0, 0), (width, height)), rng.uniform(0, math.pi)
        corners = _rotated(np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half, angle, centre)
        footprint = _mask(
            _rotated(np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half * 1.25, angle, centre), height, width
        )
        if (footprint & (scene.water | scene.road | scene.taken)).any():
            continue
        _shadow(scene, corners, 12 * scene.scale)
        roof = np.array(((150, 74, 58), (120, 116, 112), (96, 84, 80), (176, 150, 120))[rng.integers(4)], np.float32)
        ridge = ((corners[0] + corners[3]) / 2, (corners[1] + corners[2]) / 2)
        _fill(scene.image, corners, roof * 0.86)
        _fill(scene.image, np.array([corners[0], corners[1], ridge[1], ridge[0]]), roof * 1.1)
        scene.taken |= footprint
        count -= 1


def draw_trees(scene: Scene, rng: np.random.Generator, count: int) -> None:
    """Tree crowns, some of which cover a part of an object, never so much that it could not be told."""
    height, width = scene.taken.shape
    masks = [_mask(outline, height, width) for _, outline in scene.outlines]
    windows = [_window(mask) for mask in masks]  # where each object lies, so that few pixels are counted
    sizes = [int(mask.sum()) for mask in masks]
    hidden = np.zeros((height, width), bool)
    for _ in range(count):
        radius = rng.uniform(7, 17) * scene.scale
        centre = rng.uniform((0, 0), (width, height))
        if masks and rng.random() < 0.3:  # beside an object
            centre = scene.outlines[rng.integers(len(masks))][1].mean(axis=0) + rng.normal(0, radius, 2)
        angle = np.linspace(0, 2 * math.pi, 14, endpoint=False)
        crown = centre + np.stack((np.cos(angle), np.sin(angle)), 1) * radius * rng.uniform(0.75, 1.1, (14, 1))
        cover = _mask(crown, height, width)
        covered = hidden | cover
        if (cover & scene.water).any() or any(
            (mask[window] & covered[window]).sum() > (1 - LEAST_VISIBLE) * size
            for mask, window, size in zip(masks, windows, sizes, strict=True)
        ):
            continue
        hidden = covered
        green = np.array((52, 84, 40), np.float32) * rng.uniform(0.7, 1.25)
        _fill(scene.image, crown + np.array(scene.light) * radius * 0.6, (20, 24, 28), 0.35)
        _fill(scene.image, crown, green)
        for _ in range(6):
            spot = centre + rng.normal(0, radius * 0.4, 2) - np.array(scene.light) * radius * 0.2
            _fill(
                scene.image,
                spot + np.stack((np.cos(angle), np.sin(angle)), 1) * radius * 0.28,
                green * rng.uniform(1.05, 1.35),
                0.6,
            )

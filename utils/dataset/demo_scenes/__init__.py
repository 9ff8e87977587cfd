"""Generated images of small objects: ground seen from above with vehicles, boats and people of 6 to 40 pixels.

Every image is a function of (seed, split, number). Ground truth is the outline of what was drawn, so it is exact.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.dataset.demo_scenes.things import BOAT, PERSON, VEHICLE, Scene, draw_houses, draw_trees, place_object
from utils.runtime.console_log import with_progress

NAMES = ("vehicle", "boat", "person")
TRAIN_IMAGES, VAL_IMAGES, SEED = 240, 60, 0


@dataclass(frozen=True, slots=True)
class SceneSize:
    """How many images of a data set are written, from which seed, and whether labels are outlines or boxes."""

    train: int = TRAIN_IMAGES
    val: int = VAL_IMAGES
    seed: int = SEED
    outlines: bool = False


@dataclass(frozen=True, slots=True)
class SceneObjects:
    """Sizes and numbers of what stands in an image; the demo's own unless given."""

    lengths: tuple[float, float] | None = None  # of objects, pixels from and to, any one as likely
    per_kind: int | None = None  # vehicles, boats and people each, as far as there is room
    density: float = 1.0  # of all things on an area, beside the usual


def write_demo_scenes(root: Path, size: SceneSize | None = None) -> Path:
    """Write the data set under ``root`` in YOLO format, unless it is there. Gives ``root``.

    It is written beside its place and moved there when it is whole, so a killed run leaves no half data set.
    """
    if root.exists():
        return root
    size = size or SceneSize()
    unfinished = root.with_name(root.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for split_number, (split, count) in enumerate((("train", size.train), ("val", size.val))):
        for kind in ("images", "labels"):
            (unfinished / kind / split).mkdir(parents=True)
        for number in with_progress(range(count), count, "image", f"drawing {split} scenes"):
            image, rows, quality = draw_scene(
                np.random.default_rng((size.seed, split_number, number)), outlines=size.outlines
            )
            write_image(unfinished / "images" / split / f"{number:04d}.jpg", image, quality)
            (unfinished / "labels" / split / f"{number:04d}.txt").write_text("".join(rows), encoding="utf-8")
    unfinished.rename(root)
    return root


def write_image(path: Path, image: np.ndarray, quality: int) -> None:
    """Write RGB ``image`` (H, W, 3) uint8 as a JPEG."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    path.write_bytes(encoded.tobytes())


def draw_scene(
    rng: np.random.Generator,
    frame: tuple[int, int] | None = None,
    *,
    outlines: bool = False,
    objects: SceneObjects = SceneObjects(),
) -> tuple[np.ndarray, list[str], int]:
    """One image: RGB (H, W, 3) uint8, its YOLO label rows, and the JPEG quality it is to be written with.

    ``frame`` is (height, width); without it both are drawn from 416 to 640. With ``outlines``
    the rows are polygons instead of boxes.
    """
    height, width = frame or (int(side) for side in rng.integers(13, 21, 2) * 32)
    scene = _ground(rng, height, width)
    scene.lengths = objects.lengths
    crowd = objects.density * height * width / (512 * 512)
    draw_houses(scene, rng, round(rng.integers(2, 7) * crowd))
    for kind, least, most in ((VEHICLE, 4, 12), (BOAT, 3, 10), (PERSON, 4, 14)):
        usual = round(rng.integers(least, most + 1) * crowd)
        count = usual if objects.per_kind is None else objects.per_kind
        for _ in range(count):
            place_object(scene, rng, kind)
    draw_trees(scene, rng, round(rng.integers(8, 26) * crowd))
    image, quality = _camera(scene.image, rng)
    row = _outline_row if outlines else _label_row
    return image, [row(kind, outline, height, width) for kind, outline in scene.outlines], quality


def _label_row(kind: int, outline: np.ndarray, height: int, width: int) -> str:
    x1, y1 = np.maximum(outline.min(axis=0), 0)
    x2, y2 = np.minimum(outline.max(axis=0), (width, height))
    centre_and_size = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return f"{kind} " + " ".join(f"{value:.6f}" for value in centre_and_size) + "\n"


def _outline_row(kind: int, outline: np.ndarray, height: int, width: int) -> str:
    points = np.clip(outline / (width, height), 0, 1).ravel()
    return f"{kind} {' '.join(f'{value:.6f}' for value in points)}\n"


def _noise(rng: np.random.Generator, height: int, width: int, octaves: Sequence[int]) -> np.ndarray:
    """Smooth noise (H, W) of mean 0 and deviation 1: random grids with cells of ``octaves`` pixels, enlarged."""
    total = np.zeros((height, width), np.float32)
    for cell in octaves:
        grid = rng.standard_normal((height // cell + 2, width // cell + 2)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * math.sqrt(cell)
    total -= total.mean()
    total /= total.std() + 1e-6
    return total


def _ground(rng: np.random.Generator, height: int, width: int) -> Scene:
    """Fields, one or two roads and, in most images, water."""
    base = np.array(((96, 110, 66), (132, 118, 84), (86, 100, 72), (150, 140, 110))[rng.integers(4)], np.float32)
    relief = _noise(rng, height, width, (96, 32, 8, 2))[..., None]
    image = base + relief * rng.uniform(7, 13)
    _fields(image, rng)

    water = np.zeros((height, width), bool)
    if rng.random() < 0.75:
        shore = _noise(rng, height, width, (160, 64)) * 0.22
        angle = rng.uniform(0, 2 * math.pi)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        across = (x / width - 0.5) * math.cos(angle) + (y / height - 0.5) * math.sin(angle)
        water = across + shore * 0.4 > rng.uniform(0.02, 0.22)
        deep = np.array(((38, 74, 98), (52, 92, 96), (30, 60, 84))[rng.integers(3)], np.float32)
        waves = _noise(rng, height, width, (24, 6, 2))[..., None]
        image = np.where(water[..., None], deep + waves * 6, image)
        beach = cv2.dilate(water.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool) & ~water
        image[beach] = image[beach] * 0.4 + np.array((196, 182, 146), np.float32) * 0.6

    road = np.zeros((height, width), np.uint8)
    scale = rng.uniform(0.75, 1.2)
    for _ in range(int(rng.integers(1, 3))):
        _road(image, road, rng, scale)
    on_land = road.astype(bool) & ~water
    light = rng.uniform(0, 2 * math.pi)
    taken = cv2.dilate((road.astype(bool) & water).astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    return Scene(image, water & ~road.astype(bool), on_land, taken, scale, (math.cos(light), math.sin(light)), [])


def _fields(image: np.ndarray, rng: np.random.Generator) -> None:
    """Ploughed strips in some rotated rectangles."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(int(rng.integers(1, 5))):
        centre = rng.uniform(0, 1, 2) * (width, height)
        corners = cv2.boxPoints((tuple(centre), tuple(rng.uniform(90, 260, 2)), float(rng.uniform(0, 180))))
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [corners.astype(np.int32)], 1)
        angle = rng.uniform(0, math.pi)
        furrows = np.sin((x * math.cos(angle) + y * math.sin(angle)) * rng.uniform(0.5, 1.4))
        tint = rng.uniform(-26, 26, 3).astype(np.float32)
        image += mask[..., None] * (tint + furrows[..., None] * rng.uniform(2, 7))


def _road(image: np.ndarray, road: np.ndarray, rng: np.random.Generator, scale: float) -> None:
    """One road with a broken centre line, bent once, from border to border."""
    height, width = road.shape
    upright = rng.random() < 0.5
    ends = rng.uniform(0.1, 0.9, 3)
    points = [(ends[0] * width, -20), (ends[1] * width, height / 2), (ends[2] * width, height + 20)]
    if not upright:
        points = [(-20, ends[0] * height), (width / 2, ends[1] * height), (width + 20, ends[2] * height)]
    path = np.array(points, np.int32)
    mask = np.zeros_like(road)
    cv2.polylines(mask, [path], False, 1, round(rng.uniform(34, 46) * scale), cv2.LINE_8)
    grey = rng.uniform(88, 128) + _noise(rng, height, width, (8, 2)) * 4
    image[mask > 0] = grey[mask > 0][:, None]
    for start, end in itertools.pairwise(points):
        steps = int(math.dist(start, end) // (14 * scale))
        for step in range(0, steps, 2):
            a, b = (np.array(start) + (np.array(end) - start) * (step + k) / steps for k in (0, 1))
            cv2.line(image, a.astype(int).tolist(), b.astype(int).tolist(), (215, 215, 205), 1, cv2.LINE_AA)
    np.maximum(road, mask, out=road)


def _camera(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Blur, exposure, sensor noise; and the JPEG quality."""
    blurred = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.35, 0.85)))
    exposed = (blurred - 110) * rng.uniform(0.85, 1.15) + 110 + rng.uniform(-14, 14)
    noisy = exposed + rng.standard_normal(image.shape).astype(np.float32) * rng.uniform(1, 5)
    return np.clip(noisy, 0, 255).astype(np.uint8), int(rng.integers(60, 96))

"""Random changes of a training image by itself: colour, mirroring, and rarely blur, grey or local contrast.

The rare ones need albumentations and else stay away; the kinds and how often they come are YOLOv5's.

    pip install --no-deps albumentations==2.0.8 albucore==0.0.24 simsimd stringzilla && pip install pydantic scipy

(``--no-deps``, as it would bring a second OpenCV.)
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np

from utils.geometry.records import Labels

HUES = 180  # OpenCV's 8-bit hue counts half degrees, 0 to 179
PROBABILITY = 0.01  # of each change
CHANGES = ("Blur", "MedianBlur", "ToGray", "CLAHE")  # names of albumentations' transforms, in their order


class JitterGains(NamedTuple):
    """Factors on hue, saturation and value; 1 leaves the channel as it is."""

    hue: float
    saturation: float
    value: float


def draw_jitter(rng: np.random.Generator, hue: float, saturation: float, value: float) -> JitterGains:
    """Gains drawn uniformly from 1 - x to 1 + x for each channel."""
    draws = rng.uniform(-1, 1, 3) * (hue, saturation, value) + 1
    return JitterGains(*draws.tolist())


def jitter_color(image: np.ndarray, gains: JitterGains) -> np.ndarray:
    """Image (H, W, 3) uint8 RGB with its hue, saturation and value multiplied; hue goes round, the others saturate.

    The image is overwritten: at a training image's size, taking fresh memory costs more than the arithmetic.
    """
    if gains == JitterGains(1, 1, 1):
        return image
    cv2.cvtColor(image, cv2.COLOR_RGB2HSV, dst=image)
    if gains.hue * (HUES - 1) <= 255:
        # A diagonal matrix multiplies three channels six times as fast as tables do; OpenCV's way back takes the hue
        # modulo HUES.
        cv2.transform(image, np.diag(gains), dst=image)
    else:  # the hue has to go round before it is cut off at 255
        levels = np.arange(256, dtype=np.float64)
        hue = (levels * gains.hue).round() % HUES
        others = [(levels * gain).round().clip(0, 255) for gain in gains[1:]]
        cv2.LUT(image, np.stack((hue, *others), axis=-1).astype(np.uint8)[None], dst=image)
    return cv2.cvtColor(image, cv2.COLOR_HSV2RGB, dst=image)


def flip_image(image: np.ndarray, *, left_right: bool, up_down: bool) -> np.ndarray:
    """Image (H, W, 3) mirrored along the chosen axes, in its own memory."""
    if left_right:
        cv2.flip(image, 1, dst=image)
    if up_down:
        cv2.flip(image, 0, dst=image)
    return image


def flip_labels(labels: Labels, *, left_right: bool, up_down: bool) -> Labels:
    """Labels mirrored in their frame along the chosen axes."""
    if not left_right and not up_down:
        return labels
    height, width = labels.size
    boxes = labels.boxes.copy()
    shift, sign = np.zeros(2, np.float32), np.ones(2, np.float32)
    if left_right:
        boxes[:, [0, 2]] = width - labels.boxes[:, [2, 0]]
        shift[0], sign[0] = width, -1
    if up_down:
        boxes[:, [1, 3]] = height - labels.boxes[:, [3, 1]]
        shift[1], sign[1] = height, -1
    polygons = tuple(None if polygon is None else polygon * sign + shift for polygon in labels.polygons)
    return replace(labels, boxes=boxes, polygons=polygons)


class PixelChanges(NamedTuple):
    """Which of `CHANGES` happen to an image, and the seed of what they draw themselves."""

    chosen: tuple[str, ...]
    seed: int


def albumentations_installed() -> bool:
    """Whether the changes can happen."""
    return importlib.util.find_spec("albumentations") is not None


def draw_pixel_changes(rng: np.random.Generator) -> PixelChanges:
    """Each change with its probability; the draws are the same with and without albumentations."""
    happens = rng.random(len(CHANGES)) < PROBABILITY
    seed = int(rng.integers(2**31))
    return PixelChanges(tuple(name for name, chosen in zip(CHANGES, happens, strict=True) if chosen), seed)


def change_pixels(image: np.ndarray, changes: PixelChanges) -> np.ndarray:
    """Image (H, W, 3) uint8 RGB with the chosen changes; no object moves."""
    if not changes.chosen or not _installed_once():
        return image
    for name in changes.chosen:
        transform = _transform(name)
        transform.set_random_seed(changes.seed)
        image = transform(image=image)["image"]
    return image


@lru_cache(maxsize=1)
def _installed_once() -> bool:
    return albumentations_installed()


@lru_cache(maxsize=len(CHANGES))
def _transform(name: str) -> Any:
    """The transform, which always fires: whether it does has been drawn already."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network for a newer version
    import albumentations

    return albumentations.Compose([getattr(albumentations, name)(p=1.0)])

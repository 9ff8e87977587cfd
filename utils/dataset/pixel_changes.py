"""Rare changes of a training image's pixels: blur, grey, local contrast. They need albumentations and else stay away.

    pip install --no-deps albumentations==2.0.8 albucore==0.0.24 simsimd stringzilla && pip install pydantic scipy

(``--no-deps``, as it would bring a second OpenCV.) The kinds and how often they come are YOLOv5's.
"""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

PROBABILITY = 0.01  # of each change
CHANGES = ("Blur", "MedianBlur", "ToGray", "CLAHE")  # names of albumentations' transforms, in their order


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

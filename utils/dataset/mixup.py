"""Mixup: two training images blended, their objects united (Zhang et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from utils.geometry.records import Labels

_BETA = 32.0  # a narrow distribution about one half: both images stay visible


def mix(
    first: tuple[np.ndarray, Labels], second: tuple[np.ndarray, Labels], rng: np.random.Generator
) -> tuple[np.ndarray, Labels]:
    """Two images (H, W, 3) of one size blended with a weight from Beta(32, 32), and the objects of both."""
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

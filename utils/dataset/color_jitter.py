"""Random hue, saturation and brightness, by one lookup table per channel."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np


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
    """Image (H, W, 3) uint8 RGB with its hue, saturation and value multiplied; hue goes round, the others saturate."""
    if gains == JitterGains(1, 1, 1):
        return image
    levels = np.arange(256, dtype=np.float64)
    # OpenCV's 8-bit hue counts half degrees, 0 to 179.
    tables = np.stack(
        [
            (levels * gains.hue) % 180,
            (levels * gains.saturation).clip(0, 255),
            (levels * gains.value).clip(0, 255),
        ],
        axis=-1,
    ).astype(np.uint8)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, tables[None]), cv2.COLOR_HSV2RGB)

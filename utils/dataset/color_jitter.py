"""Random hue, saturation and brightness."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

HUES = 180  # OpenCV's 8-bit hue counts half degrees, 0 to 179


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

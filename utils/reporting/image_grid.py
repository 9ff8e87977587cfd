"""Images side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def image_grid(images: Sequence[np.ndarray | None], columns: int | None = None, gap: int = 0) -> np.ndarray:
    """Images (h, w, 3) uint8, row by row, as one image (H, W, 3) on white.

    Args:
        images: at least one; each lies at the upper left of a cell that fits the largest. None leaves its cell white.
        columns: by default as many as rows, or one more.
        gap: pixels between cells.
    """
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    height, width = (max(image.shape[axis] for image in images if image is not None) + gap for axis in (0, 1))
    grid = np.full((rows * height - gap, columns * width - gap, 3), 255, dtype=np.uint8)
    for place, image in enumerate(images):
        if image is not None:
            top, left = place // columns * height, place % columns * width
            grid[top : top + image.shape[0], left : left + image.shape[1]] = image
    return grid

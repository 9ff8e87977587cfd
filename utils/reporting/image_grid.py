"""Images side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from utils.geometry.letterbox import FrameSize


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


def filled_rows(aspects: Sequence[float], width: int, height: int, gap: int = 0) -> list[list[FrameSize]]:
    """Sizes at which images fill rows, in their order.

    Args:
        aspects: width over height of each image, at least one.
        width: of every row, pixels; a row that would be more than twice ``height`` high stays narrower.
        height: what the rows are near, pixels.
        gap: pixels between images.
    """
    count = len(aspects)
    # The least sum over rows of squared log(height of the row / wanted height), for the first n images.
    costs, starts = [0.0], [0]
    for end in range(1, count + 1):
        options = [
            (costs[start] + math.log(_row_height(aspects[start:end], width, gap) / height) ** 2, start)
            for start in range(end)
            if (end - start - 1) * gap < width
        ]
        cost, start = min(options)
        costs.append(cost)
        starts.append(start)
    rows: list[list[FrameSize]] = []
    end = count
    while end:
        rows.insert(0, _row(aspects[starts[end] : end], width, 2 * height, gap))
        end = starts[end]
    return rows


def _row_height(aspects: Sequence[float], width: int, gap: int) -> float:
    return (width - gap * (len(aspects) - 1)) / sum(aspects)


def _row(aspects: Sequence[float], width: int, most: int, gap: int) -> list[FrameSize]:
    """Sizes of the images of one row, together as wide as it."""
    height = min(_row_height(aspects, width, gap), most)
    edges = [round(height * sum(aspects[:place])) for place in range(len(aspects) + 1)]
    return [FrameSize(max(round(height), 1), max(edges[k + 1] - edges[k], 1)) for k in range(len(aspects))]


def stacked_rows(rows: Sequence[Sequence[np.ndarray]], gap: int = 0) -> np.ndarray:
    """Rows of images (h, w, 3) uint8, those of a row of one height, as one image (H, W, 3) on white."""
    width = max(sum(image.shape[1] + gap for image in row) for row in rows) - gap
    height = sum(row[0].shape[0] + gap for row in rows) - gap
    sheet = np.full((height, width, 3), 255, dtype=np.uint8)
    top = 0
    for row in rows:
        left = 0
        for image in row:
            sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
            left += image.shape[1] + gap
        top += row[0].shape[0] + gap
    return sheet

"""Images of classes in a grid, each with its caption."""

from __future__ import annotations

import numpy as np

from utils.reporting.classification_files import CAPTION, SMALLEST_TILE, captioned_tiles


def test_small_images_are_enlarged_and_named() -> None:
    images = [np.full((32, 32, 3), value, dtype=np.uint8) for value in (10, 20, 30)]
    grid = captioned_tiles(images, ["a", "b", ""])
    side, step = SMALLEST_TILE, SMALLEST_TILE + CAPTION
    assert grid.shape == (2 * step, 2 * side, 3)
    cells = (grid[:side, :side], grid[:side, side:], grid[step : step + side, :side])
    assert [np.unique(cell).tolist() for cell in cells] == [[10], [20], [30]]
    assert grid[side:step].min() < 100  # letters
    assert (grid[step + side :] == 255).all() and (grid[step:, side:] == 255).all()  # no caption, no fourth image

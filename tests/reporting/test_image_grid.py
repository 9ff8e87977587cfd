"""Images side by side, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest

from utils.reporting.image_grid import image_grid


def plain(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_images_of_several_sizes_with_a_gap_and_a_hole() -> None:
    grid = image_grid([plain(2, 3, 10), None, plain(1, 2, 20)], columns=2, gap=1)
    assert grid[..., 0].tolist() == [
        [10, 10, 10, 255, 255, 255, 255],
        [10, 10, 10, 255, 255, 255, 255],
        [255] * 7,
        [20, 20, 255, 255, 255, 255, 255],
        [255] * 7,
    ]


@pytest.mark.parametrize(("count", "shape"), [(1, (4, 5)), (2, (4, 10)), (3, (8, 10)), (5, (8, 15)), (10, (12, 20))])
def test_as_many_columns_as_rows_or_one_more(count: int, shape: tuple[int, int]) -> None:
    assert image_grid([plain(4, 5, 0)] * count).shape == (*shape, 3)


def test_fewer_images_than_columns_leave_no_empty_ones() -> None:
    assert image_grid([plain(4, 5, 0)] * 3, columns=8).shape == (4, 15, 3)

"""Images side by side, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.geometry.letterbox import FrameSize
from utils.reporting.image_grid import filled_rows, image_grid, stacked_rows


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


def test_rows_are_filled_by_hand() -> None:
    # Three squares and one of 3:1 in rows of 600 near 200 high: the squares fill one, the last one fills another.
    assert filled_rows([1, 1, 1, 3], 600, 200) == [[FrameSize(200, 200)] * 3, [FrameSize(200, 600)]]
    # Two of 1:2 would be 600 high in a row of 600: twice 200 is the most, the row stays at 400.
    assert filled_rows([0.5, 0.5], 600, 200) == [[FrameSize(400, 200)] * 2]
    # With gaps of 10: (620 - 20) / 3.
    assert filled_rows([1, 1, 1], 620, 200, 10) == [[FrameSize(200, 200)] * 3]


@given(aspects=st.lists(st.floats(0.2, 5), min_size=1, max_size=9), width=st.integers(300, 1300))
def test_every_row_has_the_width_or_the_greatest_height(aspects: list[float], width: int) -> None:
    rows = filled_rows(aspects, width, 200, 4)
    assert sum(map(len, rows)) == len(aspects)
    for row in rows:
        assert len({size.height for size in row}) == 1 and row[0].height <= 400
        assert row[0].height == 400 or sum(size.width for size in row) + 4 * (len(row) - 1) == width
    for size, aspect in zip((size for row in rows for size in row), aspects, strict=True):
        assert abs(size.width - aspect * size.height) <= 1 + aspect


def test_rows_are_stacked_from_the_left() -> None:
    sheet = stacked_rows([[plain(2, 3, 10), plain(2, 5, 20)], [plain(4, 6, 30)]], gap=1)
    assert sheet.shape == (2 + 1 + 4, 3 + 1 + 5, 3)
    assert (sheet[:2, :3] == 10).all() and (sheet[:2, 4:] == 20).all() and (sheet[3:, :6] == 30).all()
    assert (sheet[2] == 255).all() and (sheet[:2, 3] == 255).all() and (sheet[3:, 6:] == 255).all()

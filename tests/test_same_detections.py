"""The comparison that other tests rely on: blind to order, not to anything else."""

from __future__ import annotations

import numpy as np
import pytest

from tests.same_detections import assert_same_detections

ROWS = np.array([[10.0, 10, 20, 20, 0.9, 1], [10, 10, 20, 20, 0.9, 2], [40, 10, 60, 20, 0.5, 1]])


def changed(row: int, column: int, by: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[row, column] += by
    return rows


def test_order_and_small_differences_do_not_matter() -> None:
    nearly = ROWS + [0.009, -0.009, 0, 0, 0.0009, 0]
    assert_same_detections(nearly[[2, 0, 1]], ROWS, box=0.01, score=0.001)
    assert_same_detections(ROWS[:0], [], box=0.01, score=0.001)


@pytest.mark.parametrize(
    "other",
    [
        changed(0, 2, 0.02),
        changed(2, 4, 0.002),
        changed(2, 5, 1),
        changed(1, 0, float("nan")),
        ROWS[:2],
        ROWS[[0, 1, 2, 2]],
        ROWS[[0, 0, 2]],
        ROWS[:0],
    ],
)
def test_any_other_difference_is_seen_from_both_sides(other: np.ndarray) -> None:
    for found, expected in ((other, ROWS), (ROWS, other)):
        with pytest.raises(AssertionError, match="rows have no partner"):
            assert_same_detections(found, expected, box=0.01, score=0.001)


def test_only_rows_on_the_threshold_may_be_missing() -> None:
    assert_same_detections(ROWS[:2], ROWS, box=0.01, score=0.001, threshold=0.4995)
    assert_same_detections(ROWS, ROWS[:2], box=0.01, score=0.001, threshold=0.4995)
    with pytest.raises(AssertionError, match="1 of 3 expected rows"):
        assert_same_detections(ROWS[:2], ROWS, box=0.01, score=0.001, threshold=0.49)

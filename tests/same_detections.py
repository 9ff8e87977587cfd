"""Detections of two programs, kernels or batches compared as sets.

Processors, numbers of threads and batch shapes sum in other orders, so that the last bits of a score differ and rows of
nearly equal score change places. Which row comes first is therefore no part of the comparison; how far a box and its
score may be off is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def assert_same_detections(
    found: npt.ArrayLike, expected: npt.ArrayLike, *, box: float, score: float, threshold: float | None = None
) -> None:
    """Pair every row with one of the other side: same class, box and score no further away than allowed.

    Args:
        found: rows (N, 6) of four numbers that make the box, score, class.
        expected: rows (M, 6) of the same kind.
        box: largest difference of any of a box's four numbers, in their unit.
        score: largest difference of a score.
        threshold: the lowest score that both sides keep, if either may miss what lies on it.
    """
    ours, theirs = (np.asarray(rows, dtype=np.float64).reshape(-1, 6) for rows in (found, expected))
    limits = np.array([box] * 4 + [score, 0.5])  # classes are whole numbers
    # How far apart each pair is, in units of what is allowed: 1 at the limit.
    apart = (np.abs(ours[:, None] - theirs[None]) / limits).max(axis=2)
    open_ours, open_theirs = np.ones(len(ours), dtype=bool), np.ones(len(theirs), dtype=bool)
    for pair in np.argsort(apart, axis=None):  # nearest pairs first
        mine, other = np.unravel_index(pair, apart.shape)
        if not apart[mine, other] <= 1:
            break  # so are all that follow; NaN is sorted last
        if open_ours[mine] and open_theirs[other]:
            open_ours[mine] = open_theirs[other] = False
    for name, rows, alone in (("found", ours, open_ours), ("expected", theirs, open_theirs)):
        if threshold is not None:
            alone = alone & ~(np.abs(rows[:, 4] - threshold) <= score)
        assert not alone.any(), (
            f"{int(alone.sum())} of {len(rows)} {name} rows have no partner, the first is {rows[alone][0].tolist()}"
        )


def assert_same_label_rows(found: np.ndarray, expected: np.ndarray, threshold: float | None = None) -> None:
    """Rows ``class x y w h score`` of two runs' label files: shares of the image's sides in six digits."""
    assert len(expected) > 0
    order = [1, 2, 3, 4, 5, 0]
    assert_same_detections(found[:, order], expected[:, order], box=1e-4, score=1e-4, threshold=threshold)

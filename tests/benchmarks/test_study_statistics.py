"""Mean, spread and paired differences, against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.study_report import Spread, paired_difference


def test_mean_and_spread_by_hand() -> None:
    spread = Spread.of([1.0, 2.0, 6.0])
    assert spread.mean == 3.0
    assert spread.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert Spread.of([0.4]) == Spread(0.4, 0.0, 1)


def test_a_paired_difference_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, deviation 1; Student's 97.5 % quantile with two degrees of freedom is 4.3027."""
    found = paired_difference({0: 2.0, 1: 4.0, 2: 6.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    assert found is not None
    half = 4.302653 / math.sqrt(3)
    assert (found.mean, found.count) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    assert not found.is_clear


def test_only_seeds_that_both_have_are_paired() -> None:
    found = paired_difference({0: 0.5, 1: 0.7, 5: 9.0}, {0: 0.4, 1: 0.5, 4: -9.0})
    assert found is not None
    assert found.mean == pytest.approx(0.15)
    assert found.count == 2
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_one_pair_has_no_interval() -> None:
    found = paired_difference({3: 0.5}, {3: 0.25})
    assert found is not None
    assert (found.mean, found.low, found.high, found.is_clear) == (0.25, -math.inf, math.inf, False)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.floats(-1, 1))
def test_what_all_seeds_share_does_not_widen_the_interval(values: list[float], shift: float) -> None:
    """A difference that is the same for every seed is found exactly, however far the seeds lie apart."""
    reference = dict(enumerate(values))
    found = paired_difference({seed: value + shift for seed, value in reference.items()}, reference)
    assert found is not None
    assert (found.low, found.mean, found.high) == pytest.approx((shift,) * 3, abs=1e-9)

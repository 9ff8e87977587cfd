"""The arithmetic of a study over seeds: mean and spread, and differences of pairs that share a seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student_t


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation (of a sample; 0 for a single value) of ``count`` values."""

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(fmean(values), stdev(values) if len(values) > 1 else 0.0, len(values))


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean of the differences of ``count`` pairs, and its confidence interval.

    The interval is Student's, mean -/+ t s / sqrt(count): it assumes that the differences scatter like a normal
    distribution, and is wide for few pairs. A single pair has none (infinite).
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float], confidence: float = 0.95
) -> PairedDifference | None:
    """``values`` minus ``reference``, over the seeds that both have; None without such a seed.

    Args:
        values, reference: figure by seed.
    """
    seeds = sorted(values.keys() & reference.keys())
    if not seeds:
        return None
    spread = Spread.of([values[seed] - reference[seed] for seed in seeds])
    if spread.count == 1:
        return PairedDifference(spread.mean, -math.inf, math.inf, 1)
    quantile = float(student_t.ppf(0.5 + confidence / 2, spread.count - 1))
    half = quantile * spread.deviation / math.sqrt(spread.count)
    return PairedDifference(spread.mean, spread.mean - half, spread.mean + half, spread.count)

"""When training has stopped getting better, as a function of the finished epochs."""

from __future__ import annotations

from collections.abc import Sequence

from utils.reporting.epoch_log import FinishedEpoch


def best_epoch(records: Sequence[FinishedEpoch]) -> FinishedEpoch | None:
    """The evaluated epoch of the highest fitness, the first of equals; None before any evaluation."""
    evaluated = [record for record in records if record.evaluated]
    return max(evaluated, key=lambda record: record.fitness, default=None)


def patience_exhausted(records: Sequence[FinishedEpoch], patience: int) -> bool:
    """Whether ``patience`` epochs have passed since the best one; a patience of 0 never ends."""
    best = best_epoch(records)
    return bool(patience and best and records[-1].epoch - best.epoch >= patience)

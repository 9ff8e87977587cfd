"""Stopping as a function of the finished epochs."""

from __future__ import annotations

import math
from dataclasses import replace

from utils.reporting.epoch_log import EpochRecord
from utils.training.early_stopping import best_epoch, patience_exhausted


def records(*fitness: float) -> list[EpochRecord]:
    """One epoch per value of mAP50-95 (mAP50 the same, so that the fitness is the value too)."""
    zeros = dict.fromkeys(("train_box", "train_obj", "train_cls", "lr0", "lr1", "lr2"), 0.0)
    return [EpochRecord(epoch=i, map50=f, map50_95=f, **zeros) for i, f in enumerate(fitness)]


def test_the_first_of_equals_is_best() -> None:
    best = best_epoch(records(0.1, 0.3, 0.3, 0.2))
    assert best is not None and best.epoch == 1


def test_epochs_without_evaluation_do_not_count() -> None:
    assert best_epoch(records(math.nan, math.nan)) is None
    best = best_epoch(records(math.nan, 0.1, math.nan))
    assert best is not None and best.epoch == 1


def test_what_is_asked_for_decides_which_epoch_is_best() -> None:
    by_mix = records(0.1, 0.3, 0.2, 0.2)
    own = [replace(each, own_fitness=value) for each, value in zip(by_mix, (0.4, 0.1, 0.2, 0.3), strict=True)]
    best = [best_epoch(each) for each in (by_mix, own)]
    assert [each.epoch for each in best if each is not None] == [1, 0]
    assert patience_exhausted(own, 3) and not patience_exhausted(by_mix, 3)


def test_patience() -> None:
    assert not patience_exhausted(records(0.3, 0.2, 0.2), 3)
    assert patience_exhausted(records(0.3, 0.2, 0.2, 0.2), 3)
    assert not patience_exhausted(records(0.3, *[0.2] * 50), 0)
    assert not patience_exhausted(records(math.nan, math.nan), 1)

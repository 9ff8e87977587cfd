"""The schedule, with values worked by hand."""

from __future__ import annotations

import pytest

from utils.config.classification_recipe import ClassificationRecipe
from utils.config.hyperparameters import Hyperparameters
from utils.training.learning_rate import LearningRateSchedule
from utils.verbs.train_classifier import ClassificationSchedule

HYP = Hyperparameters(lr0=0.01, lrf=0.1, momentum=0.9, warmup_epochs=3, warmup_momentum=0.8, warmup_bias_lr=0.1)
SCHEDULE = LearningRateSchedule(HYP, epochs=10, steps_per_epoch=100, batch_size=16)


def test_first_step_of_the_warm_up() -> None:
    rates = SCHEDULE.at(0, 0)
    assert rates.groups == pytest.approx((0.1, 0.0, 0.0))
    assert rates.momentum == pytest.approx(0.8)
    assert rates.accumulate == 1


def test_middle_of_the_warm_up() -> None:
    # Step 150 of 300; the line of epoch 1 stands at 0.01 * (1 - 0.1 * 0.9) = 0.0091.
    rates = SCHEDULE.at(1, 50)
    assert rates.groups == pytest.approx(((0.1 + 0.0091) / 2, 0.0091 / 2, 0.0091 / 2))
    assert rates.momentum == pytest.approx(0.85)
    assert rates.accumulate == 2  # 1 + (64 / 16 - 1) / 2 = 2.5, rounded to even


def test_after_the_warm_up_all_groups_follow_the_line() -> None:
    assert SCHEDULE.at(5, 7).groups == pytest.approx((0.0055, 0.0055, 0.0055))
    assert SCHEDULE.at(5, 7).accumulate == 4
    assert SCHEDULE.at(5, 7).momentum == 0.9


def test_cosine_ends_where_the_line_ends() -> None:
    cosine = LearningRateSchedule(HYP, epochs=10, steps_per_epoch=100, batch_size=16, cosine=True)
    assert cosine.factor(0) == 1
    assert cosine.factor(5) == pytest.approx(0.55)
    assert cosine.factor(10) == pytest.approx(0.1)


def test_a_short_run_still_warms_up_for_100_steps() -> None:
    short = LearningRateSchedule(HYP, epochs=10, steps_per_epoch=5, batch_size=64)
    assert short.at(19, 4).momentum == pytest.approx(0.8 + 0.1 * 0.99)
    assert short.at(20, 0).momentum == 0.9


def test_no_warm_up_when_none_is_asked_for() -> None:
    cold = LearningRateSchedule(Hyperparameters(warmup_epochs=0), epochs=10, steps_per_epoch=5, batch_size=64)
    assert cold.at(0, 0).groups == pytest.approx((0.01, 0.01, 0.01))


@pytest.mark.parametrize(
    ("batch", "accumulate", "decay"), [(16, 4, 5e-4), (64, 1, 5e-4), (128, 1, 1e-3), (40, 2, 6.25e-4)]
)
def test_decay_belongs_to_the_batch_that_a_step_sees(batch: int, accumulate: int, decay: float) -> None:
    schedule = LearningRateSchedule(Hyperparameters(), epochs=10, steps_per_epoch=5, batch_size=batch)
    assert schedule.full_accumulation == accumulate
    assert schedule.weight_decay == pytest.approx(decay)


def test_a_classifiers_rate_falls_along_a_line() -> None:
    schedule = ClassificationSchedule(ClassificationRecipe(epochs=10, lr0=0.1, lrf=0.1), steps_per_epoch=4)
    assert schedule.at(0, 0).groups == pytest.approx((0.1, 0.1, 0.1))
    assert schedule.at(5, 3).groups == pytest.approx((0.055,) * 3)
    assert schedule.at(5, 3).accumulate == 1


def test_a_classifiers_rate_falls_in_steps_after_a_warm_up() -> None:
    recipe = ClassificationRecipe(epochs=200, lr0=0.1, milestones=(60, 120, 160), gamma=0.2, warmup_epochs=1)
    schedule = ClassificationSchedule(recipe, steps_per_epoch=4)
    assert [schedule.at(0, step).groups[0] for step in range(4)] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    epochs = {1: 0.1, 59: 0.1, 60: 0.02, 119: 0.02, 120: 0.004, 160: 0.0008, 199: 0.0008}
    assert {epoch: schedule.at(epoch, 0).groups[0] for epoch in epochs} == pytest.approx(epochs)

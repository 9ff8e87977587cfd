"""Learning rate, momentum and accumulation as a function of the place in the run, so that resuming needs no state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from utils.config.hyperparameters import Hyperparameters

LEAST_WARMUP_STEPS = 100


class StepRates(NamedTuple):
    """Settings of one training step."""

    groups: tuple[float, float, float]  # learning rates of biases, decayed weights, norm weights
    momentum: float
    accumulate: int  # batches whose gradients are added before the optimizer steps


class Schedule(Protocol):
    """Rates as a function of the place in the run."""

    @property
    def steps_per_epoch(self) -> int: ...

    def at(self, epoch: int, step: int) -> StepRates:
        """Rates of batch ``step`` of ``epoch``, both from 0."""


@dataclass(frozen=True, slots=True)
class LearningRateSchedule:
    """YOLOv5's schedule: linear (or cosine) from ``lr0`` to ``lr0 * lrf``, after a warm-up in steps.

    During warm-up the weights' rate rises from 0, the biases' falls from ``warmup_bias_lr``, and accumulation grows
    to the nominal batch.
    """

    hyp: Hyperparameters
    epochs: int
    steps_per_epoch: int
    batch_size: int
    cosine: bool = False

    @property
    def full_accumulation(self) -> int:
        """Batches per optimizer step once warm."""
        return max(round(self.hyp.nominal_batch / self.batch_size), 1)

    @property
    def weight_decay(self) -> float:
        """Decay for the batch that one step really sees; the hyperparameter belongs to the nominal batch."""
        return self.hyp.weight_decay * self.batch_size * self.full_accumulation / self.hyp.nominal_batch

    def factor(self, epoch: int) -> float:
        """Share of ``lr0`` in ``epoch`` (from 0)."""
        progress = epoch / self.epochs
        if self.cosine:
            progress = (1 - math.cos(progress * math.pi)) / 2
        return 1 - progress * (1 - self.hyp.lrf)

    def at(self, epoch: int, step: int) -> StepRates:
        """Rates of batch ``step`` of ``epoch``, both from 0."""
        hyp, rate = self.hyp, self.hyp.lr0 * self.factor(epoch)
        warmup = max(round(hyp.warmup_epochs * self.steps_per_epoch), LEAST_WARMUP_STEPS) if hyp.warmup_epochs else 0
        done = epoch * self.steps_per_epoch + step
        if done >= warmup:
            return StepRates((rate, rate, rate), hyp.momentum, self.full_accumulation)
        share = done / warmup
        bias = hyp.warmup_bias_lr + (rate - hyp.warmup_bias_lr) * share
        momentum = hyp.warmup_momentum + (hyp.momentum - hyp.warmup_momentum) * share
        accumulate = round(1 + (hyp.nominal_batch / self.batch_size - 1) * share)
        return StepRates((bias, rate * share, rate * share), momentum, max(accumulate, 1))

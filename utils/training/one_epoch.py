"""One pass over the training images. The training step stands here whole."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from utils.runtime.device import autocast
from utils.runtime.stop_signals import StopRequest
from utils.training.learner import Images, Learner, Model
from utils.training.optimizer import set_rates
from utils.user_error import UserError

GRADIENT_NORM_LIMIT = 10.0


class NonFiniteLoss(UserError):
    """A loss that is NaN or infinite, after which the weights are worth nothing."""


class EpochOutcome(NamedTuple):
    """Mean loss per image, by its parts, and the learning rates of the last step."""

    losses: tuple[float, ...]
    rates: tuple[float, float, float]


def train_one_epoch(
    learner: Learner[Model, Images], batches: Iterable[Images], epoch: int, progress: tqdm[Any], stop: StopRequest
) -> EpochOutcome | None:
    """Train on every batch once; None when a stop was requested, whose epoch then counts as not begun.

    With several processes, each has its part of every batch; they step, and stop, together.

    Raises:
        NonFiniteLoss: of a batch.
    """
    network, optimizer, scaler, ranks = learner.network, learner.optimizer, learner.scaler, learner.ranks
    network.train()
    meter, waiting, steps = LossMeter(learner.loss.part_names), 0, learner.schedule.steps_per_epoch
    optimizer.zero_grad()
    for step, batch in enumerate(batches):
        rates = learner.schedule.at(epoch, step)
        set_rates(optimizer, rates.groups, rates.momentum)
        batch = learner.prepared(batch, epoch, step)
        with autocast(learner.device, learner.precision):
            outputs = network(batch.images)
        parts = learner.loss(outputs, batch, ranks)
        scaler.scale(parts.total * learner.gradient_weight(batch)).backward()  # type: ignore[no-untyped-call]
        meter.add(ranks.mean(torch.stack(tuple(parts))), epoch, step)
        waiting += 1
        if waiting >= rates.accumulate or step == steps - 1:  # the epoch's last gradients are not carried over
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM_LIMIT)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            learner.average.update(learner.model)
            waiting = 0
        progress.set_postfix_str(meter.text(), refresh=False)
        progress.update()
        if ranks.any(stop.signal_number is not None):
            return None
    return EpochOutcome(meter.mean(), rates.groups)


class LossMeter:
    """Running mean of the loss parts of an epoch."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.sums = [0.0] * len(names)
        self.count = 0

    def add(self, parts: torch.Tensor, epoch: int, step: int) -> None:
        """Count one batch's loss, a tensor of its parts.

        Raises:
            NonFiniteLoss: it is NaN or infinite, which no later step mends.
        """
        values = parts.tolist()
        if not all(map(math.isfinite, values)):
            shown = ", ".join(f"{name} {value:g}" for name, value in zip(self.names, values, strict=True))
            raise NonFiniteLoss(f"epoch {epoch}, step {step}: the loss is not finite ({shown}); try a lower lr0")
        self.sums = [total + value for total, value in zip(self.sums, values, strict=True)]
        self.count += 1

    def mean(self) -> tuple[float, ...]:
        return tuple(total / max(self.count, 1) for total in self.sums)

    def text(self) -> str:
        return "  ".join(f"{name} {value:.4f}" for name, value in zip(self.names, self.mean(), strict=True))

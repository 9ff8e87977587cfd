"""One pass over the training images. The training step stands here whole, after the parts that it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.runtime.device import autocast
from utils.runtime.process_ranks import ProcessRanks
from utils.runtime.stop_signals import StopRequest
from utils.runtime.streams import Copyable, copied_ahead
from utils.training.learning_rate import Schedule
from utils.training.optimizer import set_rates
from utils.training.weight_average import WeightAverage
from utils.user_error import UserError

GRADIENT_NORM_LIMIT = 10.0
Placed = TypeVar("Placed")


class TrainingBatch(Copyable, Protocol):
    """Images with what is to be learned of them."""

    @property
    def images(self) -> torch.Tensor:
        """(B, 3, H, W) uint8 RGB as loaded, float after ``on``."""

    def on(self: Placed, device: torch.device) -> Placed: ...


BatchType = TypeVar("BatchType", bound=TrainingBatch)
Examined = TypeVar("Examined", bound=TrainingBatch, contravariant=True)
Model = TypeVar("Model", bound=nn.Module, covariant=True)


class Parts(Protocol):
    """Scalar parts of a loss, a named tuple."""

    @property
    def total(self) -> torch.Tensor: ...

    def __iter__(self) -> Iterator[torch.Tensor]: ...


class Loss(Protocol[Examined]):
    """The loss of a network's output for a batch, a mean over the images of the batch."""

    @property
    def part_names(self) -> tuple[str, ...]: ...

    def __call__(self, outputs: Any, batch: Examined, ranks: ProcessRanks, /) -> Parts:
        """``outputs`` are what this loss's network gives, for which torch has no type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner(Generic[Model, BatchType]):
    """A model on its device with its loss, optimizer, schedule and average: all that a step needs."""

    model: Model
    network: nn.Module  # what the step calls, see `shared_network`
    loss: Loss[BatchType]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    average: WeightAverage[Model]
    ranks: ProcessRanks
    precision: torch.dtype
    multi_scale: Callable[[BatchType, int, int], BatchType] | None = None  # (batch, epoch, step) in another size
    sum_over_images: bool  # gradients are sums over the images of a batch, as of YOLOv5's detector; else means
    sizes_repeat: bool  # whether batches have frames of one size, as a rule
    images_per_frame: int = 1  # that a frame (H, W) is made of: more with --quad


class EpochOutcome(NamedTuple):
    """Mean loss per image, by its parts, and the learning rates of the last step."""

    losses: tuple[float, ...]
    rates: tuple[float, float, float]


class ProgressBar(Protocol):
    """Shows how far the epoch is."""

    def advance(self, steps: int, note: str) -> None: ...


def train_one_epoch(
    learner: Learner[nn.Module, BatchType],
    batches: Iterable[BatchType],
    epoch: int,
    progress: ProgressBar,
    stop: StopRequest,
) -> EpochOutcome | None:
    """Train on every batch once; None when a stop was requested, whose epoch then counts as not begun.

    With several processes, each has its part of every batch; they step, and stop, together. What a step reports is
    read in the next one, behind its forward pass: read at once, a GPU would stand still until the host goes on.

    Raises:
        NonFiniteLoss: of a batch.
    """
    network, optimizer, scaler, ranks = learner.network, learner.optimizer, learner.scaler, learner.ranks
    network.train()
    meter, waiting, steps = LossMeter(learner.loss.part_names), 0, learner.schedule.steps_per_epoch
    optimizer.zero_grad()
    for step, (_, batch) in enumerate(copied_ahead(batches, ranks.device)):
        rates = learner.schedule.at(epoch, step)
        set_rates(optimizer, rates.groups, rates.momentum)
        batch = batch.on(ranks.device)  # images (B, 3, H, W) float: 0-1 for a detector, normalized for a classifier
        if learner.multi_scale is not None:
            batch = learner.multi_scale(batch, epoch, step)  # (B, 3, H', W'), boxes scaled with it
        waiting += 1
        is_last = waiting >= rates.accumulate or step == steps - 1  # the epoch's last gradients are not carried over
        exchange_gradients(network, ranks, now=is_last)
        with autocast(ranks.device, learner.precision):
            outputs = network(batch.images)  # detector: HeadMaps, per stride s (B, A, H/s, W/s, 5 + C); else (B, C)
        if meter.read():  # the step before: its loss, and whether some process was asked to stop
            return None
        parts = learner.loss(outputs, batch, ranks)  # scalars, means over images
        images = len(batch.images) * learner.images_per_frame * ranks.world
        loss = parts.total * (images if learner.sum_over_images else 1)  # scalar
        stops = loss.new_full((), stop.signal_number is not None)
        report = backward(network, scaler.scale(loss), torch.stack((*parts, stops)).detach())
        if report is not None:
            meter.add(report, epoch, step)
        if is_last:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM_LIMIT)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            learner.average.update(learner.model)
            waiting = 0
        progress.advance(1, meter.text())
        if ranks.world == 1 and stop.signal_number is not None:  # several have to hear of it first
            return None
    return None if meter.read() else EpochOutcome(meter.mean(), rates.groups)


class NonFiniteLoss(UserError):
    """A loss that is NaN or infinite, after which the weights are worth nothing."""


class LossMeter:
    """Running mean of the loss parts of an epoch."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.sums = [0.0] * len(names)
        self.count = 0
        self._unread: tuple[torch.Tensor, int, int] | None = None

    def add(self, report: torch.Tensor, epoch: int, step: int) -> None:
        """Take a report (parts + 1,) of the steps from the last one up to ``step``, from 0.

        It has the sums of their losses by parts, and of whether to stop, above 0 if so.
        """
        self._unread = report, epoch, step

    def read(self) -> bool:
        """Count the report that was added last; whether to stop.

        Raises:
            NonFiniteLoss: a loss in it is NaN or infinite, which no later step mends.
        """
        if self._unread is None:
            return False
        (report, epoch, step), self._unread = self._unread, None
        *values, stops = report.tolist()
        if not all(map(math.isfinite, values)):
            shown = ", ".join(f"{name} {value:g}" for name, value in zip(self.names, values, strict=True))
            raise NonFiniteLoss(f"epoch {epoch}, step {step}: the loss is not finite ({shown}); try a lower lr0")
        self.sums = [total + value for total, value in zip(self.sums, values, strict=True)]
        self.count = step + 1
        return bool(stops)

    def mean(self) -> tuple[float, ...]:
        return tuple(total / max(self.count, 1) for total in self.sums)

    def text(self) -> str:
        """The means of what was read, empty before."""
        if not self.count:
            return ""
        return "  ".join(f"{name} {value:.4f}" for name, value in zip(self.names, self.mean(), strict=True))


def shared_network(model: nn.Module, ranks: ProcessRanks, *, parts: int, sync_bn: bool) -> nn.Module:
    """The model, or what shares its gradients among processes; with ``sync_bn`` its batch norms see all their images.

    The average is taken before, and the optimizer after this, which changes the batch norms of ``model`` in place.
    ``parts`` is their number in its loss.
    """
    if sync_bn:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if ranks.world == 1:
        return model
    network = DistributedDataParallel(_Reporting(model, parts + 1, ranks.device), gradient_as_bucket_view=True)
    # Equal at the start, which is enough: a step computes with the statistics of its own images, and the average's
    # are shared after each epoch. As an argument of the constructor torch 2.14 deprecates it.
    network.broadcast_buffers = False
    return network


class _Reporting(nn.Module):
    """A network whose processes exchange reports (R,) together with its gradients: as that of one more parameter."""

    def __init__(self, model: nn.Module, numbers: int, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.report = nn.Parameter(torch.zeros(numbers, device=device))

    def forward(self, images: torch.Tensor) -> Any:
        return self.model(images)


def backward(network: nn.Module, loss: torch.Tensor, report: torch.Tensor) -> torch.Tensor | None:
    """The gradients of a step, and its ``report`` (R,) as the mean over the processes, for which they meet once.

    None if they keep their gradients for now: the next report is then the sum of those that were kept too.
    """
    if not isinstance(network, DistributedDataParallel):
        loss.backward()  # type: ignore[no-untyped-call]
        return report
    carrier = network.module.report
    (loss + (carrier * report).sum()).backward()
    if not network.require_backward_grad_sync:
        return None
    shared: torch.Tensor = carrier.grad.clone()
    carrier.grad = None
    return shared


def exchange_gradients(network: nn.Module, ranks: ProcessRanks, *, now: bool) -> None:
    """Whether processes add up their gradients in the coming backward pass, or keep them for a later one.

    On the CPU, where it costs little, they always do: sums in another order end in other digits.
    """
    if isinstance(network, DistributedDataParallel) and ranks.device.type == "cuda":
        network.require_backward_grad_sync = now  # what DDP's no_sync() sets, around a block


def gradient_scaler(device: torch.device, precision: torch.dtype) -> torch.amp.GradScaler:
    """Keeps fp16 gradients from vanishing; does nothing for other arithmetic."""
    return torch.amp.GradScaler(device.type, enabled=precision == torch.float16)

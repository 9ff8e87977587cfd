"""All that one training step needs, in one place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.config.shared_flags import RunConfig
from utils.runtime.device import placed, resolve_precision
from utils.runtime.process_ranks import ProcessRanks
from utils.runtime.reused_memory import reuse_freed_memory
from utils.training.learning_rate import Schedule
from utils.training.weight_average import WeightAverage

Model = TypeVar("Model", bound=nn.Module)
OptimizerBuilder = Callable[[nn.Module], torch.optim.Optimizer]


class ImageBatch(Protocol):
    """Images with what is to be learned of them."""

    @property
    def images(self) -> torch.Tensor:
        """(B, 3, H, W)."""


class Parts(Protocol):
    """Scalar parts of a loss, a named tuple."""

    @property
    def total(self) -> torch.Tensor: ...

    def __iter__(self) -> Iterator[torch.Tensor]: ...


class Loss(Protocol):
    """The loss of a network's output for a batch, a mean over the images of the batch."""

    @property
    def part_names(self) -> tuple[str, ...]: ...

    def __call__(self, outputs: Any, batch: Any, ranks: ProcessRanks, /) -> Parts: ...


Images = TypeVar("Images", bound=ImageBatch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner(ABC, Generic[Model, Images]):
    """A model on its device with its loss, optimizer, schedule and average."""

    model: Model
    network: nn.Module  # what the training step calls: the model, or the model shared among processes
    loss: Loss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    average: WeightAverage[Model]
    ranks: ProcessRanks
    precision: torch.dtype

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.ranks.device

    @property
    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What a checkpoint keeps to build the model again: tensors and plain values."""

    @abstractmethod
    def prepared(self, batch: Images, epoch: int, step: int) -> Images:
        """The batch on the device, images float, as this step of the run sees it."""

    @abstractmethod
    def gradient_weight(self, batch: Images) -> int:
        """What the mean loss of a batch is multiplied by."""


def ready_model(model: Model, device: torch.device) -> Model:
    """The model on its device, and arithmetic that repeats a run to the bit on the CPU."""
    # Sums in a fixed order make a run repeatable to the bit; on CUDA that would cost speed, so only the CPU has it.
    # use_deterministic_algorithms would also load torch's compiler, to set it the same.
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    reuse_freed_memory(device)
    return placed(model, device)


def learner_parts(model: nn.Module, config: RunConfig, build: OptimizerBuilder, ranks: ProcessRanks) -> dict[str, Any]:
    """The fields of a :class:`Learner` that do not depend on what is learned, at their beginning."""
    precision = resolve_precision(config.precision, ranks.device)
    average = WeightAverage(model)
    if config.sync_bn:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return {
        "model": model,
        "network": model if ranks.world == 1 else DistributedDataParallel(model),
        "optimizer": build(model),
        "scaler": torch.amp.GradScaler(ranks.device.type, enabled=precision == torch.float16),
        "average": average,
        "ranks": ranks,
        "precision": precision,
    }

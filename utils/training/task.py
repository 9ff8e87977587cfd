"""What a training run does that depends on what is learned: to detect objects or to tell classes of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from torch import nn

from utils.config.run_flags import RunConfig
from utils.reporting.epoch_log import FinishedEpoch
from utils.runtime.process_ranks import ProcessRanks
from utils.training.one_epoch import BatchType, EpochOutcome, Learner


class PlainFields(Protocol):
    """A dataclass of plain values and tuples of them."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Config = TypeVar("Config", bound=RunConfig)
Recipe = TypeVar("Recipe", bound=PlainFields)
Loaded = TypeVar("Loaded", covariant=True)


class Batches(Protocol[Loaded]):
    """One epoch's training batches."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Loaded]: ...


class EvaluatedEpoch(NamedTuple):
    """What the evaluation of an epoch leaves."""

    record: FinishedEpoch
    class_scores: tuple[float, ...]  # how well each class did, 0 to 1
    thresholds: dict[str, object] | None = None  # of a detector, see `EvaluationReport.stored_thresholds`


class Task(Protocol[BatchType]):
    """A learner with its settings and images; `utils.training.session` drives it through the epochs."""

    @property
    def config(self) -> RunConfig: ...

    @property
    def hyp(self) -> PlainFields:
        """The recipe."""

    @property
    def learner(self) -> Learner[nn.Module, BatchType]: ...

    @property
    def class_count(self) -> int: ...

    def model_fields(self) -> dict[str, object]:
        """What a checkpoint keeps to build the model again: tensors and plain values."""

    def batches(self, epoch: int, class_scores: tuple[float, ...]) -> Batches[BatchType]:
        """What an epoch trains on: this process's share. ``class_scores`` are those of the last evaluation."""

    def record(self, epoch: int, outcome: EpochOutcome) -> FinishedEpoch:
        """The row of an epoch that is not evaluated."""

    def evaluate(self, epoch: int, outcome: EpochOutcome) -> EvaluatedEpoch:
        """The averaged weights evaluated after an epoch."""

    def write_beginning(self, folder: Path, class_scores: tuple[float, ...]) -> None:
        """What is known before the first epoch, images included."""

    def evaluate_best(self, checkpoint: Path, folder: Path, expected: FinishedEpoch | None) -> bool:
        """Evaluate the run's best weights once more; the writer reports and draws.

        If a figure is not the ``expected`` one (`moved_figure`), that is said, nothing is written, and this is False.
        """

    def next_commands(self, weights: Path) -> tuple[str, ...]:
        """The commands that a user goes on with, for the run's best weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskKind(Generic[Config, Recipe, BatchType]):
    """What a script trains: the types of its settings, and how such a run is begun and goes on."""

    script: str
    name: str  # in checkpoints
    config_type: type[Config]
    recipe_type: type[Recipe]
    record_type: Callable[..., FinishedEpoch]  # by the names of its fields
    begun: Callable[[Config, ProcessRanks], Task[BatchType]]
    # With the model of a checkpoint; the learner still has to be given the checkpoint's state.
    reopened: Callable[[Path, Config, Recipe, ProcessRanks], Task[BatchType]]

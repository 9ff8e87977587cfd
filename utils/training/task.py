"""What a training run does that depends on what is learned: to detect objects or to tell classes of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from utils.reporting.epoch_log import FinishedEpoch
from utils.runtime.process_ranks import ProcessRanks
from utils.training.checkpoint import RunState, config_from_plain
from utils.training.learner import Learner, Model
from utils.training.one_epoch import EpochOutcome

Report = TypeVar("Report")
State = TypeVar("State", bound=RunState)


class Batches(Protocol):
    """One epoch's training batches."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class Task(ABC, Generic[Model, State, Report]):
    """A learner with its images; `utils.training.session` drives it through the epochs.

    ``State`` is the run's state with this task's settings, recipe and records, ``Report`` an evaluation's figures.
    """

    script: ClassVar[str]  # that starts such runs
    name: ClassVar[str]  # in checkpoints
    config_type: ClassVar[type]
    recipe_type: ClassVar[type]
    record_type: ClassVar[type]

    learner: Learner[Model, Any]

    @classmethod
    @abstractmethod
    def begun(cls, config: Any, ranks: ProcessRanks) -> tuple[Task[Model, State, Report], State]:
        """A task at its beginning, and the run's state, whose settings may be more exact than those given.

        Raises:
            UserError: anything missing or wrong in what the settings name.
        """

    @classmethod
    @abstractmethod
    def reopened(cls, model: Model, state: State, ranks: ProcessRanks) -> Task[Model, State, Report]:
        """The task of a run that goes on; its learner still has to be given the checkpoint's state."""

    @staticmethod
    @abstractmethod
    def load(path: Path) -> Model:
        """The model of a checkpoint, averaged weights where it has them."""

    @abstractmethod
    def batches(self, epoch: int, state: State) -> Batches:
        """What an epoch trains on: this process's share."""

    @abstractmethod
    def evaluate(self, state: State) -> Report:
        """The averaged weights on the part that the run is judged by, loss included."""

    @abstractmethod
    def record(self, epoch: int, outcome: EpochOutcome, report: Report | None) -> FinishedEpoch:
        """The epoch's row; ``report`` is None where it was not evaluated."""

    @abstractmethod
    def class_scores(self, report: Report) -> tuple[float, ...]:
        """How well each class did, 0 to 1."""

    @abstractmethod
    def write_beginning(self, folder: Path, state: State) -> None:
        """What is known before the first epoch, images included."""

    @abstractmethod
    def judge_best(self, model: Model, source: Path, folder: Path, state: State) -> None:
        """Evaluate the run's best weights, read from ``source``, once more; the writer reports and draws."""

    @classmethod
    def state_in(cls, content: dict[str, Any]) -> RunState:
        """The run's settings and finished epochs out of a checkpoint."""
        return RunState(
            config=config_from_plain(cls.config_type, content["config"]),
            hyp=config_from_plain(cls.recipe_type, content["hyp"]),
            records=tuple(cls.record_type(**record) for record in content["records"]),
            finished=content["finished"],
            class_ap=tuple(content.get("class_ap", ())),
        )

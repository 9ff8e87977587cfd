"""Who follows a training run besides the files in its folder: the protocol, and the services behind ``--loggers``."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from utils.reporting.epoch_log import FinishedEpoch
from utils.runtime.atomic_files import write_text
from utils.user_error import UsageError, UserError


@dataclass(frozen=True, slots=True)
class WatchedRun:
    """A run as its watchers meet it."""

    folder: Path
    settings: Mapping[str, object]  # plain values, those of opt.yaml
    hyperparameters: Mapping[str, object]  # those of hyp.yaml
    resumed: bool = False
    epochs_done: int = 0  # finished epochs of a resumed run; none if it was killed in its first

    @property
    def project(self) -> str:
        """The name of the folder of runs."""
        return Path(str(self.settings["project"])).resolve().name

    @property
    def values(self) -> dict[str, object]:
        """Settings and hyperparameters; where both have a value, a hyperparameter's is the one in effect."""
        return {**self.settings, **self.hyperparameters}


class Watcher(Protocol):
    """Follows a training run. Inherit from it and define what you need: by themselves its methods do nothing.

    They are called in this order, in the process that writes the run's folder; whatever one raises ends the run.
    """

    def on_begin(self, run: WatchedRun) -> None:
        """Before the first epoch, or the first that is left of a resumed run."""
        return  # to a type checker, a method that has nothing but a docstring is abstract

    def on_epoch(self, record: FinishedEpoch) -> None:
        """After an epoch, whose checkpoint and row of ``results.csv`` are written."""
        return

    def on_best(self, record: FinishedEpoch, weights: Path) -> None:
        """After `on_epoch`, if the epoch is the best so far and ``weights``, the run's best.pt, has been written."""
        return

    def on_end(self, *, finished: bool) -> None:
        """After everything is written; or, not ``finished``, a signal or an error ended a run that was begun."""
        return


def open_loggers(names: Sequence[str] | None) -> list[Watcher]:
    """The loggers named by ``--loggers``; without names TensorBoard, if it is installed.

    Raises:
        UsageError: the library of a named logger is not installed, where a run is resumed that was begun elsewhere.
    """
    refuse_missing_loggers(names)
    if names is None:
        names = ("tensorboard",) if installed("tensorboard") else ()
    return [SERVICES[name].logger() for name in names if name != "none"]


def installed(name: str) -> bool:
    """Whether the library of a logger is there."""
    try:
        return importlib.util.find_spec(SERVICES[name].module) is not None
    except ValueError:  # it is loaded, and not from a file
        return True


def refuse_missing_loggers(names: Sequence[str] | None) -> None:
    """Check the names before any work starts.

    Raises:
        UsageError: the library of a named logger is not installed.
    """
    for name in names or ():
        if name != "none" and not installed(name):
            raise UsageError(f"--loggers {name}: is not installed; pip install {SERVICES[name].package}")


def figures(record: FinishedEpoch) -> dict[str, float]:
    """The record under the column names of ``results.csv``, without what was not measured or does not exist."""
    return {name: value for name, value in record.row().items() if name != "epoch" and value >= 0}


def best_figures(record: FinishedEpoch) -> dict[str, float]:
    """What a service shows of a run beside those of others: ``best/epoch``, ``best/mAP_0.5``, ..."""
    kind = "metrics/"
    measured = {name.removeprefix(kind): value for name, value in figures(record).items() if name.startswith(kind)}
    return {f"best/{name}": value for name, value in ({"epoch": record.epoch} | measured).items()}


def known_id(run: WatchedRun, service: str) -> str | None:
    """By what a service knows a run that is resumed."""
    file = run.folder / f"{service}.id"
    return file.read_text(encoding="utf-8").strip() if run.resumed and file.is_file() else None


def keep_id(run: WatchedRun, service: str, number: str) -> None:
    """For the case that the run is resumed."""
    write_text(run.folder / f"{service}.id", f"{number}\n")


def refused(service: str, error: Exception) -> UserError:
    """What a service says, in one line."""
    return UserError(f"--loggers {service}: {' '.join(str(error).split())}")


class TensorBoardLogger(Watcher):
    """Event files in the run's folder: ``tensorboard --logdir runs/train``."""

    def on_begin(self, run: WatchedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter  # half a second that runs without it need not wait

        # What a killed run logged beyond its last checkpoint is dropped.
        self._writer: Any = SummaryWriter(str(run.folder), purge_step=run.epochs_done)

    def on_epoch(self, record: FinishedEpoch) -> None:
        for name, value in figures(record).items():
            self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()  # a killed run loses nothing that was finished

    def on_end(self, *, finished: bool) -> None:
        self._writer.close()


class MlflowLogger(Watcher):
    """An MLflow run named as the folder; the server is MLflow's own setting (``MLFLOW_TRACKING_URI``).

    A resumed run goes on in the MLflow run that carries its folder as a tag.
    """

    def on_begin(self, run: WatchedRun) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient()
            experiment = self._client.get_experiment_by_name(run.project)
            number = experiment.experiment_id if experiment else self._client.create_experiment(run.project)
            tag = str(run.folder.resolve())
            ours = [one for one in self._client.search_runs([number]) if one.data.tags.get("folder") == tag]
            if run.resumed and ours and ours[0].info.status != "FINISHED":
                self._run = str(ours[0].info.run_id)
                self._client.update_run(self._run, "RUNNING")
                return
            created = self._client.create_run(number, tags={"folder": tag}, run_name=run.folder.name)
            self._run = str(created.info.run_id)
            for key, value in run.values.items():
                self._client.log_param(self._run, key, value)
        except MlflowException as error:
            raise refused("mlflow", error) from error

    def on_epoch(self, record: FinishedEpoch) -> None:
        for name, value in figures(record).items():
            self._client.log_metric(self._run, name, value, step=record.epoch)

    def on_end(self, *, finished: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")


class WandbLogger(Watcher):
    """A run of Weights & Biases, with its local files in the folder; the account is that of ``wandb login``."""

    def on_begin(self, run: WatchedRun) -> None:
        import wandb

        try:
            self._run: Any = wandb.init(
                project=run.project,
                name=run.folder.name,
                dir=str(run.folder),
                id=known_id(run, "wandb"),
                resume="allow",
                config=run.values,
            )
        except wandb.Error as error:
            raise refused("wandb", error) from error
        keep_id(run, "wandb", self._run.id)

    def on_epoch(self, record: FinishedEpoch) -> None:
        self._run.log(figures(record), step=record.epoch)

    def on_best(self, record: FinishedEpoch, weights: Path) -> None:
        self._run.summary.update(best_figures(record))

    def on_end(self, *, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class CometLogger(Watcher):
    """An experiment of Comet, without what its library would collect of torch by itself; see ``comet login``."""

    def on_begin(self, run: WatchedRun) -> None:
        import comet_ml

        try:
            own = comet_ml.ExperimentConfig(
                name=run.folder.name, auto_metric_logging=False, auto_param_logging=False, parse_args=False
            )
            self._experiment: Any = comet_ml.start(
                project_name=run.project, experiment_key=known_id(run, "comet"), experiment_config=own
            )
        except (ValueError, comet_ml.exceptions.CometException) as error:
            raise refused("comet", error) from error
        keep_id(run, "comet", self._experiment.get_key())
        self._experiment.log_parameters(run.values)

    def on_epoch(self, record: FinishedEpoch) -> None:
        self._experiment.log_metrics(figures(record), step=record.epoch, epoch=record.epoch)

    def on_best(self, record: FinishedEpoch, weights: Path) -> None:
        self._experiment.log_others(best_figures(record))

    def on_end(self, *, finished: bool) -> None:
        self._experiment.end()


class ClearmlLogger(Watcher):
    """A task of ClearML, without what its library would collect by itself; the server is that of ``clearml-init``."""

    def on_begin(self, run: WatchedRun) -> None:
        # It looks for the repository in a thread, which may hang; it then waits five minutes for it at the end.
        os.environ.setdefault("CLEARML__SDK__DEVELOPMENT__VCS_REPO_DETECT_ASYNC", "false")
        from clearml import Task
        from clearml.backend_api.session.session import LoginError

        known = known_id(run, "clearml")
        try:
            self._task: Any = Task.init(
                project_name=run.project,
                task_name=run.folder.name,
                reuse_last_task_id=False,
                continue_last_task=known or False,
                auto_connect_arg_parser=False,
                auto_connect_frameworks=False,
            )
        except (ValueError, LoginError) as error:
            raise refused("clearml", error) from error
        self._task.set_initial_iteration(0)  # epochs keep their numbers in a task that is continued
        keep_id(run, "clearml", self._task.id)
        self._task.connect(run.values)

    def on_epoch(self, record: FinishedEpoch) -> None:
        for name, value in figures(record).items():
            self._task.get_logger().report_scalar(*name.split("/", 1), value, record.epoch)

    def on_best(self, record: FinishedEpoch, weights: Path) -> None:
        for name, value in best_figures(record).items():
            self._task.get_logger().report_single_value(name, value)

    def on_end(self, *, finished: bool) -> None:
        if not finished:
            self._task.mark_stopped()
        self._task.close()


class Service(NamedTuple):
    """A name of ``--loggers``."""

    logger: type[Watcher]
    module: str  # that the logger needs
    package: str  # that has the module


SERVICES = {
    "tensorboard": Service(TensorBoardLogger, "tensorboard", "tensorboard"),
    "mlflow": Service(MlflowLogger, "mlflow", "mlflow"),
    "wandb": Service(WandbLogger, "wandb", "wandb"),
    "comet": Service(CometLogger, "comet_ml", "comet_ml"),
    "clearml": Service(ClearmlLogger, "clearml", "clearml"),
}

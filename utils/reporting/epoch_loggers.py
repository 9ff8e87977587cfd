"""Where the figures of an epoch go besides ``results.csv``: TensorBoard, MLflow."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from utils.reporting.epoch_log import FinishedEpoch
from utils.user_error import UsageError, UserError

# Logger -> the module that it needs, and the package that has it.
NEEDS = {"tensorboard": ("tensorboard", "tensorboard"), "mlflow": ("mlflow", "mlflow")}


class EpochLogger(Protocol):
    """Takes the record of every finished epoch. A new service needs these two methods and a line in `open_loggers`."""

    def log(self, record: FinishedEpoch) -> None: ...

    def close(self) -> None: ...


def open_loggers(
    names: Sequence[str] | None, folder: Path, config: Mapping[str, object], epochs_done: int
) -> list[EpochLogger]:
    """The loggers named by ``--loggers``; without names TensorBoard, if it is installed.

    Args:
        folder: of the run.
        config: the run's settings, plain values.
        epochs_done: finished epochs of a resumed run; what a killed run logged beyond them is dropped.

    Raises:
        UserError: the service refuses.
    """
    if names is None:
        names = ("tensorboard",) if installed("tensorboard") else ()
    opened: list[EpochLogger] = []
    for name in names:
        if name == "tensorboard":
            opened.append(TensorBoardLogger(folder, epochs_done))
        elif name == "mlflow":
            opened.append(MlflowLogger(folder, config))
    return opened


def installed(name: str) -> bool:
    """Whether the library of a logger is there."""
    return importlib.util.find_spec(NEEDS[name][0]) is not None


def refuse_missing_loggers(names: Sequence[str] | None) -> None:
    """Check the names before any work starts.

    Raises:
        UsageError: the library of a named logger is not installed.
    """
    for name in names or ():
        if name != "none" and not installed(name):
            raise UsageError(f"--loggers {name}: is not installed; pip install {NEEDS[name][1]}")


def figures(record: FinishedEpoch) -> dict[str, float]:
    """The record under the column names of ``results.csv``, without what was not measured or does not exist."""
    return {name: value for name, value in record.row().items() if name != "epoch" and value >= 0}


class TensorBoardLogger:
    """Event files in the run's folder: ``tensorboard --logdir runs/train``."""

    def __init__(self, folder: Path, epochs_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # half a second that runs without it need not wait

        self._writer: Any = SummaryWriter(str(folder), purge_step=epochs_done)

    def log(self, record: FinishedEpoch) -> None:
        for name, value in figures(record).items():
            self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()  # a killed run loses nothing that was finished

    def close(self) -> None:
        self._writer.close()


class MlflowLogger:
    """An MLflow run named as the folder; the server is MLflow's own setting (``MLFLOW_TRACKING_URI``).

    A resumed run goes on in the MLflow run that carries its folder as a tag.
    """

    def __init__(self, folder: Path, config: Mapping[str, object]) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient()
            name = Path(str(config["project"])).name
            experiment = self._client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else self._client.create_experiment(name)
            tag = str(folder.resolve())
            ours = [run for run in self._client.search_runs([number]) if run.data.tags.get("folder") == tag]
            if ours and ours[0].info.status != "FINISHED":
                self._run = str(ours[0].info.run_id)
                return
            self._run = str(self._client.create_run(number, tags={"folder": tag}, run_name=folder.name).info.run_id)
            for key, value in config.items():
                self._client.log_param(self._run, key, value)
        except MlflowException as error:
            raise UserError(f"--loggers mlflow: {' '.join(str(error).split())}") from error

    def log(self, record: FinishedEpoch) -> None:
        for name, value in figures(record).items():
            self._client.log_metric(self._run, name, value, step=record.epoch)

    def close(self) -> None:
        self._client.set_terminated(self._run)

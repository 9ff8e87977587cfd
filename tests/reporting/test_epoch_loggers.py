"""What loggers are told, by stand-ins of their libraries, and what the real ones keep."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from utils.reporting import epoch_loggers
from utils.reporting.classification_files import ClassificationRecord
from utils.reporting.epoch_log import EpochRecord
from utils.reporting.epoch_loggers import figures, open_loggers, refuse_missing_loggers
from utils.user_error import UsageError, UserError

# Epoch 4 was evaluated, epoch 5 not.
EVALUATED = ClassificationRecord(epoch=4, train_loss=1.5, val_loss=2.5, top1=0.25, top5=0.5, lr0=0.01)
TRAINED = ClassificationRecord(epoch=5, train_loss=1.25, lr0=0.001)
TOLD = [
    ("train/loss", 1.5, 4),
    ("val/loss", 2.5, 4),
    ("metrics/accuracy_top1", 0.25, 4),
    ("metrics/accuracy_top5", 0.5, 4),
    ("lr/0", 0.01, 4),
    ("train/loss", 1.25, 5),
    ("lr/0", 0.001, 5),
]

LOSSES = {"train_box": 0.5, "train_obj": 0.25, "train_cls": 0.125}
RATES = {"lr0": 0.1, "lr1": 0.01, "lr2": 0.01}


class Writer:
    """Stands in for TensorBoard's."""

    def __init__(self, folder: str, purge_step: int) -> None:
        self.opened = (folder, purge_step)
        self.told: list[tuple[str, float, int]] = []
        self.flushed: list[int] = []  # how much was told each time
        self.closed = False

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value, step))

    def flush(self) -> None:
        self.flushed.append(len(self.told))

    def close(self) -> None:
        self.closed = True


def put_module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


def test_tensorboard_is_told_each_epoch_and_written_out_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    writers: list[Writer] = []

    def opened(folder: str, purge_step: int) -> Writer:
        writers.append(Writer(folder, purge_step))
        return writers[-1]

    put_module(monkeypatch, "torch.utils.tensorboard", SummaryWriter=opened)
    monkeypatch.setattr(epoch_loggers, "installed", lambda name: True)
    (logger,) = open_loggers(None, Path("runs/exp"), {}, 4)
    (writer,) = writers
    for record in (EVALUATED, TRAINED):
        logger.log(record)
    logger.close()
    assert writer.opened == ("runs/exp", 4), "what a killed run logged beyond its last checkpoint is dropped"
    assert writer.told == TOLD and writer.flushed == [5, 7] and writer.closed


class Refused(Exception):
    """Stands in for MLflow's exception."""


class Server:
    """Stands in for an MLflow server and its client."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: list[SimpleNamespace] = []
        self.params: dict[str, object] = {}
        self.told: list[tuple[str, str, float, int]] = []
        self.down = False

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        if self.down:
            raise Refused("no\nconnection")
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, f"e{len(self.experiments)}")

    def search_runs(self, experiments: list[str]) -> list[SimpleNamespace]:
        return [run for run in self.runs[::-1] if run.experiment in experiments]

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> SimpleNamespace:
        info = SimpleNamespace(run_id=f"r{len(self.runs)}", status="RUNNING", name=run_name)
        self.runs.append(SimpleNamespace(experiment=experiment, info=info, data=SimpleNamespace(tags=tags)))
        return self.runs[-1]

    def log_param(self, run: str, key: str, value: object) -> None:
        self.params[f"{run}/{key}"] = value

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        self.told.append((run, name, value, step))

    def set_terminated(self, run: str) -> None:
        next(one for one in self.runs if one.info.run_id == run).info.status = "FINISHED"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    put_module(monkeypatch, "mlflow")
    put_module(monkeypatch, "mlflow.exceptions", MlflowException=Refused)
    put_module(monkeypatch, "mlflow.tracking", MlflowClient=lambda: server)
    return server


def test_mlflow_is_told_settings_and_figures(server: Server, tmp_path: Path) -> None:
    config = {"project": "runs/train", "epochs": 3}
    (logger,) = open_loggers(("mlflow",), tmp_path / "exp", config, 0)
    for record in (EVALUATED, TRAINED):
        logger.log(record)
    logger.close()
    assert list(server.experiments) == ["train"]
    assert [(run.info.name, run.info.status) for run in server.runs] == [("exp", "FINISHED")]
    assert server.params == {"r0/project": "runs/train", "r0/epochs": 3}
    assert server.told == [("r0", *one) for one in TOLD]


def test_a_resumed_run_goes_on_in_the_run_of_its_folder(server: Server, tmp_path: Path) -> None:
    config = {"project": "runs/train"}
    for name in ("exp", "exp2", "exp"):  # the first was killed
        (logger,) = open_loggers(("mlflow",), tmp_path / name, config, 0)
        logger.log(TRAINED)
    assert [one[0] for one in server.told[::2]] == ["r0", "r1", "r0"]
    logger.close()
    open_loggers(("mlflow",), tmp_path / "exp", config, 0)  # a new run in the folder of a finished one (--exist-ok)
    assert [run.info.name for run in server.runs] == ["exp", "exp2", "exp"] and list(server.experiments) == ["train"]


def test_a_server_that_refuses_is_one_line(server: Server, tmp_path: Path) -> None:
    server.down = True
    with pytest.raises(UserError, match=r"^--loggers mlflow: no connection$"):
        open_loggers(("mlflow",), tmp_path, {"project": "runs/train"}, 0)


def test_none_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_loggers, "installed", lambda name: True)
    assert open_loggers(("none",), Path("x"), {}, 0) == [] == open_loggers((), Path("x"), {}, 0)


def record(epoch: int, map50: float) -> EpochRecord:
    return EpochRecord(epoch=epoch, **LOSSES, **RATES, map50=map50, map50_95=map50 / 2)


def test_figures_leave_out_what_was_not_measured() -> None:
    named = figures(EpochRecord(epoch=3, **LOSSES, **RATES))
    assert named == {
        "train/box_loss": 0.5,
        "train/obj_loss": 0.25,
        "train/cls_loss": 0.125,
        "x/lr0": 0.1,
        "x/lr1": 0.01,
        "x/lr2": 0.01,
    }


@pytest.mark.slow
def test_tensorboard_has_every_epoch_once_after_a_resumed_run(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for epochs_done, epochs in ((0, (0, 1, 2)), (2, (2, 3))):  # epoch 2 was logged, but its checkpoint was lost
        (logger,) = open_loggers(None, tmp_path, {}, epochs_done)
        for epoch in epochs:
            logger.log(record(epoch, 0.1 * epoch + epochs_done))
        logger.close()
    read = events.EventAccumulator(str(tmp_path))
    read.Reload()
    scalars = [(event.step, round(event.value, 3)) for event in read.Scalars("metrics/mAP_0.5")]
    assert scalars == [(0, 0.0), (1, 0.1), (2, 2.2), (3, 2.3)]


@pytest.mark.slow
def test_mlflow_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    folder = tmp_path / "it's a run"
    folder.mkdir()
    config = {"project": "runs/train", "epochs": 3}
    (logger,) = open_loggers(("mlflow",), folder, config, 0)
    logger.log(record(0, 0.25))  # killed here: not closed
    (logger,) = open_loggers(("mlflow",), folder, config, 1)
    logger.log(record(1, 0.5))
    logger.close()
    client = tracking.MlflowClient()
    experiment = client.get_experiment_by_name("train")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["epochs"] == "3"
    history = client.get_metric_history(run.info.run_id, "metrics/mAP_0.5")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.25), (1, 0.5)]


def test_a_logger_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--loggers mlflow: is not installed; pip install mlflow"):
        refuse_missing_loggers(("mlflow",))
    refuse_missing_loggers(("none",))
    assert epoch_loggers.open_loggers(None, Path("x"), {}, 0) == []

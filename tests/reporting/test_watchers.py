"""What loggers are told, by stand-ins of their libraries, and what the real ones keep, offline if they need a server.

The real W&B, Comet and ClearML: pip install wandb comet_ml clearml.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from utils.reporting import watchers
from utils.reporting.classification_files import ClassificationRecord
from utils.reporting.epoch_log import EpochRecord, FinishedEpoch
from utils.reporting.watchers import WatchedRun, best_figures, figures, open_loggers, refuse_missing_loggers
from utils.user_error import UsageError, UserError

CLEARML_THREAD = "CLEARML__SDK__DEVELOPMENT__VCS_REPO_DETECT_ASYNC"

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


SETTINGS_OF_RUN = {"project": "runs/train", "epochs": 3, "lr0": None}


def watched(folder: Path, epochs_done: int | None = None) -> WatchedRun:
    """A new run; or one that is resumed after so many epochs."""
    return WatchedRun(folder, SETTINGS_OF_RUN, {"lr0": 0.01}, epochs_done is not None, epochs_done or 0)


def follow(name: str, run: WatchedRun, records: Sequence[FinishedEpoch], *, finished: bool | None = True) -> None:
    """The life of a logger; ``finished`` None is a run that is killed. Its first epoch is its best."""
    (logger,) = open_loggers((name,))
    logger.on_begin(run)
    for record in records:
        logger.on_epoch(record)
        if record is records[0]:
            logger.on_best(record, run.folder / "weights" / "best.pt")
    if finished is not None:
        logger.on_end(finished=finished)


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
    written: list[Writer] = []

    def opened(folder: str, purge_step: int) -> Writer:
        written.append(Writer(folder, purge_step))
        return written[-1]

    put_module(monkeypatch, "torch.utils.tensorboard", SummaryWriter=opened)
    monkeypatch.setattr(watchers, "installed", lambda name: True)
    (logger,) = open_loggers(None)
    logger.on_begin(watched(Path("runs/exp"), epochs_done=4))
    (writer,) = written
    for record in (EVALUATED, TRAINED):
        logger.on_epoch(record)
    logger.on_end(finished=True)
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

    def update_run(self, run: str, status: str) -> None:
        next(one for one in self.runs if one.info.run_id == run).info.status = status

    set_terminated = update_run


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    put_module(monkeypatch, "mlflow")
    put_module(monkeypatch, "mlflow.exceptions", MlflowException=Refused)
    put_module(monkeypatch, "mlflow.tracking", MlflowClient=lambda: server)
    return server


def test_mlflow_is_told_settings_and_figures(server: Server, tmp_path: Path) -> None:
    follow("mlflow", watched(tmp_path / "exp"), (EVALUATED, TRAINED))
    assert list(server.experiments) == ["train"]
    assert [(run.info.name, run.info.status) for run in server.runs] == [("exp", "FINISHED")]
    assert server.params == {"r0/project": "runs/train", "r0/epochs": 3, "r0/lr0": 0.01}
    assert server.told == [("r0", *one) for one in TOLD]


@pytest.mark.parametrize(("finished", "status"), [(None, "RUNNING"), (False, "KILLED")])
def test_a_resumed_run_goes_on_in_the_run_of_its_folder(
    finished: bool | None, status: str, server: Server, tmp_path: Path
) -> None:
    for name in ("exp", "exp2"):
        follow("mlflow", watched(tmp_path / name), (TRAINED,), finished=finished)
    assert [run.info.status for run in server.runs] == [status, status]
    (logger,) = open_loggers(("mlflow",))
    logger.on_begin(watched(tmp_path / "exp", epochs_done=1))
    logger.on_epoch(TRAINED)
    assert [one[0] for one in server.told[::2]] == ["r0", "r1", "r0"] and server.runs[0].info.status == "RUNNING"
    logger.on_end(finished=True)
    assert server.runs[0].info.status == "FINISHED"
    follow("mlflow", watched(tmp_path / "exp"), ())  # a new run in the same folder (--exist-ok)
    assert [run.info.name for run in server.runs] == ["exp", "exp2", "exp"] and list(server.experiments) == ["train"]


def test_a_server_that_refuses_is_one_line(server: Server, tmp_path: Path) -> None:
    server.down = True
    with pytest.raises(UserError, match=r"^--loggers mlflow: no connection$"):
        follow("mlflow", watched(tmp_path), ())


def values(records: Sequence[FinishedEpoch]) -> list[dict[str, float]]:
    return [{name: value for name, value, step in TOLD if step == record.epoch} for record in records]


BEST = {"best/epoch": 4, "best/accuracy_top1": 0.25, "best/accuracy_top5": 0.5}
SETTINGS = {"project": "runs/train", "epochs": 3, "lr0": 0.01}  # a hyperparameter counts more than a setting


def test_wandb_is_told_and_goes_on_in_a_resumed_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wandb = MagicMock(Error=Refused)
    wandb.init.return_value.id = "r7"
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for epochs_done, finished in ((None, False), (0, True), (None, True)):  # the second was killed in its first epoch
        follow("wandb", watched(tmp_path, epochs_done), (EVALUATED, TRAINED), finished=finished)
    opened = [call.kwargs for call in wandb.init.call_args_list]
    assert [one["id"] for one in opened] == [None, "r7", None] and opened[0]["resume"] == "allow"
    assert (opened[0]["project"], opened[0]["name"], opened[0]["config"]) == ("train", tmp_path.name, SETTINGS)
    run = wandb.init.return_value
    told = [(call.args[0], call.kwargs["step"]) for call in run.log.call_args_list[:2]]
    assert told == list(zip(values((EVALUATED, TRAINED)), (4, 5), strict=True))
    run.summary.update.assert_called_with(BEST)
    assert [call.kwargs["exit_code"] for call in run.finish.call_args_list] == [1, 0, 0]
    wandb.init.side_effect = Refused("no\nkey")
    with pytest.raises(UserError, match=r"^--loggers wandb: no key$"):
        follow("wandb", watched(tmp_path), ())


def test_comet_is_told_and_goes_on_in_a_resumed_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comet = MagicMock()
    comet.exceptions.CometException = Refused
    comet.start.return_value.get_key.return_value = "k7"
    monkeypatch.setitem(sys.modules, "comet_ml", comet)
    for epochs_done in (None, 5):
        follow("comet", watched(tmp_path, epochs_done), (EVALUATED, TRAINED))
    assert [call.kwargs["experiment_key"] for call in comet.start.call_args_list] == [None, "k7"]
    experiment = comet.start.return_value
    experiment.log_parameters.assert_called_with(SETTINGS)
    told = [(call.args[0], call.kwargs["step"], call.kwargs["epoch"]) for call in experiment.log_metrics.call_args_list]
    assert told[:2] == list(zip(values((EVALUATED, TRAINED)), (4, 5), (4, 5), strict=True))
    experiment.log_others.assert_called_with(BEST)
    assert experiment.end.call_count == 2
    comet.start.side_effect = ValueError("no key")
    with pytest.raises(UserError, match=r"^--loggers comet: no key$"):
        follow("comet", watched(tmp_path), ())


def put_clearml(monkeypatch: pytest.MonkeyPatch, task_type: MagicMock) -> None:
    put_module(monkeypatch, "clearml", Task=task_type)
    for name in ("backend_api", "backend_api.session"):
        put_module(monkeypatch, f"clearml.{name}")
    put_module(monkeypatch, "clearml.backend_api.session.session", LoginError=Refused)


def test_clearml_is_told_and_goes_on_in_a_resumed_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task_type = MagicMock()
    task_type.init.return_value.id = "t7"
    monkeypatch.setenv(CLEARML_THREAD, "")  # what is set in its stead goes with the test
    monkeypatch.delenv(CLEARML_THREAD)
    put_clearml(monkeypatch, task_type)
    for epochs_done, finished in ((None, False), (5, True)):
        follow("clearml", watched(tmp_path, epochs_done), (EVALUATED, TRAINED), finished=finished)
    assert os.environ[CLEARML_THREAD] == "false"
    assert [call.kwargs["continue_last_task"] for call in task_type.init.call_args_list] == [False, "t7"]
    task = task_type.init.return_value
    task.connect.assert_called_with(SETTINGS)
    task.set_initial_iteration.assert_called_with(0)
    logger = task.get_logger.return_value
    told = [("/".join(call.args[:2]), *call.args[2:]) for call in logger.report_scalar.call_args_list]
    assert told == TOLD * 2
    assert {call.args for call in logger.report_single_value.call_args_list} == set(BEST.items())
    assert (task.mark_stopped.call_count, task.close.call_count) == (1, 2)
    task_type.init.side_effect = ValueError("not\nconfigured")
    with pytest.raises(UserError, match=r"^--loggers clearml: not configured$"):
        follow("clearml", watched(tmp_path), ())


def test_clearml_looks_for_the_repository_as_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_clearml(monkeypatch, MagicMock())
    monkeypatch.setenv(CLEARML_THREAD, "true")
    follow("clearml", watched(tmp_path), ())
    assert os.environ[CLEARML_THREAD] == "true"


def test_none_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "installed", lambda name: True)
    assert open_loggers(("none",)) == [] == open_loggers(())


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


def test_the_best_epoch_is_its_number_and_what_was_measured() -> None:
    assert best_figures(EVALUATED) == BEST
    assert best_figures(record(3, 0.5)) == {"best/epoch": 3, "best/mAP_0.5": 0.5, "best/mAP_0.5:0.95": 0.25}


@pytest.mark.slow
def test_tensorboard_has_every_epoch_once_after_a_resumed_run(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for epochs_done, epochs in ((0, (0, 1, 2)), (2, (2, 3))):  # epoch 2 was logged, but its checkpoint was lost
        (logger,) = open_loggers(None)
        logger.on_begin(watched(tmp_path, epochs_done))
        for epoch in epochs:
            logger.on_epoch(record(epoch, 0.1 * epoch + epochs_done))
        logger.on_end(finished=True)
        time.sleep(1.1)  # no run goes on within its second; files are read in the order of names, which begin with it
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
    for epochs_done, finished in ((None, None), (1, False), (2, True)):  # killed, stopped, finished
        follow("mlflow", watched(folder, epochs_done), (record(epochs_done or 0, 0.25),), finished=finished)
    client = tracking.MlflowClient()
    experiment = client.get_experiment_by_name("train")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["epochs"] == "3"
    history = client.get_metric_history(run.info.run_id, "metrics/mAP_0.5")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.25), (1, 0.25), (2, 0.25)]


def test_a_logger_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--loggers mlflow: is not installed; pip install mlflow"):
        refuse_missing_loggers(("mlflow",))
    with pytest.raises(UsageError, match="--loggers comet: is not installed; pip install comet_ml"):
        refuse_missing_loggers(("none", "comet"))
    with pytest.raises(UsageError, match="--loggers wandb: is not installed"):
        open_loggers(("wandb",))  # of a run that was begun on another machine
    refuse_missing_loggers(("none",))
    assert open_loggers(None) == []


@pytest.mark.slow
def test_wandb_keeps_a_resumed_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    follow("wandb", watched(tmp_path), (EVALUATED,), finished=False)
    follow("wandb", watched(tmp_path, epochs_done=5), (TRAINED,))
    first, second = (file.read_bytes() for file in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")))
    assert re.search(rb"metrics/accuracy_top1.{1,4}0\.25", first, re.DOTALL) and b"best/accuracy_top1" in first
    assert re.search(rb"train/loss.{1,4}1\.25", second, re.DOTALL) and b"metrics" not in second.split(b"train/loss")[1]
    names = {file.name for file in tmp_path.glob("wandb/offline-run-*/*.wandb")}
    assert names == {f"run-{(tmp_path / 'wandb.id').read_text().strip()}.wandb"}, "wandb sync makes one run of the two"


@pytest.mark.slow
def test_comet_keeps_a_resumed_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("comet_ml")
    monkeypatch.setenv("COMET_START_ONLINE", "0")
    monkeypatch.setenv("COMET_OFFLINE_DIRECTORY", str(tmp_path / "offline"))
    follow("comet", watched(tmp_path), (EVALUATED,), finished=False)
    follow("comet", watched(tmp_path, epochs_done=5), (TRAINED,))
    told = set()
    for file in (tmp_path / "offline").glob(f"{(tmp_path / 'comet.id').read_text().strip()}*.zip"):
        lines = zipfile.ZipFile(file).read("messages.json").decode().splitlines()
        found = [message["payload"] for message in map(json.loads, lines) if message["type"] == "metric_msg"]
        told |= {(one["metric"]["metricName"], one["metric"]["metricValue"], one["metric"]["step"]) for one in found}
    assert told >= set(TOLD)


@pytest.mark.slow
def test_clearml_keeps_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")  # read when it is imported
    monkeypatch.setenv("CLEARML_CACHE_DIR", str(tmp_path / "cache"))
    pytest.importorskip("clearml")
    follow("clearml", watched(tmp_path), (EVALUATED, TRAINED))
    (file,) = tmp_path.glob("cache/**/offline-*.zip")
    with zipfile.ZipFile(file) as kept:
        lines = kept.read("metrics.jsonl").decode().splitlines()
        settings = json.loads(kept.read("task.json"))["hyperparams"]["General"]
    events = [event for line in lines for event in json.loads(line)]
    told = [(f"{event['metric']}/{event['variant']}", event["value"], event["iter"]) for event in events]
    assert set(TOLD) <= set(told) and settings["lr0"]["value"] == "0.01"

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from utils.reporting import epoch_loggers
from utils.reporting.epoch_log import EpochRecord
from utils.reporting.epoch_loggers import figures, open_loggers, refuse_missing_loggers
from utils.user_error import UsageError

pytestmark = pytest.mark.slow
LOSSES = {"train_box": 0.5, "train_obj": 0.25, "train_cls": 0.125}
RATES = {"lr0": 0.1, "lr1": 0.01, "lr2": 0.01}


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

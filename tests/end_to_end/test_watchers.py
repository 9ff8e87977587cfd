"""Watchers follow training of either kind from its beginning to its end, whatever ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.small_classes import write_small_classes
from tests.small_dataset import write_small_dataset
from utils.config.classify_flags import ClassifyTrainConfig
from utils.config.train_flags import TrainConfig
from utils.reporting.epoch_log import FinishedEpoch
from utils.reporting.watchers import WatchedRun, Watcher
from utils.user_error import UserError
from utils.verbs.train import train_detector
from utils.verbs.train_classifier import train_classifier

pytestmark = pytest.mark.slow
Train = Callable[[bool | str, Sequence[Watcher]], Path]  # resume, watchers


class Diary(Watcher):
    """Writes down what it is told; and raises in an epoch, if that is asked for."""

    def __init__(self, raises_in: int | None = None, error: type[Exception] = LookupError) -> None:
        self.raises_in = raises_in
        self.error = error
        self.told: list[tuple[str, object]] = []
        self.best: list[float] = []
        self.rows: list[dict[str, float]] = []
        self.run: WatchedRun | None = None

    def on_begin(self, run: WatchedRun) -> None:
        self.run = run
        self.told.append(("begin", run.epochs_done))

    def on_epoch(self, record: FinishedEpoch) -> None:
        self.told.append(("epoch", record.epoch))
        self.rows.append(record.row())
        if record.epoch == self.raises_in:
            raise self.error("enough")

    def on_best(self, record: FinishedEpoch, weights: Path) -> None:
        assert weights.is_file() and self.told[-1] == ("epoch", record.epoch)
        self.best.append(record.fitness)

    def on_end(self, *, finished: bool) -> None:
        assert self.run is not None
        assert (self.run.folder / "metrics.json").is_file() == finished, "everything is written before"
        self.told.append(("end", finished))


@pytest.fixture
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> Train:
    """Two epochs of the smallest training of a kind."""
    flags: dict[str, Any] = {"epochs": 2, "workers": 0, "device": "cpu", "noplots": True, "loggers": ("none",)}
    flags["project"] = str(tmp_path / "runs")
    if request.param == "detector":
        flags |= {"data": str(write_small_dataset(tmp_path, train=8, val=4)), "weights": "", "cfg": "yolov5n-spd.yaml"}
        flags |= {"imgsz": 64, "batch_size": 4, "noautoanchor": True}
        return lambda resume, watchers: train_detector(TrainConfig(**flags, resume=resume), watchers)
    flags |= {"data": str(write_small_classes(tmp_path / "classes", train=4, evaluated=2)), "model": "yolov5n-spd-cls"}
    flags |= {"cutoff": 4, "imgsz": 32, "batch_size": 6, "lr0": 0.003}
    return lambda resume, watchers: train_classifier(ClassifyTrainConfig(**flags, resume=resume), watchers)


@pytest.mark.parametrize(
    ("trained", "error", "seen", "line"),
    [
        ("detector", LookupError, LookupError, "^enough$"),
        # In training it would mean that a loading process was killed.
        ("classifier", ConnectionRefusedError, UserError, "^Diary: ConnectionRefusedError: enough$"),
    ],
    indirect=["trained"],
)
def test_a_run_is_followed_to_its_end_and_a_resumed_one_goes_on(
    trained: Train, error: type[Exception], seen: type[Exception], line: str
) -> None:
    stopped, resumed = Diary(raises_in=0, error=error), Diary()
    with pytest.raises(seen, match=line):
        trained(False, [stopped])
    assert stopped.told == [("begin", 0), ("epoch", 0), ("end", False)]
    assert stopped.run is not None
    folder = trained(str(stopped.run.folder / "weights" / "last.pt"), [resumed])
    assert resumed.told == [("begin", 1), ("epoch", 1), ("end", True)]
    assert resumed.run is not None and resumed.run.folder == folder
    assert resumed.run.settings["epochs"] == 2 and resumed.run.hyperparameters["momentum"] > 0  # type: ignore[operator]
    losses = [value for row in stopped.rows + resumed.rows for name, value in row.items() if name.startswith("train/")]
    assert len(losses) >= 2 and all(value >= 0 for value in losses)


@pytest.mark.parametrize("trained", ["detector"], indirect=True)
def test_a_watcher_learns_of_every_better_epoch(trained: Train) -> None:
    diary, other = Diary(), Diary()
    trained(False, [diary, other])
    fitness = [0.1 * row["metrics/mAP_0.5"] + 0.9 * row["metrics/mAP_0.5:0.95"] for row in diary.rows]
    better = [value for number, value in enumerate(fitness) if value > max(fitness[:number], default=-1.0)]
    assert diary.best == pytest.approx(better) and diary.told == other.told
    assert diary.told == [("begin", 0), ("epoch", 0), ("epoch", 1), ("end", True)]

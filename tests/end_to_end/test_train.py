"""train.py as a user runs it: what a run leaves behind, independence of workers, killed and resumed runs."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.end_to_end.finished_runs import assert_same_run, killed_when, thresholds, weights
from tests.end_to_end.scripts import command, environment, run_script
from tests.small_dataset import write_small_dataset

pytestmark = pytest.mark.slow
FLAGS = ("--weights", "", "--cfg", "yolov5n-spd.yaml", "--img", 96, "--batch-size", 4, "--epochs", 3, "--noplots")
CLOSED = (*FLAGS, "--close-mosaic", 1)  # workers, and a run that goes on in epoch 1, have to close it in epoch 2


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def uninterrupted(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with two workers that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    result = run_script("train.py", *CLOSED, "--data", dataset, "--workers", 2, folder=folder)
    best = "--weights runs/train/exp/weights/best.pt --img 96"
    assert result.stdout.splitlines()[-4:] == [
        "results in runs/train/exp",
        f"next: python val.py {best} --data {dataset}",
        f"      python detect.py {best} --conf auto --source IMAGES",
        f"      python export.py {best} --include onnx",
    ]
    return folder / "runs" / "train" / "exp"


def test_what_a_run_leaves_behind(uninterrupted: Path) -> None:
    assert yaml.safe_load((uninterrupted / "hyp.yaml").read_text())["lr0"] == 0.01
    assert yaml.safe_load((uninterrupted / "opt.yaml").read_text())["imgsz"] == 96
    with (uninterrupted / "results.csv").open() as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    assert [row[0] for row in rows] == ["epoch", "0", "1", "2"]
    metrics = json.loads((uninterrupted / "metrics.json").read_text())
    assert metrics["images"] == 8 and 0 <= metrics["map50_95"] <= 1
    for name in ("best.pt", "last.pt"):
        stored = thresholds(uninterrupted, name)
        assert stored is not None and {"best_f1", "precision_90", "recall_90", "small", "classes"} == set(stored)


def test_the_number_of_workers_changes_nothing(dataset: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run_script("train.py", *CLOSED, "--data", dataset, "--workers", 0, folder=tmp_path)
    assert_same_run(uninterrupted, tmp_path / "runs" / "train" / "exp")


def test_killed_in_an_epoch_and_resumed_ends_where_the_uninterrupted_run_ends(
    dataset: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "train" / "exp"
    words = command("train.py", *CLOSED, "--data", dataset, "--workers", 2)
    killed_when(words, r"epoch 1/2:[^\r]* [1-5]/6 ", tmp_path)
    assert len((run / "results.csv").read_text().splitlines()) == 2  # header and epoch 0
    run_script("train.py", "--resume", "--workers", 0, folder=tmp_path)
    assert_same_run(uninterrupted, run)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_polite_signal_drops_the_unfinished_epoch(dataset: Path, tmp_path: Path, number: int, code: int) -> None:
    with subprocess.Popen(
        command("train.py", *FLAGS, "--epochs", 300, "--data", dataset, "--workers", 0, "--noval"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        results = tmp_path / "runs" / "train" / "exp" / "results.csv"
        while not results.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "--resume" in errors.splitlines()[-1]
    saved = torch.load(results.parent / "weights" / "last.pt", weights_only=True)
    assert len(saved["records"]) == len(results.read_text().splitlines()) - 1 >= 1


def test_a_finished_run_refuses_to_resume(uninterrupted: Path, tmp_path: Path) -> None:
    result = run_script("train.py", "--resume", uninterrupted / "weights" / "last.pt", folder=tmp_path, expect=1)
    assert "finished" in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_mistake_in_the_settings_leaves_no_folder(tmp_path: Path, dataset: Path) -> None:
    result = run_script("train.py", *FLAGS, "--data", "nowhere.yaml", folder=tmp_path, expect=1)
    assert "nowhere.yaml" in result.stderr and len(result.stderr.splitlines()) == 1
    result = run_script("train.py", *FLAGS, "--data", dataset, "--epoch", "-1", folder=tmp_path, expect=2)
    assert "--epochs -1" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.case("Training", "--epochs 0", "best.pt holds the start weights; nothing is evaluated, and a line says so")
def test_no_epochs_only_write_the_start(dataset: Path, tmp_path: Path) -> None:
    result = run_script("train.py", *FLAGS, "--epochs", 0, "--data", dataset, folder=tmp_path)
    run = tmp_path / "runs" / "train" / "exp"
    start, best = weights(run, "last.pt"), weights(run, "best.pt")
    assert len(start) > 100 and all(
        torch.equal(start[key], best[key]) for key in start
    )  # exact, as nothing is compared
    assert not (run / "metrics.json").exists() and "mAP" not in result.stdout
    assert "start weights in runs/train/exp/weights/best.pt, not evaluated: python val.py --weights" in result.stdout

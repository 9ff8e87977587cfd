"""classify/train.py, val.py and predict.py as a user runs them: the guarantees are those of the detector's scripts."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import yaml

from tests.end_to_end.finished_runs import assert_same_run, killed_when
from tests.end_to_end.scripts import command, environment, run_script
from tests.robustness.running import run, succeeds
from tests.shared_data import REPOSITORY, SHARED, needs_shared
from tests.small_classes import write_small_classes

pytestmark = pytest.mark.slow
MODEL = ("--model", "yolov5n-spd-cls", "--cutoff", 4, "--img", 32)
FLAGS = (*MODEL, "--batch-size", 6, "--epochs", 3, "--lr0", 0.003, "--cache")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_classes(tmp_path_factory.mktemp("classes"), train=12, evaluated=5)


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with two workers that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    result = run_script("classify/train.py", *FLAGS, "--data", data, "--workers", 2, folder=folder)
    best = "--weights runs/train-cls/exp/weights/best.pt"
    assert result.stdout.splitlines()[-4:] == [
        "results in runs/train-cls/exp",
        f"next: python classify/val.py {best} --data {data}",
        f"      python classify/predict.py {best} --source IMAGES",
        f"      python export.py {best} --include onnx",
    ]
    return folder / "runs" / "train-cls" / "exp"


def rows_of(run: Path) -> list[dict[str, float]]:
    with (run / "results.csv").open() as file:
        return [{key.strip(): float(cell) for key, cell in row.items()} for row in csv.DictReader(file)]


def test_what_a_run_leaves_behind(uninterrupted: Path) -> None:
    rows = rows_of(uninterrupted)
    columns = ["epoch", "train/loss", "val/loss", "metrics/accuracy_top1", "metrics/accuracy_top5", "lr/0"]
    assert list(rows[0]) == columns and [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[0]["lr/0"] == 0.003 and all(row["metrics/accuracy_top5"] == 1 for row in rows)
    assert yaml.safe_load((uninterrupted / "hyp.yaml").read_text())["lr0"] == 0.003
    assert yaml.safe_load((uninterrupted / "opt.yaml").read_text())["model"] == "yolov5n-spd-cls"
    metrics = json.loads((uninterrupted / "metrics.json").read_text())
    best = max(row["metrics/accuracy_top1"] for row in rows)
    assert metrics["images"] == 15 and metrics["top1"] == pytest.approx(best, abs=1e-5)
    for name in ("train_images.jpg", "confusion_matrix.png", "results.png"):
        assert cv2.imread(str(uninterrupted / name)) is not None, name


@pytest.mark.case("Training", "classify/train.py --epochs 0", "best.pt holds the start weights; nothing is evaluated")
def test_no_epochs_only_write_the_start(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    result = succeeds("classify.train", *FLAGS, "--epochs", 0, "--data", data, "--workers", 0, folder=tmp_path)
    run = tmp_path / "runs" / "train-cls" / "exp"
    assert "not evaluated: python classify/val.py --weights runs/train-cls/exp/weights/best.pt" in result.output
    assert not (run / "metrics.json").exists()
    for folder in (run, uninterrupted):
        assert sorted(file.name for file in (folder / "weights").iterdir()) == ["best.pt", "last.pt"]
        assert not (folder / ".lock").exists()


def test_the_number_of_workers_changes_nothing_and_the_seed_does(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        flags = (*FLAGS, "--data", data, "--workers", 0, "--noplots", "--seed", seed)
        run_script("classify/train.py", *flags, folder=tmp_path)
    runs = tmp_path / "runs" / "train-cls"
    assert_same_run(uninterrupted, runs / "exp")
    assert rows_of(runs / "exp2") != rows_of(runs / "exp")


def test_killed_in_an_epoch_and_resumed_ends_where_the_uninterrupted_run_ends(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "train-cls" / "exp"
    words = command("classify/train.py", *FLAGS, "--data", data, "--workers", 2)
    killed_when(words, r"epoch 1/2:[^\r]* [1-5]/6 ", tmp_path)
    assert len(rows_of(folder)) == 1
    refused = run("train", "--resume", folder, folder=tmp_path)
    assert refused.code == 1 and "a checkpoint whose task is 'classify'" in refused.error_lines[0]
    run_script("classify/train.py", "--resume", "--workers", 0, folder=tmp_path)
    assert_same_run(uninterrupted, folder)
    refused = run("classify.train", "--resume", folder, folder=tmp_path)
    assert refused.code == 1 and "that run is finished" in refused.error_lines[0] and len(refused.error_lines) == 1


def test_val_says_what_training_said(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    flags = ("--weights", uninterrupted / "weights" / "best.pt", "--data", data, "--workers", 0)
    result = succeeds("classify.val", *flags, folder=tmp_path)
    folder = tmp_path / "runs" / "val-cls" / "exp"
    own, trained = (json.loads((run / "metrics.json").read_text()) for run in (folder, uninterrupted))
    for name in ("top1", "top5", "classes", "confusion", "images"):
        assert own[name] == trained[name], name
    assert re.search(r"^ +green +5 ", result.output, re.MULTILINE)
    assert (folder / "confusion_matrix.png").is_file()


def test_predict_on_a_folder_and_an_image(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    flags = ("--weights", uninterrupted / "weights" / "best.pt", "--save-txt")
    source = tmp_path / "images"
    source.mkdir()
    for colour in ("red", "blue"):
        (source / f"{colour}.png").write_bytes((data / "val" / colour / "000.png").read_bytes())
    (source / "broken.png").write_bytes(b"nothing")
    result = succeeds("classify.predict", *flags, "--source", source, folder=tmp_path)
    folder = tmp_path / "runs" / "predict-cls" / "exp"
    assert sorted(path.name for path in folder.iterdir()) == ["blue.png", "labels", "red.png"]
    lines = (folder / "labels" / "red.txt").read_text().splitlines()
    assert len(lines) == 3 and {line.split()[1] for line in lines} == {"blue", "green", "red"}
    shares = [float(line.split()[0]) for line in lines]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=0.02)
    assert "broken.png" in result.output and "2 images" in result.output
    again = run_script("classify/predict.py", *flags, "--source", source / "red.png", folder=tmp_path)
    assert re.search(r"red\.png: \w+ [01]\.\d\d, ", again.stdout)


def test_a_run_in_two_processes(data: Path, tmp_path: Path) -> None:
    words = [*TORCHRUN, str(REPOSITORY / "classify" / "train.py"), *map(str, FLAGS), "--data", str(data)]
    done = subprocess.run(
        [*words, "--device", "cpu", "--workers", "0"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("results in runs/train-cls/exp") == 2  # one process speaks
    folder = tmp_path / "runs" / "train-cls" / "exp"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["images"] == 15 and len(rows_of(folder)) == 3
    succeeds("classify.val", "--weights", folder / "weights" / "best.pt", "--data", data, folder=tmp_path)
    alone = json.loads((tmp_path / "runs" / "val-cls" / "exp" / "metrics.json").read_text())
    assert alone["confusion"] == metrics["confusion"]


def test_colours_are_learned(data: Path, tmp_path: Path) -> None:
    """Three colours at any place are easy: what cannot be learned is a mistake in the labels or the step."""
    flags = (*MODEL, "--data", data, "--epochs", 12, "--batch-size", 6, "--lr0", 0.003, "--workers", 0, "--noplots")
    run_script("classify/train.py", *flags, folder=tmp_path)
    rows = rows_of(tmp_path / "runs" / "train-cls" / "exp")
    assert rows[-1]["metrics/accuracy_top1"] >= 0.8 and rows[-1]["train/loss"] < rows[0]["train/loss"]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--model", "resnet19"), 1, "resnet19: no such classifier; near: resnet18"),
        (("--data", "nowhere"), 1, "'nowhere': no such folder, nor a data set known by name"),
        (("--hyp", "nowhere.yaml"), 1, "nowhere.yaml: no such hyp YAML"),
        (("--optimiser", "SGD"), 2, "unknown flag --optimiser (did you mean --optimizer?)"),
        (("--dropout", 0.2, "--model", "resnet18"), 1, "dropout 0.2: the network has no dropout layer"),
    ],
)
def test_a_mistake_in_the_settings_leaves_no_folder(
    flags: tuple[object, ...], code: int, message: str, data: Path, tmp_path: Path
) -> None:
    words = (*FLAGS[:-1], "--data", data, *flags)
    words = words if "--model" not in flags else ("--img", 32, "--data", data, *flags)
    outcome = run("classify.train", *words, folder=tmp_path)
    assert outcome.code == code
    assert message in outcome.error_lines[0] and len(outcome.error_lines) == 1
    assert list(tmp_path.iterdir()) == []


@needs_shared
@pytest.mark.acceptance
def test_real_images_are_learned_from_scratch(tmp_path: Path) -> None:
    """4 000 images of CIFAR-10, ten classes, 15 epochs, one thread: above 40 % top-1."""
    flags = ("--model", "resnet18-spd", "--data", SHARED / "data" / "cifar10-mini", "--img", 32, "--workers", 0)
    words = command("classify/train.py", *flags, "--hyp", "hyp.classify-small-set.yaml", "--noplots")
    subprocess.run(words, cwd=tmp_path, env=environment(), check=True, timeout=14_400)
    rows = rows_of(tmp_path / "runs" / "train-cls" / "exp")
    assert len(rows) == 15
    assert max(row["metrics/accuracy_top1"] for row in rows) > 0.4

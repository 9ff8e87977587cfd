"""val.py as a user runs it: what it prints and writes, on checkpoints and exported files, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.scripts import run_script
from tests.shared_data import SHARED, needs_shared
from tests.small_dataset import write_small_dataset

pytestmark = pytest.mark.slow

METRICS = (
    "precision recall map50 map50_95 AP AP50 AP75 AP_S AP_M AP_L AR1 AR10 AR100 AR_S AR_M AR_L "
    "images objects speed_ms per_class weights settings"
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def weights(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights."""
    folder = tmp_path_factory.mktemp("start")
    flags = ("--weights", "", "--cfg", "yolov5n-spd.yaml", "--img", 96, "--epochs", 0, "--noplots", "--workers", 0)
    run_script("train.py", *flags, "--data", dataset, folder=folder)
    return folder / "runs" / "train" / "exp" / "weights" / "last.pt"


def test_what_an_evaluation_leaves_behind(dataset: Path, weights: Path, tmp_path: Path) -> None:
    flags = ("--img", 96, "--workers", 0, "--save-txt", "--save-conf", "--save-json", "--conf-thres", 0)
    result = run_script("val.py", "--weights", weights, "--data", dataset, *flags, folder=tmp_path)
    folder = tmp_path / "runs" / "val" / "exp"
    *_, where, following = result.stdout.splitlines()
    assert where == "results in runs/val/exp"
    best = json.loads((folder / "metrics.json").read_text())["thresholds"]["best_f1"]
    assert following == f"next: python detect.py --weights {weights} --img 96 --conf {best:.3f} --source IMAGES"
    assert "mAP50-95" in result.stdout and "AP_S" in result.stdout
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(METRICS.split()) <= set(metrics)
    assert metrics["images"] == 8 and metrics["settings"]["imgsz"] == 96
    rows = json.loads((folder / "last_predictions.json").read_text())
    texts = [line.split() for file in (folder / "labels").glob("*.txt") for line in file.read_text().splitlines()]
    assert len(rows) == len(texts) > 0
    assert {len(row) for row in texts} == {6}
    assert (folder / "val_batch0_pred.jpg").is_file() and (folder / "PR_curve.png").is_file()


def test_an_exported_file_has_the_figures_of_its_checkpoint(dataset: Path, weights: Path, tmp_path: Path) -> None:
    run_script("export.py", "--weights", weights, "--include", "onnx", "--img", 128, "--dynamic", folder=tmp_path)
    reports = []
    for number, file in enumerate((weights, weights.with_suffix(".onnx"))):
        flags = ("--img", 128, "--batch-size", 1, "--workers", 0, "--name", f"v{number}", "--conf-thres", 0)
        run_script("val.py", "--weights", file, "--data", dataset, *flags, folder=tmp_path)
        reports.append(json.loads((tmp_path / "runs" / "val" / f"v{number}" / "metrics.json").read_text()))
    figures = ("precision", "recall", "map50", "map50_95", "AP", "AR100", "AR_S", "AR_M")
    assert reports[0]["AR100"] > 0
    for name in figures:
        assert reports[1][name] == pytest.approx(reports[0][name], abs=1e-3), name


@needs_shared
def test_a_model_of_other_classes_is_refused_in_one_line(dataset: Path, tmp_path: Path) -> None:
    official = SHARED / "weights" / "yolov5n.pt"
    result = run_script("val.py", "--weights", official, "--data", dataset, folder=tmp_path, expect=1)
    assert "80 classes" in result.stderr and len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_the_data_set_does_not_have(dataset: Path, weights: Path, tmp_path: Path) -> None:
    flags = ("--weights", weights, "--data", dataset, "--task", "test")
    result = run_script("val.py", *flags, folder=tmp_path, expect=1)
    assert "'test:'" in result.stderr and len(result.stderr.splitlines()) == 1

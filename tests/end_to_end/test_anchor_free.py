"""A detector without anchors through all scripts: trained, resumed, evaluated, exported, used."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from models.weights import checkpoint_fields
from models.yolo import DetectionModel
from tests.end_to_end.finished_runs import assert_same_run, killed_when
from tests.end_to_end.scripts import command, run_script
from tests.joined_ways import joined_ways
from tests.small_dataset import write_small_dataset

pytestmark = pytest.mark.slow
# Levels of stride 4 and 8, as the exporters' small detector has.
ARCHITECTURE = """
nc: 3
depth_multiple: 1.0
width_multiple: 1.0
backbone:
  - [-1, 1, Conv, [16, 6, 2, 2]]
  - [-1, 1, SPDConv, [16, 3]]
  - [-1, 1, C3, [16]]
  - [-1, 1, SPDConv, [32, 3]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 2], 1, Concat, [1]]
  - [-1, 1, C3, [16, False]]
  - [[6, 3], 1, AnchorFreeDetect, [nc, None, 0]]
"""


FLAGS = (
    "--weights", "", "--cfg", "u.yaml", "--data", "data/small.yaml", "--img", 96, "--epochs", 3, "--batch-size", 4,
    "--workers", 0, "--noplots",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("anchor_free")
    (folder / "u.yaml").write_text(ARCHITECTURE)
    write_small_dataset(folder / "data")
    run_script("train.py", *FLAGS, "--name", "run", folder=folder)
    return folder


def test_a_run_has_its_losses_in_the_table(folder: Path) -> None:
    with (folder / "runs" / "train" / "run" / "results.csv").open() as file:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    assert "train/dfl_loss" in rows[0] and "train/obj_loss" not in rows[0] and "val/dfl_loss" in rows[0]
    assert float(rows[2]["train/cls_loss"]) < float(rows[0]["train/cls_loss"])
    metrics = json.loads((folder / "runs" / "train" / "run" / "metrics.json").read_text())
    assert list(metrics["loss"]) == ["box", "distribution", "classification"]


def test_killed_and_resumed_ends_where_the_uninterrupted_run_ends(folder: Path) -> None:
    killed_when(command("train.py", *FLAGS, "--name", "again"), r"epoch 1/2:[^\r]* [1-5]/6 ", folder)
    last = folder / "runs" / "train" / "again" / "weights" / "last.pt"
    stored = torch.load(last, weights_only=True)
    assert stored["anchors"].shape == (2, 0, 2) and stored["architecture"]["anchors"] == 0
    run_script("train.py", "--resume", last, "--workers", 0, folder=folder)
    assert_same_run(folder / "runs" / "train" / "run", folder / "runs" / "train" / "again")


def test_every_format_gives_the_figures_of_the_checkpoint(folder: Path) -> None:
    best = folder / "runs" / "train" / "run" / "weights" / "best.pt"
    run_script("export.py", "--weights", best, "--include", "onnx", "torchscript", "--img", 96, folder=folder)
    figures = []
    for suffix in (".pt", ".onnx", ".torchscript"):
        run_script(
            "val.py", "--weights", best.with_suffix(suffix), "--data", "data/small.yaml", "--img", 96, "--batch-size",
            1, "--workers", 0, "--square", "--name", suffix[1:], folder=folder,
        )  # fmt: skip
        figures.append(json.loads((folder / "runs" / "val" / suffix[1:] / "metrics.json").read_text()))
    for other in figures[1:]:
        for key in ("map50", "map50_95", "AP_S"):
            assert other[key] == pytest.approx(figures[0][key], abs=1e-3)


def test_detections_with_suppression_inside_and_outside_the_graph(folder: Path) -> None:
    best = folder / "runs" / "train" / "run" / "weights" / "best.pt"
    run_script("export.py", "--weights", best, "--include", "onnx", "--nms", "--img", 96, folder=folder)
    for weights in (best, best.with_name("best_nms.onnx")):
        run_script(
            "detect.py", "--weights", weights, "--source", "data/images/val", "--img", 96, "--conf", 0.001,
            "--save-txt", "--name", weights.stem, folder=folder,
        )  # fmt: skip
        assert list((folder / "runs" / "detect" / weights.stem).glob("*.png"))


def test_rounding_as_yolov5_is_refused(folder: Path) -> None:
    best = folder / "runs" / "train" / "run" / "weights" / "best.pt"
    result = run_script(
        "val.py", "--weights", best, "--data", "data/small.yaml", "--img", 96, "--as-yolov5", "--half",
        folder=folder, expect=2,
    )  # fmt: skip
    assert "has no anchors" in result.stderr and result.stderr.count("\n") == 1


def test_free_sizes_where_maps_of_two_ways_are_joined(tmp_path: Path) -> None:
    """The map of stride 8 by two strided convolutions, and by one of an even kernel: equal sides only of multiples."""
    torch.manual_seed(0)
    model = DetectionModel(joined_ways(), names=("a", "b")).eval()
    torch.save(checkpoint_fields(model), tmp_path / "a.pt")
    run_script("export.py", "--weights", "a.pt", "--include", "onnx", "--dynamic", "--img", 64, 96, folder=tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    (rows,) = session.run(None, {"images": np.zeros((3, 3, 80, 48), np.float32)})
    assert rows.shape == (3, 10 * 6 + 5 * 3, 7)

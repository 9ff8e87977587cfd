"""Every exported form of every family evaluates as PyTorch does, on real pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from models.transfer import transfer_weights
from models.weights import checkpoint_fields, read_weights
from models.yolo import DetectionModel, load_architecture
from tests.shared_data import REPOSITORY, SHARED, needs_shared
from utils.config.command_line import parse_command_line
from utils.config.run_config import ValConfig
from utils.evaluation.evaluate import EvaluationReport
from utils.exporting.export_run import export_model
from utils.exporting.export_settings import EmbeddedSuppression, ExportSettings
from utils.geometry.letterbox import FrameSize
from utils.reporting.evaluation_run import evaluate_once
from utils.reporting.evaluation_setup import EvaluationSetup

pytestmark = [pytest.mark.acceptance, needs_shared]

FRAME = FrameSize(640, 640)
FREE = {
    "onnx": ExportSettings(FRAME, dynamic=True),
    "torchscript": ExportSettings(FRAME, dynamic=True),
    "openvino": ExportSettings(FRAME, dynamic=True),
    "onnx simplified": ExportSettings(FRAME, dynamic=True, simplify=True),
    "onnx with nms": ExportSettings(FRAME, dynamic=True, suppression=EmbeddedSuppression(0.001, 0.6, 300, 300)),
}


def coco128(folder: Path) -> Path:
    content = yaml.safe_load((REPOSITORY / "data" / "coco128.yaml").read_text())
    path = folder / "coco128.yaml"
    path.write_text(yaml.safe_dump({"path": str(SHARED / "data" / "coco128"), "train": "images/train2017",
                                    "val": "images/train2017", "names": content["names"]}))  # fmt: skip
    return path


def evaluated(weights: Path, folder: Path) -> EvaluationReport:
    words = ["--weights", weights, "--data", coco128(folder), "--batch", 1, "--workers", 0, "--project", folder]
    config = parse_command_line(ValConfig, list(map(str, words)), prog="", description="")
    return evaluate_once(EvaluationSetup.of(config))


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-spd", "yolov5n-spd-released"])
def test_every_format_has_the_figures_of_pytorch(tmp_path: Path, name: str) -> None:
    """The official weights, in the SPD families rewritten to the same function."""
    official = read_weights(SHARED / "weights" / "yolov5n.pt")
    model = DetectionModel(load_architecture(name), names=official.names)
    transfer_weights(model, official)
    weights = tmp_path / "a.pt"
    torch.save(checkpoint_fields(model), weights)
    expected = evaluated(weights, tmp_path)
    assert expected.map50 > 0.5
    table = {}
    for form, settings in FREE.items():
        (file,) = export_model(weights, [form.split()[0]], settings, torch.device("cpu"))
        found = evaluated(file.path, tmp_path)
        table[form] = (found.map50, found.map50_95, found.coco.AP, found.coco.AP_S)
    print(name, json.dumps(table, indent=1))
    reference = (expected.map50, expected.map50_95, expected.coco.AP, expected.coco.AP_S)
    for form, figures in table.items():
        assert figures == pytest.approx(reference, abs=1e-3), form

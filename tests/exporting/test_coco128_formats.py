"""Every exported form of every family evaluates as PyTorch does, on real images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from models.transfer import transfer_weights
from models.weights import checkpoint_fields, read_weights
from models.yolo import DetectionModel, load_architecture
from tests.models.test_fuse import disturb_norms
from tests.shared_data import REPOSITORY, SHARED, needs_shared
from utils.config.command_line import parse_command_line
from utils.config.dataset_yaml import read_dataset_yaml
from utils.config.val_flags import ValConfig
from utils.evaluation.evaluate import EvaluationReport
from utils.exporting.export_settings import EmbeddedSuppression, ExportSettings
from utils.exporting.quantization import Int8Data
from utils.geometry.letterbox import FrameSize
from utils.inference.model_files import load_backend
from utils.verbs.evaluate import EvaluationSetup, evaluate_once
from utils.verbs.export import export_model

pytestmark = [pytest.mark.acceptance, needs_shared]

CPU = torch.device("cpu")
FRAME = FrameSize(640, 640)
NAMES = ["yolov5n", "yolov5n-spd", "yolov5n-spd-released"]
FREE = {
    "onnx": ExportSettings(FRAME, dynamic=True),
    "torchscript": ExportSettings(FRAME, dynamic=True),
    "openvino": ExportSettings(FRAME, dynamic=True),
    "onnx simplified": ExportSettings(FRAME, dynamic=True, simplify=True),
    "onnx with nms": ExportSettings(FRAME, dynamic=True, suppression=EmbeddedSuppression(0.001, 0.6, 300, 300)),
}
FIXED = {"onnx": ExportSettings(FRAME), "torchscript": ExportSettings(FRAME), "openvino": ExportSettings(FRAME)}


def coco128(folder: Path) -> Path:
    content = yaml.safe_load((REPOSITORY / "data" / "coco128.yaml").read_text())
    path = folder / "coco128.yaml"
    path.write_text(yaml.safe_dump({"path": str(SHARED / "data" / "coco128"), "train": "images/train2017",
                                    "val": "images/train2017", "names": content["names"]}))  # fmt: skip
    return path


def evaluated(weights: Path, folder: Path, *flags: str) -> EvaluationReport:
    words = ["--weights", weights, "--data", coco128(folder), "--batch", 1, "--workers", 0, "--project", folder, *flags]
    config = parse_command_line(ValConfig, list(map(str, words)), prog="", description="")
    return evaluate_once(EvaluationSetup.of(config))


def figures(report: EvaluationReport) -> tuple[float, ...]:
    return report.map50, report.map50_95, report.coco.AP, report.coco.AP_S


def official_weights_as(name: str, folder: Path) -> Path:
    """The official weights, in the SPD families rewritten to the same function."""
    official = read_weights(SHARED / "weights" / "yolov5n.pt")
    model = DetectionModel(load_architecture(name), names=official.names)
    transfer_weights(model, official)
    weights = folder / "a.pt"
    torch.save(checkpoint_fields(model), weights)
    return weights


@pytest.mark.parametrize("name", NAMES)
def test_every_format_has_the_figures_of_pytorch(tmp_path: Path, name: str) -> None:
    weights = official_weights_as(name, tmp_path)
    expected = evaluated(weights, tmp_path)
    assert expected.map50 > 0.5
    table = {}
    for form, settings in FREE.items():
        (file,) = export_model(weights, [form.split()[0]], settings, CPU)
        table[form] = figures(evaluated(file.path, tmp_path))
    print(name, json.dumps(table, indent=1))
    for form, found in table.items():
        assert found == pytest.approx(figures(expected), abs=1e-3), form


@pytest.mark.parametrize("name", NAMES)
def test_files_of_fixed_size_have_the_figures_of_pytorch_in_the_same_frame(tmp_path: Path, name: str) -> None:
    """A file of fixed size sees every image in its square, where a .pt file pads to the next stride only."""
    weights = official_weights_as(name, tmp_path)
    expected = evaluated(weights, tmp_path, "--square")
    assert expected.map50 > 0.5
    for form, settings in FIXED.items():
        (file,) = export_model(weights, [form], settings, CPU)
        found = figures(evaluated(file.path, tmp_path))
        print(name, form, found)
        assert found == pytest.approx(figures(expected), abs=1e-3), form


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_int8_of_the_official_weights_costs_little(tmp_path: Path, form: str) -> None:
    weights = official_weights_as("yolov5n", tmp_path)
    data = Int8Data.of(read_dataset_yaml(coco128(tmp_path)))
    (file,) = export_model(weights, [form], ExportSettings(FRAME, precision="int8"), CPU, (), data)
    assert file.accuracy is not None
    before, after = file.accuracy
    print(form, file.accuracy, file.megabytes)
    assert after.ap > before.ap - 0.02
    assert pytest.approx(after.ap, abs=1e-6) == evaluated(file.path, tmp_path).coco.AP


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["torchscript", "onnx", "openvino"])
def test_three_classes_of_320x256_at_other_sizes_and_batches(tmp_path: Path, name: str, form: str) -> None:
    torch.manual_seed(0)
    model = DetectionModel(load_architecture(name), names=("car", "boat", "person")).eval()
    disturb_norms(model)
    weights = tmp_path / "a.pt"
    torch.save(checkpoint_fields(model), weights)
    (file,) = export_model(weights, [form], ExportSettings(FrameSize(320, 256), dynamic=True), CPU)
    backend, reference = load_backend(file.path, CPU), load_backend(weights, CPU)
    for shape in ((1, 3, 320, 256), (4, 3, 320, 256), (1, 3, 256, 320), (3, 3, 160, 416), (2, 3, 32, 640)):
        images = torch.rand(shape)
        found, expected = backend.predict(images), reference.predict(images)
        assert expected.class_probs.std() > 1e-3, "images must matter"
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-4, atol=0.01)
        torch.testing.assert_close(found.objectness, expected.objectness, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.class_probs, expected.class_probs, rtol=1e-3, atol=1e-4)

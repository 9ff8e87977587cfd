"""Classifiers exported: every format answers as the model does, and evaluates the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from models.classifier import Classifier, ClassifierPlan, classifier_fields
from tests.robustness.running import run, succeeds
from tests.small_classes import COLOURS, write_small_classes

pytestmark = pytest.mark.slow
EXPORTED = ("best.torchscript", "best.onnx", "best_openvino_model")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = Classifier(ClassifierPlan(name="yolov5n-spd-cls", cutoff=4), tuple(COLOURS), imgsz=32)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data.mul_(30)  # answers that differ from image to image
    path = tmp_path_factory.mktemp("weights") / "best.pt"
    torch.save({**classifier_fields(model), "model": model.state_dict(), "average": None}, path)
    return path


@pytest.mark.kernels
def test_every_format_evaluates_as_the_model_does(weights: Path, tmp_path: Path) -> None:
    said = succeeds("export", "--weights", weights, "--include", "torchscript", "onnx", "openvino", folder=tmp_path)
    assert said.output.count("32 px, probabilities within") == 3
    data = write_small_classes(tmp_path / "classes", train=1, evaluated=4)
    found = []
    for name in ("best.pt", *EXPORTED):
        flags = ("--weights", weights.with_name(name), "--data", data, "--workers", 0, "--batch-size", 5)
        succeeds("classify.val", *flags, "--name", name, folder=tmp_path)
        found.append(json.loads((tmp_path / "runs" / "val-cls" / name / "metrics.json").read_text()))
    assert found[0]["images"] == 12 and found[0]["settings"]["imgsz"] is None
    for other in found[1:]:
        assert other["confusion"] == found[0]["confusion"]
        assert other["loss"] == pytest.approx(found[0]["loss"], rel=1e-3)
    predicted = succeeds(
        "classify.predict", "--weights", weights.with_name("best.onnx"), "--source", data / "val" / "red",
        "--img", 64, "--nosave", folder=tmp_path,
    )  # fmt: skip
    assert "takes 32 px only" in predicted.output and "4 images" in predicted.output


def test_free_sizes(weights: Path, tmp_path: Path) -> None:
    said = succeeds("export", "--weights", weights, "--include", "onnx", "--dynamic", "--simplify", folder=tmp_path)
    assert "best.onnx" in said.output


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--nms",), 2, "--nms: classifiers are exported in fp32"),
        (("--img", 32, 64), 2, "--imgsz 32 64: a classifier takes squares"),
        (("--include", "paddle"), 2, "--include paddle: not written here"),
    ],
)
def test_what_is_refused(flags: tuple[object, ...], code: int, message: str, weights: Path, tmp_path: Path) -> None:
    outcome = run("export", "--weights", weights, *flags, folder=tmp_path)
    assert outcome.code == code and len(outcome.error_lines) == 1 and message in outcome.error_lines[0]


def test_a_detectors_script_says_that_it_is_a_classifier(weights: Path, tmp_path: Path) -> None:
    source = write_small_classes(tmp_path / "classes", train=1, evaluated=1) / "val" / "red"
    outcome = run("detect", "--weights", weights, "--source", source, folder=tmp_path)
    assert outcome.code == 1 and "holds a classifier, not a detector" in outcome.error_lines[0]

"""Classifiers by name, and their weights out of YOLOv5's files and ours."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from models.classifier import (
    YOLOV5,
    Classifier,
    ClassifierPlan,
    ClassifierWeights,
    Classify,
    YoloClassifier,
    check_takes,
    classifier_fields,
    is_classifier,
    load_classifier,
    read_classifier,
    read_start,
    set_dropout,
    take_weights,
)
from models.common import SPDConv
from models.weights import read_weights
from tests.models.pickled_fixtures import instance, pickled_module, write_zip
from tests.shared_data import SHARED, needs_shared
from utils.user_error import UserError

NAMES = ("cat", "dog", "frog")


def classifier(name: str, names: tuple[str, ...] = NAMES) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(ClassifierPlan(name=name), names, imgsz=64)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_()  # else half of the state would not be seen
    return model.eval()


def published(model: Classifier, path: Path, names: object = None) -> Path:
    """The file in which YOLOv5 publishes such a classifier: no architecture, layers under ``model``."""
    assert isinstance(model.net, YoloClassifier)
    layers = pickled_module(model.net.model)
    root = instance(
        "models.yolo.ClassificationModel",
        training=False,
        _parameters=OrderedDict(),
        _buffers=OrderedDict(),
        _modules=OrderedDict(model=layers),
        nc=len(model.names),
        names=dict(enumerate(model.names)) if names is None else names,
        stride=torch.tensor([32.0]),
    )
    write_zip({"epoch": -1, "model": root, "ema": None}, path)
    return path


@pytest.mark.parametrize("name", YOLOV5)
def test_parameters_of_yolov5s_classifiers(name: str) -> None:
    """YOLOv5 states 2.5, 5.4, 12.9, 26.5 and 48.1 M for n, s, m, l, x with 1000 classes."""
    with torch.device("meta"):
        model = Classifier(ClassifierPlan(name=name), tuple(map(str, range(1000))))
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    if "-spd" in name:
        assert sum(isinstance(module, SPDConv) for module in model.modules()) == 5
    else:
        stated = {"n": 2.5, "s": 5.4, "m": 12.9, "l": 26.5, "x": 48.1}
        assert millions == pytest.approx(stated[name[6]], abs=0.06)


def test_the_names_of_the_parameters_are_yolov5s() -> None:
    names = list(classifier("yolov5n-cls").net.state_dict())
    assert names[0] == "model.0.conv.weight"
    assert names[-2:] == ["model.9.linear.weight", "model.9.linear.bias"] and "model.9.conv.bn.running_var" in names


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18-spd", "yolov5n-spd-cls", "mobilenet_v3_small", "resnet34-spd"])
def test_logits_of_images_of_two_sizes(name: str) -> None:
    model = classifier(name)
    for side in (32, 64):
        assert model(torch.randn(2, 3, side, side)).shape == (2, 3)


def test_spd_forms_of_torchvisions_networks_have_no_strides() -> None:
    model = classifier("resnet34-spd")
    assert [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)] == []
    assert all(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (ClassifierPlan(name="resnet18-sdp"), "no such classifier; near: resnet18-spd"),
        (ClassifierPlan(name="yolov5n-cls", shortcut="spd"), "shortcut and stem are choices of resnet18"),
        (ClassifierPlan(name="resnet18", cutoff=9), "cutoff is a choice of YOLOv5's"),
        (ClassifierPlan(name="yolov5n-cls", cutoff=30), "cutoff 30 is not 2 to "),
    ],
)
def test_what_there_is_not(plan: ClassifierPlan, message: str) -> None:
    with pytest.raises(UserError, match=message), torch.device("meta"):
        Classifier(plan, NAMES)


def test_a_size_that_a_network_does_not_take() -> None:
    for name, side in (("alexnet", 32), ("vit_b_16", 32)):
        with (
            torch.device("meta"),
            pytest.raises(UserError, match=rf"{name}: does not take images of 32 x 32 px \(") as caught,
        ):
            check_takes(Classifier(ClassifierPlan(name=name), NAMES), side)
        assert "\n" not in str(caught.value)
    model = Classifier(ClassifierPlan(name="googlenet"), NAMES)
    check_takes(model, 64)
    assert model.training and model(torch.randn(2, 3, 64, 64)).shape == (2, 3)  # one output in training too


def test_cutoff_and_dropout() -> None:
    model = Classifier(ClassifierPlan(name="yolov5n-cls", cutoff=5), NAMES)
    assert isinstance(model.net, YoloClassifier)
    head = model.net.model[-1]
    assert isinstance(head, Classify) and len(model.net.model) == 5 and head.conv.conv.in_channels == 64
    set_dropout(model, 0.3)
    assert head.drop.p == 0.3
    with pytest.raises(UserError, match="no dropout layer"):
        set_dropout(nn.Linear(1, 1), 0.1)


def test_a_published_file_is_read_without_its_code(tmp_path: Path) -> None:
    model = classifier("yolov5n-cls")
    path = published(model, tmp_path / "yolov5n-cls.pt")
    assert is_classifier(path)
    read = load_classifier(path)
    assert (read.names, read.plan, read.imgsz) == (NAMES, ClassifierPlan(name="yolov5n-cls"), 224)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(read(x), model(x), rtol=0.02, atol=0.02)  # published in half precision
    with pytest.raises(UserError, match=r"no strides or no anchors|no architecture"):
        read_weights(path)


def test_our_own_file(tmp_path: Path) -> None:
    model = classifier("resnet18-spd")
    path = tmp_path / "best.pt"
    torch.save({**classifier_fields(model), "model": model.state_dict(), "average": None}, path)
    read = load_classifier(path)
    assert (read.names, read.plan, read.imgsz) == (NAMES, model.plan, 64) and is_classifier(path)
    expected = model.state_dict()
    assert set(read.state_dict()) == set(expected)
    assert all(torch.equal(value, expected[name]) for name, value in read.state_dict().items())
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        # The weights are the same to the bit; sums over them, which may lie elsewhere in memory, need not be.
        torch.testing.assert_close(read(x), model(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="holds a classifier, not a detector"):
        read_weights(path)


def test_what_is_no_classifier(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    for content, message in (
        ({"schema": 1, "architecture": {}}, "holds a detector"),
        ({"schema": 1, "task": "classify", "model": {"a": 1}}, "weights are not all tensors"),
        ({"schema": 1, "task": "classify", "model": {}, "architecture": [1]}, "not that of a classifier"),
        ({"weights": 1}, "holds no model"),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=message):
            read_classifier(path)


def test_weights_for_other_classes_leave_the_head_fresh(tmp_path: Path) -> None:
    weights = read_classifier(published(classifier("yolov5n-cls"), tmp_path / "n.pt"))
    for names in (("a", "b", "c"), ("a", "b", "c", "d")):
        model = Classifier(ClassifierPlan(name="yolov5n-cls"), names)
        before = {name: each.clone() for name, each in model.net.state_dict().items()}
        line = take_weights(model, weights)
        after = model.net.state_dict()
        assert torch.equal(after["model.0.conv.weight"], weights.state_dict["model.0.conv.weight"])
        assert torch.equal(after["model.9.linear.weight"], before["model.9.linear.weight"])
        assert "fresh: model.9.linear.weight, model.9.linear.bias" in line
    with pytest.raises(UserError, match="none of its tensors fits resnet18"):
        take_weights(classifier("resnet18"), weights)


def test_a_published_classifier_starts_its_spd_form_as_the_same_function(tmp_path: Path) -> None:
    path = published(classifier("yolov5n-cls"), tmp_path / "yolov5n-cls.pt")
    plain = load_classifier(path)
    spd = Classifier(ClassifierPlan(name="yolov5n-spd-cls"), NAMES).eval()
    line = take_weights(spd, read_classifier(path))
    assert "fresh" not in line
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(spd(x), plain(x), rtol=1e-3, atol=1e-4)
    back = Classifier(ClassifierPlan(name="yolov5n-cls"), NAMES)
    small = ClassifierWeights(spd.plan, NAMES, spd.net.state_dict(), path)
    assert "fresh: model.0.conv.weight" not in take_weights(back, small)  # the stem's kernel has as many taps
    assert "fresh: model.1.conv.weight" in take_weights(back, small)


@needs_shared
def test_a_detector_gives_its_backbone() -> None:
    weights = read_start(SHARED / "weights" / "yolov5n.pt")
    assert weights.plan.name == "yolov5n-cls" and weights.names == ()
    for name in ("yolov5n-cls", "yolov5n-spd-cls"):
        model = Classifier(ClassifierPlan(name=name), NAMES)
        line = take_weights(model, weights)
        assert "fresh: model.9.conv.conv.weight" in line
        taken = model.net.state_dict()["model.2.cv1.conv.weight"]
        assert torch.equal(taken, weights.state_dict["model.2.cv1.conv.weight"])
    with pytest.raises(UserError, match="none of yolov5n to yolov5x"):
        read_start(SHARED / "weights" / "spd_released_format_n.pt")

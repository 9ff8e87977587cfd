"""The anchor-free head: decoding worked by hand, its place in architectures, YOLOv5u's files."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.architecture import Architecture
from models.fuse import fused
from models.head import AnchorFreeDetect
from models.transfer import transfer_weights
from models.weights import build_model, checkpoint_fields, load_model, read_weights
from models.yolo import DetectionModel, load_architecture
from tests.models.pickled_fixtures import instance, pickled_detector, pickled_module, write_zip
from utils.geometry.boxes import xyxy_to_cxcywh
from utils.geometry.records import HeadMaps
from utils.user_error import UserError

needs_ultralytics = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None,
    reason="ultralytics, which writes YOLOv5u's files, is not installed",
)


def head() -> AnchorFreeDetect:
    return AnchorFreeDetect(3, (8, 16), (8, 16))


def test_maps_have_four_distributions_and_the_classes_per_cell() -> None:
    maps = head()([torch.zeros(2, 8, 5, 7), torch.zeros(2, 16, 3, 4)])
    assert [tuple(level.shape) for level in maps.levels] == [(2, 1, 5, 7, 67), (2, 1, 3, 4, 67)]


def test_decoding_by_hand() -> None:
    levels = (torch.full((1, 1, 2, 3, 67), -50.0), torch.full((1, 1, 1, 2, 67), -50.0))
    cell = levels[0][0, 0, 1, 2]  # row 1, column 2: its centre is (20, 12)
    for side, bins in enumerate(((1,), (0, 1), (15,), (3,))):
        for number in bins:
            cell[16 * side + number] = 0  # all of the distribution, shared evenly
    cell[64:] = torch.tensor([math.log(3), 0, -50])
    predictions = head().decode(HeadMaps(levels))
    row = 1 * 3 + 2
    assert predictions.boxes.shape == (1, 2 * 3 + 2, 4)
    assert predictions.boxes[0, row].tolist() == pytest.approx([20 - 8, 12 - 4, 20 + 15 * 8, 12 + 3 * 8], abs=1e-3)
    assert predictions.objectness[0].tolist() == [1.0] * 8
    assert predictions.class_probs[0, row].tolist() == pytest.approx([0.75, 0.5, 0], abs=1e-6)
    # Where all logits are equal a distance is 7.5 cells.
    assert predictions.boxes[0, 6].tolist() == pytest.approx([8 - 120, 8 - 120, 8 + 120, 8 + 120], abs=1e-3)


def test_rows_are_the_predictions_in_the_layout_of_exported_files() -> None:
    torch.manual_seed(0)
    maps = HeadMaps((torch.randn(2, 1, 4, 3, 67), torch.randn(2, 1, 2, 2, 67)))
    rows, predictions = head().rows(maps), head().decode(maps)
    torch.testing.assert_close(rows[..., :4], xyxy_to_cxcywh(predictions.boxes))
    assert torch.equal(rows[..., 4], predictions.objectness) and torch.equal(rows[..., 5:], predictions.class_probs)


def test_priors_of_a_fresh_head() -> None:
    fresh = AnchorFreeDetect(80, (64, 128), (8, 16))
    boxes, classes = fresh.cv2[0], fresh.cv3[1]
    assert isinstance(boxes, nn.Sequential) and isinstance(classes, nn.Sequential)
    last, classifying = boxes[-1], classes[-1]
    assert isinstance(last, nn.Conv2d) and isinstance(classifying, nn.Conv2d)
    assert last.bias is not None and torch.equal(last.bias, torch.ones(64))
    assert classifying.bias is not None and classifying.bias.tolist() == pytest.approx([math.log(5 / 80 / 1600)] * 80)


def test_the_channels_inside_the_branches_may_be_given() -> None:
    values = load_architecture("yolov5n-u").as_dict()
    values["head"][-1][-1] = ["nc", 128, 3]  # a quarter of 128: the nano model's width multiple
    model = DetectionModel(Architecture.from_dict(values), class_count=3)
    assert isinstance(model.head, AnchorFreeDetect)
    branches = [*model.head.cv2, *model.head.cv3]
    inner = [[each.out_channels for each in branch.modules() if isinstance(each, nn.Conv2d)] for branch in branches]
    assert inner == [[32, 32, 32, 64]] * 3 + [[32, 32, 32, 3]] * 3
    again = DetectionModel(Architecture.from_dict(model.architecture.as_dict()), class_count=3)
    again.load_state_dict(model.state_dict())  # a checkpoint's architecture keeps it


@pytest.mark.parametrize(
    ("arguments", "joined"),
    [([32], True), ([64, 1], True), ([48, 3], True), ([None, 0], True), ([], False)],
)
def test_the_joined_branches_answer_as_both_do(arguments: list[int | None], joined: bool) -> None:
    """With 80 classes the branches of YOLOv5u are 64 and 80 channels wide and stay two."""
    torch.manual_seed(0)
    values = load_architecture("yolov5n-u").as_dict()
    values["head"][-1][-1] = ["nc", *arguments]
    model = DetectionModel(Architecture.from_dict(values), class_count=80).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean = torch.randn(norm.num_features)
            norm.running_var = torch.rand(norm.num_features) + 0.5
    quick, images = fused(model), torch.rand(2, 3, 64, 96)
    assert isinstance(quick.head, AnchorFreeDetect) and (quick.head.joined is not None) is joined
    with torch.inference_mode():
        for found, wanted in zip(quick(images).levels, model(images).levels, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_an_architecture_without_anchors() -> None:
    architecture = load_architecture("yolov5n-u")
    model = DetectionModel(architecture, class_count=2).eval()
    assert architecture.anchors == 0 and model.anchors.shape == (3, 0, 2) and model.strides == (8, 16, 32)
    assert model.predict(torch.rand(1, 3, 64, 96)).boxes.shape == (1, 96 + 24 + 6, 4)
    values = architecture.as_dict()
    assert Architecture.from_dict(values) == Architecture.from_dict(values | {"anchors": None})
    with pytest.raises(UserError, match="anchors are 3, but AnchorFreeDetect has none"):
        Architecture.from_dict(values | {"anchors": 3})
    with_anchors = load_architecture("yolov5n").as_dict()
    del with_anchors["anchors"]
    with pytest.raises(UserError, match="key 'anchors' is missing"):
        Architecture.from_dict(with_anchors)


def test_a_checkpoint_keeps_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DetectionModel(load_architecture("yolov5n-spd-u"), names=("a", "b")).eval()
    torch.save(checkpoint_fields(model), tmp_path / "u.pt")
    images, again = torch.rand(1, 3, 64, 64), load_model(tmp_path / "u.pt")
    with torch.inference_mode():
        before, after, folded = model.predict(images), again.predict(images), fused(again).predict(images)
    assert torch.equal(before.boxes, after.boxes) and torch.equal(before.class_probs, after.class_probs)
    torch.testing.assert_close(folded.boxes, before.boxes, rtol=0, atol=1e-3)


def test_weights_of_a_model_with_anchors_fill_the_body(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(checkpoint_fields(DetectionModel(load_architecture("yolov5n"))), tmp_path / "v5.pt")
    for name, taken in (("yolov5n-u", 342), ("yolov5n-spd-u", 342)):
        model = DetectionModel(load_architecture(name), class_count=3)
        report = transfer_weights(model, read_weights(tmp_path / "v5.pt"))
        assert len(report.taken) == taken and not report.exact
        assert {int(tensor.split(".")[1]) for tensor in report.left} == {24}


def test_the_head_is_taken_by_class_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = DetectionModel(load_architecture("yolov5n-u"), names=("a", "b", "c"))
    torch.save(checkpoint_fields(source), tmp_path / "u.pt")
    weights = read_weights(tmp_path / "u.pt")
    model = DetectionModel(load_architecture("yolov5n-u"), names=("c", "d"))
    fresh = model.state_dict()["model.24.cv3.0.2.weight"].clone()
    report = transfer_weights(model, weights)
    assert report.left == () and not report.exact
    state, old = model.state_dict(), source.state_dict()
    assert torch.equal(state["model.24.cv3.0.2.weight"][0], old["model.24.cv3.0.2.weight"][2])
    assert torch.equal(state["model.24.cv3.0.2.weight"][1], fresh[1])
    same = transfer_weights(DetectionModel(load_architecture("yolov5n-u"), names=("a", "b", "c")), weights)
    assert same.exact and same.left == ()
    # With 80 classes the hidden layers of the class branch are wider: the boxes' branch is taken alone.
    wide = transfer_weights(DetectionModel(load_architecture("yolov5n-u")), weights)
    assert any(".cv2." in name for name in wide.taken) and not any(".cv3.0." in name for name in wide.taken)


@needs_ultralytics
def test_a_file_of_yolov5u_gives_its_boxes(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import DetectionModel as Foreign

    torch.manual_seed(0)
    foreign = Foreign("yolov5n.yaml", ch=3, nc=80, verbose=False)
    for layer in foreign.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
            layer.weight.data.uniform_(0.5, 1.5)
    foreign.half().float().eval()
    images = torch.rand(2, 3, 96, 128)
    with torch.no_grad():
        answer = foreign(images)
    rows = (answer[0] if isinstance(answer, (tuple, list)) else answer).transpose(1, 2)
    torch.save({"epoch": -1, "model": foreign.half(), "ema": None, "train_args": {"imgsz": 640}}, tmp_path / "u.pt")
    model = load_model(tmp_path / "u.pt")
    assert len(model.names) == 80
    with torch.inference_mode():
        found = model.predict(images)
    torch.testing.assert_close(xyxy_to_cxcywh(found.boxes), rows[..., :4], rtol=0, atol=1e-3)
    torch.testing.assert_close(found.class_probs, rows[..., 4:], rtol=0, atol=1e-5)


def test_a_file_written_as_yolov5u_does_opens_without_its_program(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DetectionModel(load_architecture("yolov5n-u"), names=("a", "b")).half().float().eval()
    module = pickled_detector(model, root="ultralytics.nn.tasks.DetectionModel")
    pickled_head = list(module.__dict__["_modules"]["model"].__dict__["_modules"].values())[-1]
    type(pickled_head).label = "ultralytics.nn.modules.head.Detect"
    pickled_head.__dict__["_buffers"].clear()
    numbers = nn.Conv2d(16, 1, 1, bias=False)
    pickled_head.__dict__["_modules"]["dfl"] = instance(
        "ultralytics.nn.modules.block.DFL", _modules={"conv": pickled_module(numbers)}
    )
    values = model.architecture.as_dict()
    module.__dict__["yaml"] = {
        "nc": 2,
        "scales": {"n": [0.33, 0.25, 1024], "s": [0.33, 0.5, 1024]},
        "scale": "n",
        "backbone": values["backbone"],
        "head": [*values["head"][:-1], [*values["head"][-1][:2], "Detect", ["nc"]]],
    }
    write_zip({"model": module, "ema": None, "train_args": {}}, tmp_path / "u.pt")
    weights = read_weights(tmp_path / "u.pt")
    assert weights.architecture.width_multiple == 0.25 and weights.anchors.shape == (3, 0, 2)
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(build_model(weights).predict(images).boxes, model.predict(images).boxes)
    module.__dict__["yaml"]["scales"]["n"][2] = 512
    write_zip({"model": module}, tmp_path / "narrow.pt")
    with pytest.raises(UserError, match=r"narrow\.pt: a layer of 1024 channels, limited to 512"):
        read_weights(tmp_path / "narrow.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": ["n"]}, "key 'anchors' is missing|no strides or no anchors|weights and architecture"),
        ({"scales": {"n": [0.33, 0.25, "wide"]}}, ""),
        ({"backbone": 7}, "backbone is 7"),
        ({"head": 7}, "key 'anchors' is missing"),
        ({"backbone": [[-1, 1, "Conv", 64]]}, "arguments are 64"),
    ],
)
def test_mistakes_in_a_file_of_yolov5u_are_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    values = load_architecture("yolov5n-u").as_dict()
    plain = {"nc": 80, "scales": {"n": [0.33, 0.25, 1024]}, "scale": "n"}
    module = instance(
        "ultralytics.nn.tasks.DetectionModel",
        yaml={**plain, "backbone": values["backbone"], "head": values["head"], **change},
        stride=torch.tensor([8.0, 16.0, 32.0]),
        names=["a"],
        _modules={},
    )
    write_zip({"model": module}, tmp_path / "u.pt")
    with pytest.raises(UserError, match=message) as found:
        build_model(read_weights(tmp_path / "u.pt"))
    assert "\n" not in str(found.value)

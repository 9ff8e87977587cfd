"""The loss: parts worked by hand, closure with the decoder, parity with the original program's figures."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models.weights import load_model
from models.yolo import DetectionModel, find_architecture, read_architecture
from tests.batches import batch_of
from tests.shared_data import SHARED, needs_shared
from utils.config.hyperparameters import Hyperparameters
from utils.geometry.boxes import cxcywh_to_xyxy, wasserstein_closeness
from utils.geometry.records import Batch, HeadMaps
from utils.loss.detection_loss import DetectionLoss, LossGains
from utils.training.optimizer import parameter_groups

GAINS = LossGains.from_hyperparameters(Hyperparameters())
ONE_LEVEL = torch.tensor([[[16.0, 16.0]]])  # (L 1, A 1, 2)


def one_level_loss(class_count: int, gains: LossGains = GAINS) -> DetectionLoss:
    loss = DetectionLoss(ONE_LEVEL, (8,), class_count, gains)
    loss.balance = (1.0,)
    return loss


def test_parts_worked_by_hand() -> None:
    # One 16 x 16 object centred in cell (2, 2) of a 4 x 4 grid: exactly what zero logits decode to, so IoU is 1.
    batch = batch_of([np.array([[12, 12, 28, 28]])], [[1]], height=32, width=32)
    maps = HeadMaps((torch.zeros(1, 1, 4, 4, 5 + 3),))
    parts = one_level_loss(3)(maps, batch)
    assert parts.box.item() == pytest.approx(0.0, abs=1e-6)
    # 16 cells at probability 1/2: cross-entropy log 2 whatever the target.
    assert parts.objectness.item() == pytest.approx(math.log(2), rel=1e-6)
    assert parts.classification.item() == pytest.approx(0.5 * math.log(2), rel=1e-6)
    assert parts.total.item() == pytest.approx(1.5 * math.log(2), rel=1e-6)


def test_wasserstein_share_worked_by_hand() -> None:
    # Zero logits decode to the box of 16 x 16 around (20, 20). The object: 8 x 8 around (19, 20), inside it.
    batch = batch_of([np.array([[15, 16, 23, 24]])], [[0]], height=32, width=32)
    loss = one_level_loss(1, replace(GAINS, box=1.0, wasserstein=0.25, wasserstein_size=5.0))
    logits = torch.zeros(1, 1, 4, 4, 6, requires_grad=True)
    parts = loss(HeadMaps((logits,)), batch)
    # CIoU: 64 / 256 - 1 / (16^2 + 16^2), equal shapes. Distance: (1, 0) and half of (8, 8): sqrt(1 + 16 + 16).
    own = 0.25 - 1 / 512
    near = math.exp(-math.sqrt(33) / 5)
    # Column 19 / 8 = 2.375: the cell to the left learns it too. Its box is around (12, 20): 5 x 8 of 256 + 64 - 40 are
    # shared, the enclosing box is 19 x 16, the centres are 7 apart.
    left = 40 / 280 - 49 / (19**2 + 16**2)
    far = math.exp(-math.sqrt(49 + 16 + 16) / 5)
    nearness = [0.75 * own + 0.25 * near, 0.75 * left + 0.25 * far]
    assert parts.box.item() == pytest.approx(1 - sum(nearness) / 2, rel=1e-5)
    parts.objectness.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    found = (0.5 - 16 * logits.grad[0, 0, 2, 1:3, 4]).tolist()
    assert found == pytest.approx([nearness[1], nearness[0]], abs=1e-5)


def test_without_a_share_the_loss_is_ciou_to_the_bit() -> None:
    torch.manual_seed(0)
    batch = batch_of([np.array([[2, 3, 20, 17], [12, 12, 28, 28]])], [[0, 1]], height=32, width=32)
    maps = HeadMaps((torch.randn(1, 1, 4, 4, 8),))
    plain, sized = (one_level_loss(3, each)(maps, batch) for each in (GAINS, replace(GAINS, wasserstein_size=1.0)))
    assert all(torch.equal(one, other) for one, other in zip(plain, sized, strict=True))
    assert not torch.equal(one_level_loss(3, replace(GAINS, wasserstein=0.5))(maps, batch).box, plain.box)


def test_a_wasserstein_share_pulls_a_box_that_does_not_touch_its_object() -> None:
    """CIoU alone has a gradient for the centre only; a side that is far too large is not seen from outside."""
    wanted, found = torch.tensor([[40.0, 8.0, 4.0, 4.0]]), torch.tensor([[8.0, 8.0, 4.0, 8.0]], requires_grad=True)
    wasserstein_closeness(found, wanted, 12.8).sum().backward()  # type: ignore[no-untyped-call]
    assert found.grad is not None
    x, y, w, h = found.grad[0].tolist()
    assert x > 0 and y == 0 and w == 0 and h < 0


def test_no_objects_leaves_only_objectness() -> None:
    batch = batch_of([np.zeros((0, 4))], height=32, width=32)
    parts = one_level_loss(3)(HeadMaps((torch.full((1, 1, 4, 4, 8), -2.0),)), batch)
    assert parts.box.item() == 0 and parts.classification.item() == 0
    assert parts.objectness.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)


def test_of_two_objects_at_one_place_the_last_sets_the_objectness_target() -> None:
    loss = one_level_loss(1, replace(GAINS, box=0.0))
    exact, small = [12.0, 12, 28, 28], [16.0, 16, 24, 24]  # both in cell (2, 2); IoU with the prediction 1 and 1/4
    goals = []
    for boxes in ([exact, small], [small, exact]):
        batch = batch_of([np.array(boxes)], height=32, width=32)
        # With logits 0 the gradient of mean BCE is (1/2 - target) / 16.
        logits = torch.zeros(1, 1, 4, 4, 6, requires_grad=True)
        loss(HeadMaps((logits,)), batch).objectness.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        goals.append(0.5 - 16 * logits.grad[0, 0, 2, 2, 4].item())
    assert goals == pytest.approx([0.25, 1.0], abs=1e-3)


def test_focal_term_worked_by_hand() -> None:
    batch = batch_of([np.zeros((0, 4))], height=32, width=32)
    parts = one_level_loss(3, replace(GAINS, focal_gamma=2.0))(HeadMaps((torch.zeros(1, 1, 4, 4, 8),)), batch)
    assert parts.objectness.item() == pytest.approx(math.log(2) * 0.75 * 0.25, rel=1e-6)


def test_gains_scale_with_levels_classes_and_size() -> None:
    scaled = GAINS.scaled(levels=4, class_count=20, imgsz=320)
    assert scaled.box == pytest.approx(0.05 * 3 / 4)
    assert scaled.objectness == pytest.approx(1.0 / 4 * 3 / 4)
    assert scaled.classification == pytest.approx(0.5 * 20 / 80 * 3 / 4)


def test_ideal_logits_at_the_assigned_places_decode_to_the_object() -> None:
    """Assign -> write ideal logits -> decode gives the box back, on every level and for every class."""
    torch.manual_seed(0)
    model = small_model()
    centres = torch.tensor([[40.0, 44.0], [101.0, 70.5], [64.0, 64.0]])
    sizes = torch.tensor([[12.0, 15.0], [40.0, 60.0], [100.0, 90.0]])
    boxes = cxcywh_to_xyxy(torch.cat((centres, sizes), 1))
    batch = batch_of([boxes.numpy()], [[0, 1, 2]], height=128, width=128)
    maps = model(batch.images)
    loss = DetectionLoss(model.anchors, model.strides, model.class_count, GAINS)

    targets = loss.targets(maps, batch)
    sides = (targets.boxes_cells[:, 2:] / targets.anchors_cells).sqrt() / 2
    inner = targets.by_level(torch.cat(((targets.boxes_cells[:, :2] + 0.5) / 2, sides), 1))
    own_classes = targets.by_level(targets.classes)
    levels, expected = [], []
    for level, place in enumerate(targets.places_by_level()):
        ideal = torch.full_like(maps.levels[level], -20.0).detach()
        image, anchor, row, column = place
        ideal[image, anchor, row, column, :4] = torch.logit(inner[level].clamp(1e-6, 1 - 1e-6))
        ideal[image, anchor, row, column, 4] = 20.0
        ideal[image, anchor, row, column, 5 + own_classes[level]] = 20.0
        levels.append(ideal)
        expected.append(torch.unique(torch.stack(place), dim=1).shape[1])
    predictions = model.decode(HeadMaps(tuple(levels)))
    found = predictions.objectness[0] > 0.5
    assert int(found.sum()) == sum(expected) > 3
    got = predictions.boxes[0][found]
    classes = predictions.class_probs[0][found].argmax(1)
    torch.testing.assert_close(got, boxes[classes], rtol=0, atol=0.02)
    assert set(classes.tolist()) == {0, 1, 2}


def small_model() -> DetectionModel:
    return DetectionModel(read_architecture(find_architecture("yolov5n.yaml")), class_count=3, names=("a", "b", "c"))


# ---------------------------------------------------------------------------------------------------------------------
# Parity with the figures of the original program


def reference() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SHARED / "reference" / "yolov5n_loss.json").read_text())
    return content


def reference_batch() -> Batch:
    file = np.load(SHARED / "reference" / "yolov5n_forward.npz")
    images, rows = file["images"], file["targets"]
    boxes = cxcywh_to_xyxy(torch.from_numpy(rows[:, 2:].astype(np.float32)) * 320).numpy()
    per_image = [boxes[rows[:, 0] == i] for i in range(len(images))]
    classes = [rows[rows[:, 0] == i, 1].astype(int).tolist() for i in range(len(images))]
    batch = batch_of(per_image, classes, height=320, width=320)
    return replace(batch, images=torch.from_numpy(images).float() / 255)


def reference_gains(setting: str, hyp: dict[str, float]) -> LossGains:
    changes = dict(pair.split("=") for pair in setting.split(",")) if "=" in setting else {}
    known = set(Hyperparameters.__slots__)
    values = {k: v for k, v in hyp.items() if k in known} | {k: float(v) for k, v in changes.items()}
    return LossGains.from_hyperparameters(Hyperparameters(**values))  # type: ignore[arg-type]


@needs_shared
@pytest.mark.parametrize(
    "setting", ["default", "label_smoothing=0.1", "fl_gamma=1.5", "anchor_t=2", "cls_pw=2,obj_pw=1.5", "no targets"]
)
def test_loss_equals_the_original(setting: str) -> None:
    figures = reference()
    assert setting in figures["loss"] and len(figures["loss"]) == 6
    model = load_model(SHARED / "weights" / "yolov5n.pt")
    batch = reference_batch()
    if setting == "no targets":
        batch = replace(batch, boxes=batch.boxes[:0], classes=batch.classes[:0], image_index=batch.image_index[:0])
    loss = DetectionLoss(model.anchors, model.strides, 80, reference_gains(setting, figures["hyp"]))
    with torch.no_grad():
        parts = loss(model(batch.images), batch)
    expected = figures["loss"][setting]
    got = {"box": parts.box, "obj": parts.objectness, "cls": parts.classification, "total": parts.total * 3}
    for name, value in got.items():
        assert value.item() == pytest.approx(expected[name], rel=1e-5), name


@needs_shared
def test_gradients_positives_and_groups_equal_the_original() -> None:
    figures = reference()
    model = load_model(SHARED / "weights" / "yolov5n.pt").requires_grad_(True)
    batch = reference_batch()
    loss = DetectionLoss(model.anchors, model.strides, 80, reference_gains("default", figures["hyp"]))
    maps = model(batch.images)
    assert list(loss.targets(maps, batch).counts) == figures["positives_per_level"]

    (loss(maps, batch).total * 3).backward()  # type: ignore[no-untyped-call]
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    assert set(norms) == set(figures["grad_norms"])
    for name, expected in figures["grad_norms"].items():
        assert norms[name] == pytest.approx(expected, rel=1e-3), name

    groups = [(len(group), sum(p.numel() for p in group)) for group in parameter_groups(model)]
    assert groups == [(group["n"], group["numel"]) for group in figures["optimizer_groups"]]


@pytest.mark.parametrize("images", [1, 3])
def test_the_memory_order_of_the_maps_changes_nothing(images: int) -> None:
    """In training a map is a view of a channels_last convolution's output."""
    torch.manual_seed(0)
    loss = DetectionLoss(torch.tensor([[[16.0, 16.0], [8.0, 10.0]]]), (8,), 2, GAINS)
    loss.balance = (1.0,)
    batch = batch_of([np.array([[4, 4, 20, 28], [12.0, 12, 28, 28]])] * images, height=32, width=32)
    dense = torch.randn(images, 2, 4, 4, 7, requires_grad=True)
    convolved = dense.detach().permute(0, 1, 4, 2, 3).reshape(images, 14, 4, 4)
    convolved = convolved.contiguous(memory_format=torch.channels_last).requires_grad_()
    view = convolved.view(images, 2, 7, 4, 4).permute(0, 1, 3, 4, 2)
    totals = [loss(HeadMaps((maps,)), batch).total for maps in (dense, view)]
    for total in totals:
        total.backward()  # type: ignore[no-untyped-call]
    assert totals[0].item() == pytest.approx(totals[1].item(), rel=1e-6)
    assert dense.grad is not None and convolved.grad is not None
    expected = dense.grad.permute(0, 1, 4, 2, 3).reshape(images, 14, 4, 4)
    torch.testing.assert_close(convolved.grad, expected)
    assert convolved.grad.abs().sum() > 0

"""Suppression: rows of the original program, cases worked by hand, the shortcut against the whole list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.same_detections import assert_same_detections
from tests.shared_data import SHARED, needs_shared
from utils.geometry.boxes import cxcywh_to_xyxy, pairwise_iou
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections, Predictions
from utils.inference import nms as nms_module
from utils.inference.nms import NmsSettings, non_max_suppression

SIZE = FrameSize(320, 320)
MODES = {
    "val": NmsSettings(0.001, 0.6, 300, multi_label=True),
    "detect": NmsSettings(0.25, 0.45, 300),
}


def predictions(boxes: list[list[float]], objectness: list[float], probs: list[list[float]]) -> Predictions:
    return Predictions(torch.tensor([boxes]), torch.tensor([objectness]), torch.tensor([probs]))


def rows(found: Detections) -> list[tuple[float, ...]]:
    table = torch.cat((found.boxes, found.scores[:, None], found.classes[:, None].float()), dim=1)
    return [tuple(row) for row in table.tolist()]


@needs_shared
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("mode", ["val", "detect"])
def test_gives_the_rows_of_the_original_program(mode: str, agnostic: bool) -> None:
    with np.load(SHARED / "reference" / "yolov5n_forward.npz") as reference:
        decoded = torch.from_numpy(reference["decoded"])
        prefix = f"nms_{mode}_agnostic" if agnostic else f"nms_{mode}"
        expected = [reference[f"{prefix}_{k}"] for k in range(3)]
    given_predictions = Predictions(cxcywh_to_xyxy(decoded[..., :4]), decoded[..., 4], decoded[..., 5:])
    chosen = NmsSettings(
        MODES[mode].conf_thres, MODES[mode].iou_thres, 300, multi_label=MODES[mode].multi_label, agnostic=agnostic
    )
    for found, wanted in zip(non_max_suppression(given_predictions, chosen, SIZE), expected, strict=True):
        assert len(found) > 0
        assert_same_detections(rows(found), wanted, box=1e-3, score=1e-6)


def test_the_better_of_two_overlapping_boxes_stays() -> None:
    # IoU of the first two: 90 / 110 = 0.818; the third lies apart.
    found = non_max_suppression(
        predictions(
            [[0, 0, 10, 10], [0, 1, 10, 11], [50, 50, 60, 60]],
            [0.5, 0.9, 0.8],
            [[0.9, 0.1], [0.9, 0.2], [0.1, 0.5]],
        ),
        NmsSettings(0.25, 0.45, 10),
        SIZE,
    )[0]
    assert found.boxes.tolist() == [[0, 1, 10, 11], [50, 50, 60, 60]]
    torch.testing.assert_close(found.scores, torch.tensor([0.81, 0.40]))
    assert found.classes.tolist() == [0, 1]
    assert found.classes.dtype == torch.int64
    assert found.size == SIZE


def test_classes_suppress_each_other_only_when_agnostic() -> None:
    two = predictions([[0, 0, 10, 10], [0, 0, 10, 10]], [1.0, 1.0], [[0.9, 0.0], [0.0, 0.8]])
    assert non_max_suppression(two, NmsSettings(0.25, 0.45, 10), SIZE)[0].classes.tolist() == [0, 1]
    assert non_max_suppression(two, NmsSettings(0.25, 0.45, 10, agnostic=True), SIZE)[0].classes.tolist() == [0]


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_box_below_its_classs_own_threshold_is_not_there(multi_label: bool) -> None:
    """Two boxes in one place and a third: that of class 0 scores most, but too little for its class."""
    found = predictions(
        [[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]], [1, 1, 1], [[0.6, 0.1], [0.1, 0.5], [0.1, 0.3]]
    )
    limits = NmsSettings(0.4, 0.5, 10, multi_label=multi_label, agnostic=True, class_thres=(0.7, 0.4))
    (kept,) = non_max_suppression(found, limits, FrameSize(64, 64))
    assert rows(kept) == [(0, 0, 10, 10, 0.5, 1)]


def test_multi_label_gives_every_class_above_the_threshold() -> None:
    one = predictions([[0, 0, 10, 10]], [0.5], [[0.8, 0.6, 0.4]])  # scores 0.4, 0.3, 0.2
    found = non_max_suppression(one, NmsSettings(0.25, 0.45, 10, multi_label=True), SIZE)[0]
    assert found.classes.tolist() == [0, 1]
    assert non_max_suppression(one, NmsSettings(0.25, 0.45, 10), SIZE)[0].classes.tolist() == [0]


def test_objectness_has_to_pass_the_threshold_and_the_score_too() -> None:
    three = predictions([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]], [0.25, 0.9, 0.9], [[1.0], [0.2], [0.5]])
    found = non_max_suppression(three, NmsSettings(0.25, 0.45, 10), SIZE)[0]
    torch.testing.assert_close(found.scores, torch.tensor([0.45]))


def test_chosen_classes_only_and_no_more_than_asked_for() -> None:
    boxes = [[20.0 * i, 0, 20.0 * i + 9, 9] for i in range(4)]
    four = predictions(boxes, [0.9, 0.8, 0.7, 0.6], [[1.0, 0], [0, 1.0], [1.0, 0], [1.0, 0]])
    found = non_max_suppression(four, NmsSettings(0.25, 0.45, 2, classes=(0,)), SIZE)[0]
    assert found.boxes[:, 0].tolist() == [0, 40]


def test_nothing_found_is_an_empty_result_of_the_right_shape() -> None:
    found = non_max_suppression(predictions([[0, 0, 9, 9]], [float("nan")], [[1.0]]), MODES["val"], SIZE)[0]
    assert (found.boxes.shape, found.scores.shape, found.classes.shape) == ((0, 4), (0,), (0,))


def test_only_the_best_candidates_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nms_module, "MAX_CANDIDATES", 2)
    boxes = [[20.0 * i, 0, 20.0 * i + 9, 9] for i in range(4)]
    four = predictions(boxes, [0.6, 0.9, 0.7, 0.8], [[1.0]] * 4)
    found = non_max_suppression(four, MODES["detect"], SIZE)[0]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8]))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0.1, 0.9))
def test_equals_the_definition_of_greedy_suppression(seed: int, max_det: int, iou_thres: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(120, 2, generator=generator) * 60
    boxes = torch.cat((corner, corner + 5 + torch.rand(120, 2, generator=generator) * 30), dim=1)
    scores = (torch.randperm(120, generator=generator) + 1) / 121  # no two alike
    overlap = pairwise_iou(boxes, boxes)
    # Two ways to compute an overlap may fall on different sides of a threshold that lies on it.
    assume(float((overlap - iou_thres).abs().min()) > 1e-6 and float((scores - 0.1).abs().min()) > 1e-6)
    chosen = NmsSettings(0.1, iou_thres, max_det)
    found = non_max_suppression(Predictions(boxes[None], scores[None], torch.ones(1, 120, 1)), chosen, SIZE)[0]

    expected: list[int] = []
    for candidate in scores.argsort(descending=True).tolist():
        if scores[candidate] > 0.1 and all(overlap[candidate, kept] <= iou_thres for kept in expected):
            expected.append(candidate)
    torch.testing.assert_close(found.boxes, boxes[expected[:max_det]], rtol=0, atol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.booleans(), st.sampled_from([None, (0,), (1, 2)]))
def test_images_of_a_batch_do_not_change_each_other(
    seed: int, multi_label: bool, agnostic: bool, classes: tuple[int, ...] | None
) -> None:
    """As on a GPU, where the candidates of all images are found together: each image as if it were alone."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(3, 40, 2, generator=generator) * 60
    boxes = torch.cat((corner, corner + 5 + torch.rand(3, 40, 2, generator=generator) * 30), dim=2)
    objectness = torch.rand(3, 40, generator=generator)
    objectness[seed % 3] = 0  # an image without candidates, in any place
    given_predictions = Predictions(boxes, objectness, torch.rand(3, 40, 4, generator=generator))
    chosen = NmsSettings(0.2, 0.5, 10, multi_label, agnostic, classes)
    together = nms_module._suppress_batch(given_predictions, chosen, SIZE)
    alone = non_max_suppression(given_predictions, chosen, SIZE)
    assert [rows(found) for found in together] == [rows(found) for found in alone]
    assert len(together[seed % 3]) == 0


@pytest.mark.parametrize("suppress", [non_max_suppression, nms_module._suppress_batch])
def test_it_is_told_once_when_the_predictions_are_there(suppress: Any) -> None:
    told: list[int] = []
    one = predictions([[0, 0, 9, 9]], [0.9], [[1.0]])
    two = Predictions(*(torch.cat((part, part)) for part in one))
    assert len(suppress(two, MODES["detect"], SIZE, lambda: told.append(1))) == 2
    assert told == [1]


def test_a_score_that_has_overflown_is_no_detection() -> None:
    two = predictions([[0, 0, 9, 9], [20, 0, 29, 9]], [0.9, 0.9], [[float("inf")], [0.5]])
    found = non_max_suppression(two, NmsSettings(0.25, 0.45, 10), SIZE)[0]
    assert found.boxes.tolist() == [[20, 0, 29, 9]]

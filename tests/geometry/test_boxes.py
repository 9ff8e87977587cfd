"""Box formulas, with numbers worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.geometry.boxes import (
    box_area,
    clip_boxes,
    complete_iou,
    cxcywh_to_xyxy,
    intersection,
    pairwise_iou,
    wasserstein_closeness,
    xyxy_to_cxcywh,
    xyxy_to_xywh,
)

BOX = np.array([[10.0, 20.0, 40.0, 30.0]])


def test_layouts() -> None:
    np.testing.assert_array_equal(xyxy_to_cxcywh(BOX), [[25, 25, 30, 10]])
    np.testing.assert_array_equal(xyxy_to_xywh(BOX), [[10, 20, 30, 10]])
    np.testing.assert_array_equal(box_area(BOX), [300])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 2, *[st.floats(0, 1e4)] * 2), max_size=5))
def test_layouts_lead_back_in_both_libraries(rows: list[tuple[float, ...]]) -> None:
    centre = np.array(rows, dtype=np.float64).reshape(-1, 4)
    np.testing.assert_allclose(xyxy_to_cxcywh(cxcywh_to_xyxy(centre)), centre, atol=1e-9)
    np.testing.assert_array_equal(cxcywh_to_xyxy(torch.from_numpy(centre)).numpy(), cxcywh_to_xyxy(centre))


def test_clip_keeps_the_input() -> None:
    box = np.array([[-5.0, 3.0, 70.0, 90.0]])
    np.testing.assert_array_equal(clip_boxes(box, 48, 64), [[0, 3, 64, 48]])
    np.testing.assert_array_equal(clip_boxes(torch.from_numpy(box), 48, 64).numpy(), [[0, 3, 64, 48]])
    assert box[0, 0] == -5


@pytest.mark.parametrize("library", [np.array, torch.tensor])
def test_intersection_by_hand(library: Any) -> None:
    """Half of the box, none of it, a corner of 5 x 2, and touching sides; paired, with one, and of every pair."""
    boxes = library([[0.0, 0.0, 10.0, 10.0], [100.0, 100.0, 110.0, 120.0]])
    others = library([[0.0, 5.0, 10.0, 15.0], [105.0, 118.0, 130.0, 130.0], [10.0, 0.0, 20.0, 10.0]])
    assert intersection(boxes, others[:2]).tolist() == [50, 10]
    assert intersection(boxes, others[0]).tolist() == [50, 0]
    assert intersection(boxes[:, None], others[None]).tolist() == [[50, 0, 0], [0, 10, 0]]


def test_pairwise_iou_by_hand() -> None:
    # Overlap 5 x 10 of two boxes of 100: 50 / 150.
    first = torch.tensor([[0.0, 0, 10, 10]])
    second = torch.tensor([[5.0, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30], [3, 3, 3, 3]])
    torch.testing.assert_close(pairwise_iou(first, second), torch.tensor([[1 / 3, 1.0, 0.0, 0.0]]))


def test_complete_iou_by_hand() -> None:
    # 4 x 2 at (0, 0) against 2 x 4 at (1, 0). Overlap 2 x 2 = 4, union 12: IoU 1/3.
    # Enclosing box: x from -2 to 2, y from -2 to 2, diagonal squared 32; distance squared 1.
    # v = 4/pi^2 (atan(1/2) - atan 2)^2; alpha = v / (1 - IoU + v).
    v = 4 / math.pi**2 * (math.atan(0.5) - math.atan(2)) ** 2
    expected = 1 / 3 - 1 / 32 - v * v / (1 - 1 / 3 + v)
    found = complete_iou(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[1.0, 0, 2, 4]]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_complete_iou_of_equal_and_distant_boxes() -> None:
    box = torch.tensor([[5.0, 5, 4, 2]], dtype=torch.float64)
    assert complete_iou(box, box).item() == pytest.approx(1, abs=1e-6)
    # Same shape 10 to the right: no overlap, enclosing 14 x 2: -(100 / 200).
    far = box + torch.tensor([10.0, 0, 0, 0], dtype=torch.float64)
    assert complete_iou(box, far).item() == pytest.approx(-0.5, abs=1e-6)


def test_wasserstein_closeness_by_hand() -> None:
    # Centres 3 and 4 apart; sides differ by 24 and 0, their halves by 12: sqrt(9 + 16 + 144) = 13.
    one, other = torch.tensor([[10.0, 10, 4, 6]]), torch.tensor([[13.0, 14, 28, 6]])
    assert wasserstein_closeness(one, other, 12.8).item() == pytest.approx(math.exp(-13 / 12.8), rel=1e-6)
    assert wasserstein_closeness(one, other, 13.0).item() == pytest.approx(1 / math.e, rel=1e-6)


BOXES = st.tuples(st.floats(0, 640), st.floats(0, 640), st.floats(0.5, 640), st.floats(0.5, 640))


@settings(max_examples=50, deadline=None)
@given(BOXES, BOXES, st.floats(1, 100), st.floats(0.1, 10))
def test_wasserstein_closeness_of_any_boxes(
    first: tuple[float, ...], second: tuple[float, ...], size: float, zoom: float
) -> None:
    one, other = (torch.tensor([each], dtype=torch.float64) for each in (first, second))
    found = wasserstein_closeness(one, other, size)
    assert 0 <= found.item() <= 1 and torch.equal(found, wasserstein_closeness(other, one, size))
    assert wasserstein_closeness(one, one, size).item() == 1
    # The unit does not matter, as long as the size has it too; where the pair lies neither.
    torch.testing.assert_close(wasserstein_closeness(zoom * one, zoom * other, zoom * size), found)
    moved = torch.tensor([[5.0, -3, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(wasserstein_closeness(one + moved, other + moved, size), found)
    farther = other + torch.tensor([[math.copysign(1, second[0] - first[0]), 0, 0, 0]], dtype=torch.float64)
    assert wasserstein_closeness(one, farther, size) <= found


def test_the_gradient_of_equal_boxes_is_zero_and_finite() -> None:
    box = torch.tensor([[5.0, 5, 4, 2]], requires_grad=True)
    (gradient,) = torch.autograd.grad(wasserstein_closeness(box, box.detach(), 12.8).sum(), box)
    assert torch.equal(gradient, torch.zeros(1, 4))


def test_alpha_is_a_constant_for_the_gradient() -> None:
    predicted = torch.tensor([[0.3, 0.1, 4, 2]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.0, 0, 2, 3]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(complete_iou(predicted, target).sum(), predicted)
    # By hand for the width: d(IoU) - d(rho^2/c^2) - alpha dv, alpha taken out of the derivative.
    step = 1e-6
    with torch.no_grad():
        w_h = predicted[0, 2] / predicted[0, 3]
        v = 4 / math.pi**2 * (math.atan(2 / 3) - math.atan(float(w_h))) ** 2
        overlap, union = 2 * 2.0, 8 + 6 - 4.0
        alpha = v / (v - overlap / union + 1)

        def without_v(width: float) -> float:
            inter = 2.0 * 2
            height_span = max(1.1, 1.5) - min(-0.9, -1.5)
            enclosing = (0.3 + width / 2 - min(0.3 - width / 2, -1)) ** 2 + height_span**2
            return inter / (width * 2 + 6 - inter) - (0.09 + 0.01) / enclosing

        def angle_term(width: float) -> float:
            return 4 / math.pi**2 * (math.atan(2 / 3) - math.atan(width / 2)) ** 2

        slope = (without_v(4 + step) - without_v(4 - step)) / (2 * step)
        slope -= alpha * (angle_term(4 + step) - angle_term(4 - step)) / (2 * step)
    assert gradient[0, 2].item() == pytest.approx(slope, rel=1e-4)

"""The detection head: decoding worked by hand, priors, units."""

from __future__ import annotations

import math

import pytest
import torch

from models.head import Detect
from utils.geometry.records import HeadMaps

ANCHORS = torch.tensor([[[10.0, 13.0], [16.0, 30.0]], [[30.0, 61.0], [62.0, 45.0]]])


def head() -> Detect:
    return Detect(3, (4, 6), (8, 16), ANCHORS)


def test_maps_have_one_logit_row_per_anchor_and_cell() -> None:
    maps = head()([torch.zeros(2, 4, 5, 7), torch.zeros(2, 6, 3, 4)])
    assert [tuple(level.shape) for level in maps.levels] == [(2, 2, 5, 7, 8), (2, 2, 3, 4, 8)]


def test_decoding_by_hand() -> None:
    levels = (torch.full((1, 2, 2, 3, 8), -50.0), torch.full((1, 2, 1, 2, 8), -50.0))
    # Fine level, second anchor, cell row 1, column 2: sigmoid 0.75 for x and w, 0.5 for y and h.
    levels[0][0, 1, 1, 2] = torch.tensor([math.log(3), 0, math.log(3), 0, 0, math.log(3), 0, -50.0])
    predictions = head().decode(HeadMaps(levels))
    row = 1 * 6 + 1 * 3 + 2
    centre_x, centre_y = (2 * 0.75 - 0.5 + 2) * 8, (2 * 0.5 - 0.5 + 1) * 8
    width, height = (2 * 0.75) ** 2 * 16, 30.0
    expected = [centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2]
    assert predictions.boxes.shape == (1, 2 * 6 + 2 * 2, 4)
    assert predictions.boxes[0, row].tolist() == pytest.approx(expected, abs=1e-4)
    assert predictions.objectness[0, row] == pytest.approx(0.5)
    assert predictions.class_probs[0, row].tolist() == pytest.approx([0.75, 0.5, 0.0], abs=1e-6)
    assert predictions.objectness[0].argmax() == row


def test_rows_follow_levels_anchors_rows_columns() -> None:
    levels = (torch.zeros(1, 2, 2, 3, 8), torch.zeros(1, 2, 1, 2, 8))
    centres = head().rows(HeadMaps(levels))[0, :, :2]
    assert centres[:6].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert torch.equal(centres[6:12], centres[:6])
    assert centres[12:14].tolist() == [[8, 8], [24, 8]]


def test_half_precision_logits_are_decoded_in_float32() -> None:
    rows = head().rows(HeadMaps((torch.zeros(1, 2, 2, 3, 8).half(), torch.zeros(1, 2, 1, 2, 8).half())))
    assert rows.dtype == torch.float32


def test_anchors_stay_float32_where_weights_become_half() -> None:
    detect = Detect(3, (4, 6), (8, 16), ANCHORS + 0.01).half()
    assert detect.m[0].get_parameter("weight").dtype == torch.float16
    assert torch.equal(detect.anchors_px, ANCHORS + 0.01)  # float16 has no such numbers
    assert detect.float().anchors.dtype == torch.float32


def test_anchors_are_kept_in_cells_and_given_in_pixels() -> None:
    detect = head()
    assert detect.anchors[0, 0].tolist() == [10 / 8, 13 / 8]
    assert torch.equal(detect.anchors_px, ANCHORS)
    detect.set_anchors(ANCHORS * 2)
    assert detect.anchors[1, 1].tolist() == [62 * 2 / 16, 45 * 2 / 16]
    with pytest.raises(ValueError, match="anchors of shape"):
        detect.set_anchors(ANCHORS[:1])


def test_biases_start_at_the_prior() -> None:
    torch.manual_seed(0)
    detect = Detect(80, (4096, 4096), (8, 16), ANCHORS)  # wide input: the random part of the bias is at most 1/64
    for convolution, stride in zip(detect.m, (8, 16), strict=True):
        bias = convolution.get_parameter("bias").view(2, -1)
        cells = (640 / stride) ** 2
        assert bias[:, 4].sigmoid().tolist() == pytest.approx([8 / cells] * 2, rel=0.03)
        assert bias[:, 5:].exp().mean().item() == pytest.approx(0.6 / 79.00001, rel=0.03)


def test_a_trace_names_no_device_and_gives_the_rows_of_the_model() -> None:
    """A device among a traced graph's constants would bind the file to it; frames of another size have other cells."""
    detect = head().eval()
    levels = tuple(torch.randn(1, 2, *sides, 8) for sides in ((5, 7), (3, 4)))
    with torch.no_grad():
        traced = torch.jit.trace(lambda a, b: detect.rows(HeadMaps((a, b))), levels)  # type: ignore[no-untyped-call]
        other = tuple(torch.randn(2, 2, *sides, 8) for sides in ((4, 6), (2, 3)))
        assert torch.equal(traced(*other), detect.rows(HeadMaps(other)))
    assert "Device = prim::Constant[value=" not in str(traced.inlined_graph)

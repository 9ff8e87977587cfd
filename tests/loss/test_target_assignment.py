"""Matching of objects to anchors and cells, with places worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.batches import batch_of
from utils.loss.target_assignment import assign_targets

ANCHORS = torch.tensor([[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]])


def places(boxes: Sequence[Sequence[float]], anchors: torch.Tensor = ANCHORS) -> list[tuple[int, int, int]]:
    """(anchor, row, column) of one 80 x 64 image at stride 8."""
    batch = batch_of([np.array(boxes, dtype=np.float32)], height=64, width=80)
    targets = assign_targets(batch, anchors, stride=8, grid=(8, 10), anchor_threshold=4.0)
    return list(zip(targets.anchor.tolist(), targets.cell_y.tolist(), targets.cell_x.tolist(), strict=True))


def test_own_cell_left_and_up() -> None:
    # Centre (26, 34) is cell (x 3.25, y 4.25): nearer to the left and upper border of cell (3, 4).
    assert places([[21, 27.5, 31, 40.5]], ANCHORS[:1]) == [(0, 4, 3), (0, 4, 2), (0, 3, 3)]


def test_own_cell_right_and_down() -> None:
    # Centre (30, 38) is cell (x 3.75, y 4.75).
    assert places([[25, 31.5, 35, 44.5]], ANCHORS[:1]) == [(0, 4, 3), (0, 4, 4), (0, 5, 3)]


def test_no_neighbour_outside_the_grid() -> None:
    # Centre (2, 2): the left and upper neighbours would lie outside.
    assert places([[-3, -4.5, 7, 8.5]], ANCHORS[:1]) == [(0, 0, 0)]
    # Centre (78, 62): the right and lower ones would.
    assert places([[73, 55.5, 83, 68.5]], ANCHORS[:1]) == [(0, 7, 9)]


def test_an_anchor_matches_within_a_factor_of_four_on_both_sides() -> None:
    square_of_39 = [[4.5, 4.5, 43.5, 43.5]]  # centre in the middle of a cell at (24, 24): cell 3.0 exactly
    assert {anchor for anchor, _, _ in places(square_of_39)} == {0, 1, 2}
    square_of_41 = [[3.5, 3.5, 44.5, 44.5]]  # wider than 4 x 10
    assert {anchor for anchor, _, _ in places(square_of_41)} == {1, 2}
    thin = [[20, 8, 23, 40]]  # 3 wide is under 16 / 4; 10 / 4 admits it, but 32 high is within 4 x 13
    assert {anchor for anchor, _, _ in places(thin)} == {0}


def test_an_empty_batch_has_no_targets() -> None:
    targets = assign_targets(batch_of([np.zeros((0, 4), np.float32)], height=64, width=80), ANCHORS, 8, (8, 10), 4.0)
    assert [len(column) for column in targets] == [0] * 6


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(0, 80, width=32),
    y=st.floats(0, 64, width=32),
    w=st.floats(2, 60, width=32),
    h=st.floats(2, 60, width=32),
)
def test_the_decoder_can_reach_every_target(x: float, y: float, w: float, h: float) -> None:
    """Centres lie within the reach (-0.5, 1.5) of their cell and sizes within the reach (0, 4) of their anchor."""
    batch = batch_of([np.array([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]], np.float32)], height=64, width=80)
    targets = assign_targets(batch, ANCHORS, 8, (8, 10), 4.0)
    assert ((targets.boxes_cells[:, :2] >= -0.5 - 1e-4) & (targets.boxes_cells[:, :2] <= 1.5 + 1e-4)).all()
    assert (targets.boxes_cells[:, 2:] * 8 / ANCHORS[targets.anchor] < 4.0 + 1e-3).all()
    centre = targets.boxes_cells[:, :2] + torch.stack((targets.cell_x, targets.cell_y), 1)
    torch.testing.assert_close(centre * 8, torch.tensor([[x, y]]).expand(len(centre), 2), rtol=0, atol=1e-3)
    assert ((targets.cell_x >= 0) & (targets.cell_x < 10) & (targets.cell_y >= 0) & (targets.cell_y < 8)).all()

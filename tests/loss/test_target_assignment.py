"""Matching of objects to anchors and cells, with places worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.batches import batch_of
from utils.loss.target_assignment import assign_targets, head_targets

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


def test_the_levels_together_and_the_last_object_at_each_place() -> None:
    """Two levels of one anchor; the second object is centred where the first is, a third one elsewhere."""
    boxes = np.array([[26, 26, 30, 30], [24, 24, 32, 32], [42, 42, 46, 46]], np.float32)  # cells (3.5, 3.5), (5.5, 5.5)
    batch = batch_of([boxes], [[0, 1, 2]], height=64, width=64)
    anchors = torch.tensor([[8.0, 8.0]])
    levels = [assign_targets(batch, anchors, stride, (64 // stride,) * 2, 4.0) for stride in (8, 16)]
    shapes = [torch.Size((1, 1, 8, 8)), torch.Size((1, 1, 4, 4))]
    targets = head_targets(levels, shapes, [anchors / 8, anchors / 16])
    # At stride 16 the centres are at 1.75 and 2.75 cells: two neighbours each, and (2, 2) is one of none of them.
    assert targets.counts == (3, 9)
    assert targets.classes.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert [column[:3].tolist() for column in targets.place] == [[0] * 3, [0] * 3, [3, 3, 5], [3, 3, 5]]
    coarse = {(1, 1): 4, (2, 2): 5, (1, 2): 7, (2, 3): 8, (2, 1): 10, (3, 2): 11}  # row, column: the last place
    expected = {8 * 3 + 3: 1, 8 * 5 + 5: 2} | {64 + 4 * row + column: place for (row, column), place in coarse.items()}
    assert dict(zip(targets.goal_cell.tolist(), targets.goal_place.tolist(), strict=True)) == expected
    torch.testing.assert_close(targets.anchors_cells, torch.tensor([[1.0, 1.0]] * 3 + [[0.5, 0.5]] * 9))
    copied = targets.on(torch.device("cpu"))
    for own, same in zip((*targets.place, *targets[2:]), (*copied.place, *copied[2:]), strict=True):
        assert torch.equal(own, same)


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

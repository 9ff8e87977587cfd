"""The anchor-free head's assignment and loss: numbers worked by hand, and that a head learns an object by them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.head import AnchorFreeDetect
from tests.batches import batch_of
from utils.config.hyperparameters import Hyperparameters
from utils.geometry.records import Batch, HeadMaps
from utils.loss import task_alignment
from utils.loss.anchor_free_loss import AnchorFreeGains, AnchorFreeLoss, distribution_focal_loss
from utils.loss.task_alignment import (
    ALPHA,
    BETA,
    CELLS_PER_OBJECT,
    Candidates,
    Grid,
    Nearness,
    assign_aligned,
    candidate_cells,
)
from utils.runtime.process_ranks import ProcessRanks

GAINS = AnchorFreeGains.from_hyperparameters(Hyperparameters())
GRID = Grid.of([(8, 8)], (8,))


def batch(*boxes: list[float], classes: list[int] | None = None) -> Batch:
    rows = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return batch_of([rows], [classes or [0] * len(rows)], height=64, width=64)


def test_an_object_may_be_learned_at_the_centres_inside_it() -> None:
    found = candidate_cells(batch([8, 8, 32, 24]), GRID)
    # Centres at 4, 12, 20, ...: columns 1 to 3 of rows 1 and 2.
    assert found.cell.tolist() == [9, 10, 11, 17, 18, 19] and set(found.objects.tolist()) == {0}


def test_a_tiny_object_counts_as_two_cells_wide() -> None:
    # 2 x 2 pixels around (16, 16), the corner of four cells, holds no centre; 16 x 16 around it holds four.
    assert candidate_cells(batch([15, 15, 17, 17]), GRID).cell.tolist() == [9, 10, 17, 18]


def test_a_large_batch_has_the_same_candidates_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = batch(*([float(x), 2.0 * x, x + 9.0, 2.0 * x + 5] for x in range(9)))
    whole = candidate_cells(objects, GRID)
    monkeypatch.setattr(task_alignment, "PAIRS_AT_ONCE", 4 * len(GRID.centres))
    for one, other in zip(whole[1:], candidate_cells(objects, GRID)[1:], strict=True):
        assert isinstance(one, torch.Tensor) and torch.equal(one, other) and len(one) > 9


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.floats(0, 63)] * 2), st.tuples(*[st.floats(0.5, 40)] * 2))
def test_every_object_has_a_candidate(corner: tuple[float, float], size: tuple[float, float]) -> None:
    box = [*corner, min(corner[0] + size[0], 64), min(corner[1] + size[1], 64)]
    found = candidate_cells(batch(box), GRID)
    assert len(found.cell) >= 1 and len(set(found.cell.tolist())) == len(found.cell)


def candidates(objects: list[int], cells: list[int], boxes: list[list[float]], classes: list[int]) -> Candidates:
    rows = torch.tensor(objects)
    return Candidates(
        len(boxes),
        rows,
        torch.zeros_like(rows),
        torch.tensor(cells),
        torch.tensor(classes)[rows],
        torch.tensor(boxes, dtype=torch.float32)[rows],
        torch.zeros(len(rows), 2),
        torch.ones(len(rows), 1),
    )


def test_goals_worked_by_hand() -> None:
    # One object of 8 x 8, two cells. The first places it exactly and scores 0.25, the second is half as high.
    boxes = torch.tensor([[[0.0, 0, 8, 8], [0, 0, 8, 4]]])
    probs = torch.tensor([[[0.25], [0.64]]])
    targets = assign_aligned(candidates([0, 0], [0, 1], [[0, 0, 8, 8]], [0]), boxes, probs)
    alignment = [0.25**ALPHA, 0.64**ALPHA * 0.5**BETA]
    assert targets.pairs.cell.tolist() == [0, 1]
    assert targets.goals.tolist() == pytest.approx([1.0, alignment[1] / alignment[0]], rel=1e-4)


def test_an_object_is_learned_at_its_ten_best_cells() -> None:
    boxes = torch.zeros(1, 12, 4)
    boxes[..., 2:] = 8
    probs = torch.linspace(0.1, 0.65, 12).view(1, 12, 1)
    targets = assign_aligned(candidates([0] * 12, list(range(12)), [[0, 0, 8, 8]], [0]), boxes, probs)
    assert targets.pairs.cell.tolist() == list(range(2, 12)) and len(targets.goals) == CELLS_PER_OBJECT
    assert targets.goals.max().item() == pytest.approx(1) and bool((targets.goals.diff() > 0).all())


def test_a_cell_that_two_objects_want_goes_to_the_larger_overlap() -> None:
    boxes = torch.tensor([[[0.0, 0, 8, 8]]])
    probs = torch.tensor([[[0.1, 0.9]]])  # however well it scores the other's class
    targets = assign_aligned(candidates([0, 1], [0, 0], [[0, 0, 8, 8], [0, 0, 8, 6]], [0, 1]), boxes, probs)
    assert targets.pairs.objects.tolist() == [0] and targets.pairs.classes.tolist() == [0]
    even = assign_aligned(candidates([0, 1], [0, 0], [[0, 0, 8, 8]] * 2, [0, 1]), boxes, probs)
    assert even.pairs.objects.tolist() == [0]


def test_a_share_of_the_wasserstein_distance_reaches_cells_without_overlap() -> None:
    boxes = torch.tensor([[[10.0, 0, 18, 8]]])  # beside the object: centres 10 apart, sides equal
    pair, probs = candidates([0], [0], [[0, 0, 8, 8]], [0]), torch.tensor([[[0.25]]])
    targets = assign_aligned(pair, boxes, probs, Nearness(share=0.5, size=20.0))
    assert targets.goals.tolist() == pytest.approx([0.5 * math.exp(-0.5)], rel=1e-5)


def test_cells_without_overlap_learn_nothing() -> None:
    boxes = torch.tensor([[[40.0, 40, 48, 48]]])
    targets = assign_aligned(candidates([0], [0], [[0, 0, 8, 8]], [0]), boxes, torch.tensor([[[0.5]]]))
    assert len(targets.goals) == 0


def test_distribution_loss_worked_by_hand() -> None:
    logits = torch.zeros(1, 4, 16)
    logits[0, 1, 2] = math.log(17)  # 17 of 32 parts there, one in each other place
    # Sides at 1.25, 2, beyond the last number, and before the first.
    distances = torch.tensor([[1.25, 2.0, 40.0, -3.0]])
    even = math.log(16)
    expected = (even + math.log(32 / 17) + even + even) / 4
    assert distribution_focal_loss(logits, distances).tolist() == pytest.approx([expected], rel=1e-6)
    # A quarter between 1 and 2: three quarters of the cross-entropy with 1, one of that with 2.
    logits[0, 0, 1], logits[0, 0, 2] = math.log(9), math.log(9)
    sharper = distribution_focal_loss(logits, distances).item()
    assert sharper == pytest.approx(expected + (math.log(32 / 9) - even) / 4, rel=1e-6)


def head() -> AnchorFreeDetect:
    return AnchorFreeDetect(2, (8,), (8,))


def test_parts_worked_by_hand() -> None:
    # A frame of one cell, whose centre is (4, 4): distances spread evenly over 0 and 1 cells make the box 0 0 8 8.
    level = torch.full((1, 1, 1, 1, 66), -50.0)
    for side in range(4):
        level[..., 16 * side : 16 * side + 2] = 0
    level[..., 64], level[..., 65] = 0.0, 0.0
    one = batch_of([np.array([[0, 0, 8, 8]])], [[1]], height=8, width=8)
    parts = AnchorFreeLoss(head(), GAINS)(HeadMaps((level,)), one)
    assert parts.box.item() == pytest.approx(0, abs=1e-5)
    # Half a cell to every side: half of log 2 for each of two numbers; the goal is 1, and so is the sum of goals.
    assert parts.distribution.item() == pytest.approx(GAINS.distribution * math.log(2), rel=1e-5)
    assert parts.classification.item() == pytest.approx(GAINS.classification * 2 * math.log(2), rel=1e-5)
    assert parts.total.item() == pytest.approx(sum(float(part) for part in parts))


def test_images_without_objects_teach_that_nothing_is_there() -> None:
    level = torch.zeros(2, 1, 2, 2, 66, requires_grad=True)
    parts = AnchorFreeLoss(head(), GAINS)(HeadMaps((level,)), batch_of([np.zeros((0, 4))] * 2, height=16, width=16))
    assert parts.box.item() == parts.distribution.item() == 0
    assert parts.classification.item() == pytest.approx(GAINS.classification * 16 * math.log(2), rel=1e-6)
    parts.total.backward()  # type: ignore[no-untyped-call]
    assert level.grad is not None and bool((level.grad[..., 64:] > 0).all())


def test_a_single_class_is_learned_whatever_the_labels_numbers_are() -> None:
    loss, maps = AnchorFreeLoss(AnchorFreeDetect(1, (8,), (8,)), GAINS), HeadMaps((torch.zeros(1, 1, 8, 8, 65),))
    boxes = ([10.0, 12, 38, 30], [44.0, 40, 49, 46])
    assert loss(maps, batch(*boxes, classes=[3, 1])) == loss(maps, batch(*boxes, classes=[0, 0]))


def test_a_head_learns_an_object() -> None:
    torch.manual_seed(0)
    objects = batch_of([np.array([[10, 12, 38, 30], [44, 40, 49, 46]])], [[0, 1]], height=64, width=64)
    levels = [torch.zeros(1, 1, side, side, 66) for side in (8, 4)]
    for level in levels:
        level[..., 64:] = -4
        level.requires_grad_()
    two_levels = AnchorFreeDetect(2, (8, 16), (8, 16))
    loss, optimizer = AnchorFreeLoss(two_levels, GAINS), torch.optim.Adam(levels, lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        loss(HeadMaps(tuple(levels)), objects).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = two_levels.decode(HeadMaps(tuple(levels)))
    for box, kind in zip(objects.boxes, (0, 1), strict=True):
        best = int(found.class_probs[0, :, kind].argmax())
        assert found.class_probs[0, best, kind] > 0.7
        torch.testing.assert_close(found.boxes[0, best].detach(), box, rtol=0, atol=1.0)


def test_two_processes_have_the_loss_of_one() -> None:
    """With the goals of both counted in each, the mean of their losses is that of the whole batch."""
    torch.manual_seed(0)
    boxes = [np.array([[4, 4, 30, 28]]), np.array([[10, 12, 38, 30], [30, 30, 60, 62]])]
    maps, loss, goals = torch.randn(2, 1, 8, 8, 66), AnchorFreeLoss(head(), GAINS), []

    class Noting(ProcessRanks):
        def total(self, values: torch.Tensor) -> torch.Tensor:
            goals.append(values)
            return values

    class Knowing(ProcessRanks):
        def total(self, values: torch.Tensor) -> torch.Tensor:
            return goals[0] + goals[1]

    def of_each(ranks: ProcessRanks) -> list[torch.Tensor]:
        own = [batch_of([rows], height=64, width=64) for rows in boxes]
        return [torch.stack(loss(HeadMaps((maps[i : i + 1],)), own[i], ranks)) for i in range(2)]

    of_each(Noting(torch.device("cpu")))
    first, second = of_each(Knowing(torch.device("cpu"), world=2))
    whole = torch.stack(loss(HeadMaps((maps,)), batch_of(boxes, height=64, width=64)))
    torch.testing.assert_close((first + second) / 2, whole)
    assert float(goals[0]) != pytest.approx(float(goals[1]), rel=1e-3)

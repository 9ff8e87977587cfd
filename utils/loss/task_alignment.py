"""Which cells of an anchor-free head learn which object: task-aligned assignment.

Feng et al., "TOOD: Task-aligned One-stage Object Detection" (ICCV 2021), sec. 3.2: the cells inside an object that
score its class highest and place its box best, so that both branches of the head agree where an object is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from utils.geometry.boxes import box_area, intersection, wasserstein_closeness, xyxy_to_cxcywh
from utils.geometry.records import Batch
from utils.runtime.device import sent

ALPHA, BETA = 0.5, 6.0  # exponents of score and overlap in the alignment, YOLOv5u's
CELLS_PER_OBJECT = 10
LEAST = 1e-30  # what an alignment is divided by
PAIRS_AT_ONCE = 1_000_000  # of objects and cells that are measured: all of a large batch would take GiB


class Candidates(NamedTuple):
    """Pairs of an object and a cell whose centre lies in it, Q of them, objects rising."""

    object_count: int  # of the batch
    objects: torch.Tensor  # (Q,) int64, rows of the batch's labels
    image: torch.Tensor  # (Q,) int64
    cell: torch.Tensor  # (Q,) int64, counted through all levels
    classes: torch.Tensor  # (Q,) int64
    boxes: torch.Tensor  # (Q, 4) xyxy, pixels
    centres: torch.Tensor  # (Q, 2) of the cells, pixels
    strides: torch.Tensor  # (Q, 1) of the cells' levels, pixels

    def of(self, rows: torch.Tensor) -> Candidates:
        """The pairs at ``rows``."""
        count, *columns = self
        return Candidates(count, *(column[rows] for column in columns))

    def on(self, device: torch.device) -> Candidates:
        """The pairs on ``device``: two copies, of integers and of floats, for which the host does not wait."""
        whole = torch.stack((self.objects, self.image, self.cell, self.classes))
        objects, image, cell, classes = sent(whole, device).unbind()
        lengths = sent(torch.cat((self.boxes, self.centres, self.strides), dim=1), device)
        boxes, centres, strides = lengths[:, :4], lengths[:, 4:6], lengths[:, 6:]
        return Candidates(self.object_count, objects, image, cell, classes, boxes, centres, strides)


class Grid(NamedTuple):
    """The cells of all levels, in the order of the head's answers."""

    centres: torch.Tensor  # (K, 2) pixels
    strides: torch.Tensor  # (K, 1) pixels

    @classmethod
    def of(cls, shapes: Sequence[tuple[int, int]], strides: Sequence[int]) -> Grid:
        """The grid of levels of ``shapes`` (rows, columns) and ``strides`` (pixels)."""
        centres, sides = [], []
        for (rows, columns), stride in zip(shapes, strides, strict=True):
            down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            centres.append((torch.stack((across, down), dim=-1).reshape(-1, 2) + 0.5) * stride)
            sides.append(torch.full((rows * columns, 1), float(stride)))
        return cls(torch.cat(centres), torch.cat(sides))


def candidate_cells(batch: Batch, grid: Grid) -> Candidates:
    """The cells that each object may be learned at, from labels and grid alone, on the host.

    A side shorter than two cells of the finest level counts as so long: a smaller object might hold no centre, and one
    that holds a single centre has no choice. Later releases of YOLOv5u do so too.

    Args:
        batch: objects in network pixels.
        grid: finest level first.
    """
    middle, half = (batch.boxes[:, :2] + batch.boxes[:, 2:]) / 2, (batch.boxes[:, 2:] - batch.boxes[:, :2]) / 2
    half, at_once = half.clamp(min=float(grid.strides[0])), max(PAIRS_AT_ONCE // len(grid.centres), 1)
    parts = []
    for start in range(0, len(middle), at_once):
        rows = slice(start, start + at_once)
        across, down = ((grid.centres[:, i] - middle[rows, i, None]).abs_() < half[rows, i, None] for i in (0, 1))
        parts.append((across & down).nonzero() + torch.tensor([start, 0]))
    objects, cell = (torch.cat(parts) if parts else torch.zeros(0, 2, dtype=torch.int64)).unbind(dim=1)
    return Candidates(
        object_count=len(batch.boxes),
        objects=objects,
        image=batch.image_index[objects],
        cell=cell,
        classes=batch.classes[objects],
        boxes=batch.boxes[objects],
        centres=grid.centres[cell],
        strides=grid.strides[cell],
    )


class AlignedTargets(NamedTuple):
    """What an anchor-free head is trained on: P cells, each with its object."""

    pairs: Candidates  # P of them, no cell of an image twice
    goals: torch.Tensor  # (P,) the score that the cell is to give its class, 0-1


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near a box is to its object: an overlap, with a share of the Wasserstein distance that tiny objects need."""

    share: float = 0.0
    size: float = 12.8  # pixels of the network frame, see `wasserstein_closeness`

    def mixed(self, overlap: torch.Tensor, boxes: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
        """Overlaps (P,) of corner boxes (P, 4) with their objects (P, 4), pixels, with the share of the distance."""
        if not self.share:
            return overlap
        close = wasserstein_closeness(xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(objects), self.size)
        return (1 - self.share) * overlap + self.share * close


PLAIN = Nearness()


def assign_aligned(
    candidates: Candidates, boxes: torch.Tensor, probs: torch.Tensor, nearness: Nearness = PLAIN
) -> AlignedTargets:
    """The best candidates of each object; a cell that several objects want is that of the largest overlap.

    The alignment of a pair is ``probability ** ALPHA * IoU ** BETA``. An object's goals are proportional to it and
    reach up to its largest IoU (TOOD, eq. 4). It is the IoU, not the CIoU: a fresh head answers with boxes of 15 cells,
    whose CIoU with an object of one cell is below 0 nearly everywhere, and such objects would never be begun with.

    Args:
        candidates: Q pairs.
        boxes: (B, K, 4) predicted corners, pixels.
        probs: (B, K, C) predicted class probabilities.
        nearness: what takes the place of the IoU.
    """
    predicted = boxes[candidates.image, candidates.cell]
    shared = intersection(predicted, candidates.boxes)
    iou = shared / (box_area(predicted) + box_area(candidates.boxes) - shared)
    overlap = nearness.mixed(iou, predicted, candidates.boxes)
    alignment = probs[candidates.image, candidates.cell, candidates.classes] ** ALPHA * overlap**BETA

    chosen = _best_of_each(candidates.objects, alignment) & (alignment > LEAST)
    place = candidates.image * boxes.shape[1] + candidates.cell
    chosen &= _wins(place, overlap.where(chosen, -1), boxes.shape[0] * boxes.shape[1])
    rows = chosen.nonzero().squeeze(1)

    pairs, alignment, overlap = candidates.of(rows), alignment[rows], overlap[rows]
    most_aligned, most_overlap = (
        values.new_zeros(candidates.object_count).scatter_reduce_(0, pairs.objects, values, "amax")[pairs.objects]
        for values in (alignment, overlap)
    )
    return AlignedTargets(pairs, alignment / most_aligned.clamp(min=LEAST) * most_overlap)


def _best_of_each(objects: torch.Tensor, alignment: torch.Tensor) -> torch.Tensor:
    """Whether a pair (Q,) is among the CELLS_PER_OBJECT best of its object."""
    order = alignment.argsort(descending=True, stable=True)
    order = order[objects[order].argsort(stable=True)]  # by object, the best first
    ordered = objects[order]
    rank = torch.arange(len(ordered), device=ordered.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(rank, dtype=torch.bool).index_put_((order,), rank < CELLS_PER_OBJECT)


def _wins(place: torch.Tensor, overlap: torch.Tensor, places: int) -> torch.Tensor:
    """Whether a pair (Q,) has the largest overlap of those at its place; of equal ones the first."""
    best = overlap.new_full((places,), -1).scatter_reduce_(0, place, overlap, "amax")
    order = torch.arange(len(place), device=place.device)
    tied = torch.where(overlap == best[place], order, len(place))
    first = order.new_full((places,), len(place)).scatter_reduce_(0, place, tied, "amin")
    return first[place] == order

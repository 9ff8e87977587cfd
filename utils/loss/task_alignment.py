"""Which cells of an anchor-free head learn which object: task-aligned assignment.

Feng et al., "TOOD: Task-aligned One-stage Object Detection" (ICCV 2021), sec. 3.2: the cells inside an object that
score its class highest and place its box best, so that both branches of the head agree where an object is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from utils.geometry.boxes import box_area, intersection, wasserstein_closeness, xyxy_to_cxcywh
from utils.geometry.records import Batch

ALPHA, BETA = 0.5, 6.0  # exponents of score and overlap in the alignment, YOLOv5u's
CELLS_PER_OBJECT = 10
LEAST = 1e-30  # what an alignment is divided by


class Candidates(NamedTuple):
    """Pairs of an object and a cell whose centre lies in it, Q of them, objects rising."""

    object_count: int  # of the batch
    objects: torch.Tensor  # (Q,) int64, rows of the batch's labels
    image: torch.Tensor  # (Q,) int64
    cell: torch.Tensor  # (Q,) int64, counted through all levels
    boxes: torch.Tensor  # (Q, 4) xyxy, pixels
    classes: torch.Tensor  # (Q,) int64

    def of(self, rows: torch.Tensor) -> Candidates:
        """The pairs at ``rows``."""
        count, *columns = self
        return Candidates(count, *(column[rows] for column in columns))

    def on(self, device: torch.device) -> Candidates:
        count, *columns = self
        return Candidates(count, *(column.to(device) for column in columns))


def candidate_cells(batch: Batch, centres: torch.Tensor, finest_stride: int) -> Candidates:
    """The cells that each object may be learned at, from labels and grid alone.

    A side shorter than two cells of the finest level counts as so long: a smaller object might hold no centre, and one
    that holds a single centre has no choice. Later releases of YOLOv5u do so too.

    Args:
        batch: objects in network pixels.
        centres: (K, 2) of the cells of all levels, pixels, on the labels' device.
        finest_stride: pixels.
    """
    middle, half = (batch.boxes[:, :2] + batch.boxes[:, 2:]) / 2, (batch.boxes[:, 2:] - batch.boxes[:, :2]) / 2
    distance = (centres[None] - middle[:, None]).abs_()  # (M, K, 2)
    inside = (distance < half.clamp(min=finest_stride)[:, None]).all(dim=2)
    objects, cell = inside.nonzero(as_tuple=True)
    labels = (each[objects] for each in (batch.boxes, batch.classes))
    return Candidates(len(batch.boxes), objects, batch.image_index[objects], cell, *labels)


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

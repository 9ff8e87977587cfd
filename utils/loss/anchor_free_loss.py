"""The loss of the anchor-free head: CIoU and distribution focal loss on boxes, binary cross-entropy on classes.

Sources: Feng et al., "TOOD" (ICCV 2021) for the targets; Li et al., "Generalized Focal Loss" (NeurIPS 2020) for the
distributions. Gains and norms are YOLOv5u's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from models.head import AnchorFreeDetect
from utils.config.hyperparameters import Hyperparameters
from utils.geometry.boxes import complete_iou, xyxy_to_cxcywh
from utils.geometry.records import Batch, HeadMaps
from utils.loss.task_alignment import PLAIN, AlignedTargets, Grid, Nearness, assign_aligned, candidate_cells
from utils.runtime.process_ranks import ALONE, ProcessRanks


class AnchorFreeLossParts(NamedTuple):
    """Scalar parts of the loss, weighted, per image."""

    box: torch.Tensor
    distribution: torch.Tensor
    classification: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        return self.box + self.distribution + self.classification


@dataclass(frozen=True, slots=True)
class AnchorFreeGains:
    """Weights of the parts, and how near a box is said to be to its object."""

    box: float
    distribution: float
    classification: float
    nearness: Nearness = PLAIN

    @classmethod
    def from_hyperparameters(cls, hyp: Hyperparameters) -> AnchorFreeGains:
        return cls(hyp.free_box, hyp.free_dfl, hyp.free_cls, Nearness(hyp.nwd, hyp.nwd_size))


class AnchorFreeLoss:
    """Loss of an anchor-free head's raw maps against a batch's labels."""

    part_names = AnchorFreeLossParts._fields

    def __init__(self, head: AnchorFreeDetect, gains: AnchorFreeGains) -> None:
        self.head = head
        self.gains = gains

    def __call__(self, maps: HeadMaps, batch: Batch, ranks: ProcessRanks = ALONE) -> AnchorFreeLossParts:
        """Sums over cells, divided by the sum of the goals, of all processes together."""
        if self.head.class_count == 1:  # whatever the labels' numbers are: with --single-cls they stay the data set's
            batch = replace(batch, classes=torch.zeros_like(batch.classes))
        shapes = [(int(logits.shape[2]), int(logits.shape[3])) for logits in maps.levels]
        grid = Grid.of(shapes, self.head.strides)
        logits = torch.cat([each.flatten(1, 3) for each in maps.levels], dim=1).float()  # (B, K, 4 BINS + C)
        class_logits = logits[..., 4 * self.head.BINS :]
        with torch.no_grad():
            found = self.head.decode(maps)
            candidates = candidate_cells(batch, grid).on(logits.device)
            targets = assign_aligned(candidates, found.boxes, found.class_probs, self.gains.nearness)
        pairs = targets.pairs
        box, distribution = self._box_parts(logits[pairs.image, pairs.cell], targets)
        goal = torch.zeros_like(class_logits)
        goal[pairs.image, pairs.cell, pairs.classes] = targets.goals
        classification = binary_cross_entropy_with_logits(class_logits, goal, reduction="sum")
        share = ranks.world / ranks.total(targets.goals.sum().reshape(1).double()).clamp(min=1).float()[0]
        return AnchorFreeLossParts(
            box=box * share * self.gains.box,
            distribution=distribution * share * self.gains.distribution,
            classification=classification * share * self.gains.classification,
        )

    def _box_parts(self, logits: torch.Tensor, targets: AlignedTargets) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums over P cells, weighted by their goals: 1 - CIoU, or what is mixed with it; the distributions' loss.

        Args:
            logits: (P, 4 BINS + C) of the cells.
            targets: their objects.
        """
        strides = targets.pairs.strides
        distances, centres = self.head.distances(logits), targets.pairs.centres / strides  # cells, as all below
        predicted = torch.cat((centres - distances[:, :2], centres + distances[:, 2:]), dim=-1)
        boxes = targets.pairs.boxes / strides
        near = self.gains.nearness
        iou = complete_iou(xyxy_to_cxcywh(predicted), xyxy_to_cxcywh(boxes))
        nearness = near.mixed(iou, predicted * strides, targets.pairs.boxes)
        wanted = torch.cat((centres - boxes[:, :2], boxes[:, 2:] - centres), dim=-1)  # (P, 4)
        spread = distribution_focal_loss(logits[:, : 4 * self.head.BINS].reshape(-1, 4, self.head.BINS), wanted)
        return ((1 - nearness) * targets.goals).sum(), (spread * targets.goals).sum()


def distribution_focal_loss(logits: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """Mean over the sides (P,) of the cross-entropy with the two whole numbers next to a distance.

    Li et al., "Generalized Focal Loss", eq. 6: each of the two counts by how near it is. Distances beyond the last
    number are taken as just below it, and negative ones as 0.

    Args:
        logits: (P, 4, BINS).
        distances: (P, 4), cells.
    """
    distances = distances.clamp(0, logits.shape[-1] - 1 - 0.01)
    lower = distances.long()
    near_upper = distances - lower
    flat = logits.flatten(0, 1)
    below, above = (cross_entropy(flat, each.flatten(), reduction="none").view_as(lower) for each in (lower, lower + 1))
    return (below * (1 - near_upper) + above * near_upper).mean(dim=1)

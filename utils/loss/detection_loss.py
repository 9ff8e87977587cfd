"""YOLOv5's detection loss: CIoU on boxes, binary cross-entropy on objectness (target: the IoU) and on classes.

CIoU may be mixed with a distance that tiny boxes keep a gradient of (`wasserstein_closeness`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from models.head import boxes_of_cells
from utils.config.hyperparameters import Hyperparameters
from utils.geometry.boxes import complete_iou, wasserstein_closeness
from utils.geometry.records import Batch, HeadMaps, LossParts
from utils.loss.target_assignment import HeadTargets, assign_targets, head_targets
from utils.runtime.device import sent
from utils.runtime.process_ranks import ALONE, ProcessRanks

# Finer levels have more cells and fewer objects per cell; YOLOv5 weights their objectness accordingly.
OBJECTNESS_BALANCE = {3: (4.0, 1.0, 0.4)}
OBJECTNESS_BALANCE_MORE_LEVELS = (4.0, 1.0, 0.25, 0.06, 0.02)
FOCAL_ALPHA = 0.25


@dataclass(frozen=True, slots=True)
class LossGains:
    """Weights and shape of the loss for one model and image size."""

    box: float
    objectness: float
    classification: float
    objectness_positive: float  # weight of positive objectness targets
    classification_positive: float
    label_smoothing: float
    focal_gamma: float
    anchor_threshold: float
    wasserstein: float = 0.0  # share of it in how near a box is to its object, beside CIoU
    wasserstein_size: float = 12.8  # pixels of the network frame

    @classmethod
    def from_hyperparameters(cls, hyp: Hyperparameters) -> LossGains:
        """Gains as the hyperparameters state them, without scaling."""
        return cls(
            box=hyp.box,
            objectness=hyp.obj,
            classification=hyp.cls,
            objectness_positive=hyp.obj_pw,
            classification_positive=hyp.cls_pw,
            label_smoothing=hyp.label_smoothing,
            focal_gamma=hyp.fl_gamma,
            anchor_threshold=hyp.anchor_t,
            wasserstein=hyp.nwd,
            wasserstein_size=hyp.nwd_size,
        )

    def scaled(self, *, levels: int, class_count: int, imgsz: int) -> LossGains:
        """Gains for a model: those of the YAMLs belong to 3 levels, 80 classes and 640 pixels."""
        per_level = 3 / levels
        return replace(
            self,
            box=self.box * per_level,
            objectness=self.objectness * (imgsz / 640) ** 2 * per_level,
            classification=self.classification * class_count / 80 * per_level,
        )


class LevelWeight(NamedTuple):
    """How much the means over a level count, of its assigned places and of all its places."""

    assigned: float | torch.Tensor
    every: float | torch.Tensor


class RowsAndObjectness(torch.autograd.Function):
    """The two parts of the raw maps that have a loss: the assigned rows, and the objectness of every place.

    Taken as two slices of a map, each would get a gradient of the whole map's size, most of it zeros, and the two
    would be added. Here one gradient is made and both are written into it.
    """

    @staticmethod
    def forward(ctx: Any, targets: HeadTargets, *levels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Maps (B, A, H, W, 5 + C) to the rows (P, 5 + C) of all and the objectness (B, A, H, W) of each, float32."""
        ctx.places = list(targets.places_by_level())
        ctx.layouts = [(logits.shape, logits.stride()) for logits in levels]  # the maps themselves need not live on
        ctx.by_level, ctx.dtype = targets.by_level, levels[0].dtype
        rows = torch.cat([logits[place] for logits, place in zip(levels, ctx.places, strict=True)])
        return rows.float(), *(logits[..., 4].to(torch.float32, copy=True) for logits in levels)

    @staticmethod
    def backward(ctx: Any, rows: torch.Tensor, *objectness: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The maps' gradients, each in its map's memory order, out of the parts' gradients."""
        gradients = []
        own_rows = ctx.by_level(rows.to(ctx.dtype))
        for layout, place, own, every in zip(ctx.layouts, ctx.places, own_rows, objectness, strict=True):
            gradient = torch.empty_strided(*layout, dtype=ctx.dtype, device=rows.device).zero_()
            gradient[..., 4] = every
            gradients.append(gradient.index_put_(place, own, accumulate=True))
        return None, *gradients


class DetectionLoss:
    """Loss of the raw head maps against a batch's labels.

    Args:
        anchors: (L, A, 2) width and height, pixels.
        strides: pixels per cell of each level, finest first.
        class_count: C; a single class has no classification loss.
        gains: weights, see :class:`LossGains`.
    """

    part_names = LossParts._fields

    def __init__(self, anchors: torch.Tensor, strides: tuple[int, ...], class_count: int, gains: LossGains) -> None:
        self.anchors = anchors.float().cpu()  # the host assigns: on a GPU every step of it would be a wait
        self.strides = strides
        self.class_count = class_count
        self.gains = gains
        self.balance: tuple[float, ...] = OBJECTNESS_BALANCE.get(len(strides), OBJECTNESS_BALANCE_MORE_LEVELS)

    def __call__(self, maps: HeadMaps, batch: Batch, ranks: ProcessRanks = ALONE) -> LossParts:
        """Mean loss per image; multiply by the batch size for the sum that YOLOv5 optimizes.

        With several processes each has a part of the batch, and the mean of their losses is that of the whole batch:
        assigned places and cells are counted over all ``ranks``, not in each alone.
        """
        on_host = self.targets(maps, batch)
        weights = self._weights(maps, on_host.counts, ranks)
        targets = on_host.on(maps.levels[0].device)
        rows, *every_objectness = RowsAndObjectness.apply(targets, *maps.levels)  # (P, 5 + C), each (B, A, H, W)
        predicted = torch.cat(boxes_of_cells(rows[:, :4].sigmoid(), targets.anchors_cells), dim=1)
        nearness = self._nearness(predicted, targets)
        goals = self._objectness_goals(maps, targets, nearness.detach())
        distances = targets.by_filled_level(1 - nearness)
        class_logits = targets.by_filled_level(rows[:, 5:])
        class_goals = targets.by_filled_level(self._class_goals(rows[:, 5:], targets.classes))

        box = objectness = classification = rows.new_zeros(())
        for level, weight in enumerate(weights):  # means are of each level: a coarse one has few places
            if level in distances:
                box = box + distances[level].mean() * weight.assigned
                if self.class_count > 1:
                    found = self._cross_entropy(
                        class_logits[level], class_goals[level], self.gains.classification_positive
                    )
                    classification = classification + found * weight.assigned
            found = self._cross_entropy(every_objectness[level], goals[level], self.gains.objectness_positive)
            objectness = objectness + found * weight.every
        return LossParts(
            box=box * self.gains.box,
            objectness=objectness * self.gains.objectness,
            classification=classification * self.gains.classification,
        )

    def targets(self, maps: HeadMaps, batch: Batch) -> HeadTargets:
        """Assigned places of the maps (B, A, H, W, 5 + C) of all levels, on the host, where the labels are."""
        shapes = [logits.shape[:4] for logits in maps.levels]
        levels = [
            assign_targets(batch, anchors, stride, (shape[2], shape[3]), self.gains.anchor_threshold)
            for anchors, stride, shape in zip(self.anchors, self.strides, shapes, strict=True)
        ]
        cells = [anchors / stride for anchors, stride in zip(self.anchors, self.strides, strict=True)]
        return head_targets(levels, shapes, cells)

    def _weights(self, maps: HeadMaps, counts: tuple[int, ...], ranks: ProcessRanks) -> list[LevelWeight]:
        """Weights of this process's means of each level; ``counts`` are its assigned places.

        Over all processes they add up to their number times 1 and the level's balance.
        """
        balance = self.balance[: len(counts)]
        if ranks.world == 1:
            return [LevelWeight(1.0, own) for own in balance]
        cells = [logits[..., 4].numel() for logits in maps.levels]
        own = sent(torch.tensor([counts, cells, balance], dtype=torch.float64), ranks.device)
        shares = own[:2] * ranks.world / ranks.total(own[:2]).clamp(min=1)
        assigned, every = shares[0].float(), (own[2] * shares[1]).float()
        return [LevelWeight(*pair) for pair in zip(assigned.unbind(), every.unbind(), strict=True)]

    def _nearness(self, predicted: torch.Tensor, targets: HeadTargets) -> torch.Tensor:
        """How near boxes (P, 4) are to their objects (P,), at most 1: CIoU, with the share of the other that is asked.

        It is what the box loss raises and what objectness is to foretell; which places an object gets follows from
        ratios of sides alone, and does not change.
        """
        iou = complete_iou(predicted, targets.boxes_cells)
        share, size = self.gains.wasserstein, self.gains.wasserstein_size
        if not share:
            return iou
        pairs = zip(targets.by_level(predicted), targets.by_level(targets.boxes_cells), self.strides, strict=True)
        near = [wasserstein_closeness(found, wanted, size / stride) for found, wanted, stride in pairs]
        return (1 - share) * iou + share * torch.cat(near)

    @staticmethod
    def _objectness_goals(maps: HeadMaps, targets: HeadTargets, nearness: torch.Tensor) -> list[torch.Tensor]:
        """Per level (B, A, H, W): the nearness (P,) at every assigned place, 0 elsewhere."""
        shapes = [logits.shape[:4] for logits in maps.levels]
        goals = nearness.new_zeros(sum(shape.numel() for shape in shapes))
        goals[targets.goal_cell] = nearness.clamp(min=0)[targets.goal_place]
        parts = torch.split(goals, [shape.numel() for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def _class_goals(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Smoothed one-hot targets (P, C) of classes (P,)."""
        negative = 0.5 * self.gains.label_smoothing
        if self.class_count == 1:  # without a loss, whatever the labels' numbers are
            return torch.zeros_like(logits)
        return torch.full_like(logits, negative).scatter_(1, classes[:, None], 1 - negative)

    def _cross_entropy(self, logits: torch.Tensor, goal: torch.Tensor, positive_weight: float) -> torch.Tensor:
        """Mean binary cross-entropy, focal when asked for (Lin et al., "Focal Loss", ICCV 2017, eq. 5)."""
        weight = logits.new_full((1,), positive_weight) if positive_weight != 1 else None
        if self.gains.focal_gamma == 0:
            return binary_cross_entropy_with_logits(logits, goal, pos_weight=weight)
        loss = binary_cross_entropy_with_logits(logits, goal, pos_weight=weight, reduction="none")
        probability = logits.sigmoid()
        agreement = goal * probability + (1 - goal) * (1 - probability)
        alpha = goal * FOCAL_ALPHA + (1 - goal) * (1 - FOCAL_ALPHA)
        return (loss * alpha * (1 - agreement) ** self.gains.focal_gamma).mean()

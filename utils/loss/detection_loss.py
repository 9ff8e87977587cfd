"""YOLOv5's detection loss: CIoU on boxes, binary cross-entropy on objectness (target: the IoU) and on classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from models.head import boxes_of_cells
from utils.config.hyperparameters import Hyperparameters
from utils.geometry.boxes import complete_iou
from utils.geometry.records import Batch, HeadMaps, LevelTargets, LossParts
from utils.loss.target_assignment import assign_targets
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
        )

    def scaled(self, *, levels: int, class_count: int, imgsz: int) -> LossGains:
        """Gains for a model: those of the YAMLs belong to 3 levels, 80 classes and 640 pixels."""
        per_level = 3 / levels
        return LossGains(
            box=self.box * per_level,
            objectness=self.objectness * (imgsz / 640) ** 2 * per_level,
            classification=self.classification * class_count / 80 * per_level,
            objectness_positive=self.objectness_positive,
            classification_positive=self.classification_positive,
            label_smoothing=self.label_smoothing,
            focal_gamma=self.focal_gamma,
            anchor_threshold=self.anchor_threshold,
        )


class LevelShare(NamedTuple):
    """How much one process's means count on a level."""

    places: float  # assigned places
    cells: float


class RowsAndObjectness(torch.autograd.Function):
    """The two parts of a level's raw map that have a loss: its assigned rows, and the objectness of every place.

    Taken as two slices of the map, each would get a gradient of the whole map's size, most of it zeros, and the two
    would be added. Here one gradient is made and both are written into it.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, *place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, A, H, W, 5 + C) and four indices (P,) to rows (P, 5 + C) and objectness (B, A, H, W), float32."""
        ctx.save_for_backward(*place)
        ctx.layout = logits.shape, logits.stride()  # the map itself need not live on
        ctx.dtype = logits.dtype
        return logits[place].float(), logits[..., 4].to(torch.float32, copy=True)

    @staticmethod
    def backward(ctx: Any, rows: torch.Tensor, objectness: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The map's gradient, in its own memory order, out of the two parts' gradients."""
        gradient = torch.empty_strided(*ctx.layout, dtype=ctx.dtype, device=rows.device).zero_()
        gradient[..., 4] = objectness
        return gradient.index_put_(ctx.saved_tensors, rows.to(ctx.dtype), accumulate=True), None, None, None, None


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
        self.anchors = anchors.float()
        self.strides = strides
        self.class_count = class_count
        self.gains = gains
        self.balance: tuple[float, ...] = OBJECTNESS_BALANCE.get(len(strides), OBJECTNESS_BALANCE_MORE_LEVELS)

    def __call__(self, maps: HeadMaps, batch: Batch, ranks: ProcessRanks = ALONE) -> LossParts:
        """Mean loss per image; multiply by the batch size for the sum that YOLOv5 optimizes.

        With several processes each has a part of the batch, and the mean of their losses is that of the whole batch:
        assigned places and cells are counted over all ``ranks``, not in each alone.
        """
        zero = maps.levels[0].new_zeros((), dtype=torch.float32)
        box, objectness, classification = zero, zero, zero
        assigned = [self.targets(level, logits, batch) for level, logits in enumerate(maps.levels)]
        shares = self._shares(maps, assigned, ranks)
        for level, (logits, targets) in enumerate(zip(maps.levels, assigned, strict=True)):
            share = shares[level]
            place = (targets.image, targets.anchor, targets.cell_y, targets.cell_x)
            rows, every_objectness = RowsAndObjectness.apply(logits, *place)  # (P, 5 + C), (B, A, H, W)
            goal = torch.zeros_like(every_objectness, memory_format=torch.contiguous_format)
            if len(targets.classes):
                iou = complete_iou(self.decode_cells(rows[:, :4], level, targets.anchor), targets.boxes_cells)
                box = box + (1 - iou).mean() * share.places
                goal = self._objectness_goal(goal, targets, iou.detach().clamp(min=0))
                if self.class_count > 1:
                    found = self._classification(rows[:, 5:], targets.classes)
                    classification = classification + found * share.places
            weight = self.balance[level] * share.cells
            found = self._cross_entropy(every_objectness, goal, self.gains.objectness_positive)
            objectness = objectness + found * weight
        return LossParts(
            box=box * self.gains.box,
            objectness=objectness * self.gains.objectness,
            classification=classification * self.gains.classification,
        )

    @staticmethod
    def _shares(maps: HeadMaps, assigned: list[LevelTargets], ranks: ProcessRanks) -> list[LevelShare]:
        """Weight of this process's means in each level's mean over all processes, times their number."""
        if ranks.world == 1:
            return [LevelShare(1.0, 1.0)] * len(assigned)
        places = [float(len(targets.classes)) for targets in assigned]
        cells = [float(logits[..., 4].numel()) for logits in maps.levels]
        own = torch.tensor([places, cells], dtype=torch.float64)
        shares = own * ranks.world / ranks.total(own.to(ranks.device)).cpu().clamp(min=1)
        return [LevelShare(*pair) for pair in shares.T.tolist()]

    def targets(self, level: int, logits: torch.Tensor, batch: Batch) -> LevelTargets:
        """Assigned places of one level whose raw map is ``logits`` (B, A, H, W, 5 + C)."""
        grid = (int(logits.shape[2]), int(logits.shape[3]))
        anchors = self.anchors[level].to(logits.device)
        return assign_targets(batch, anchors, self.strides[level], grid, self.gains.anchor_threshold)

    def decode_cells(self, box_logits: torch.Tensor, level: int, anchor: torch.Tensor) -> torch.Tensor:
        """Box logits (P, 4) to ``cx cy w h`` (P, 4) in cells, the centre relative to the place's own cell."""
        anchors = self.anchors[level].to(box_logits.device)[anchor] / self.strides[level]
        return torch.cat(boxes_of_cells(box_logits.sigmoid(), anchors), dim=1)

    @staticmethod
    def _objectness_goal(goal: torch.Tensor, targets: LevelTargets, iou: torch.Tensor) -> torch.Tensor:
        """``goal`` (B, A, H, W) with the IoU at every assigned place; of several objects at a place the last counts.

        Writing through an index list leaves open which of several values lands, so the last one is found first.
        """
        _, anchors, rows, columns = goal.shape
        cell = ((targets.image * anchors + targets.anchor) * rows + targets.cell_y) * columns + targets.cell_x
        order = torch.arange(len(cell), device=cell.device)
        last = torch.full((goal.numel(),), -1, device=cell.device).scatter_reduce_(0, cell, order, "amax")
        winner = last[cell] == order
        flat = goal.view(-1)
        flat[cell[winner]] = iou[winner]
        return goal

    def _classification(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Mean binary cross-entropy of class logits (P, C) against smoothed one-hot targets."""
        negative = 0.5 * self.gains.label_smoothing
        goal = torch.full_like(logits, negative)
        goal[torch.arange(len(classes), device=classes.device), classes] = 1 - negative
        return self._cross_entropy(logits, goal, self.gains.classification_positive)

    def _cross_entropy(self, logits: torch.Tensor, goal: torch.Tensor, positive_weight: float) -> torch.Tensor:
        """Mean binary cross-entropy, focal when asked for (Lin et al., "Focal Loss", ICCV 2017, eq. 5)."""
        weight = logits.new_tensor([positive_weight]) if positive_weight != 1 else None
        if self.gains.focal_gamma == 0:
            return binary_cross_entropy_with_logits(logits, goal, pos_weight=weight)
        loss = binary_cross_entropy_with_logits(logits, goal, pos_weight=weight, reduction="none")
        probability = logits.sigmoid()
        agreement = goal * probability + (1 - goal) * (1 - probability)
        alpha = goal * FOCAL_ALPHA + (1 - goal) * (1 - FOCAL_ALPHA)
        return (loss * alpha * (1 - agreement) ** self.gains.focal_gamma).mean()

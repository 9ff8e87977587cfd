"""The detection heads: raw maps per level, and their decoding to boxes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.common import Activation, Conv, Kernel, recording_graph, silu
from utils.geometry.boxes import cxcywh_to_xyxy
from utils.geometry.records import HeadMaps, Predictions

LOGIT_MARGIN = 1e-3  # a score just above a limit must not be lost to the rounding of the limit's logit


def boxes_of_cells(sigmoids: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes out of the sigmoids (..., 4 or more) of ``tx ty tw th`` and their anchors (..., 2), in any unit.

    A centre reaches half a cell beyond its own, a side up to four anchors: YOLOv5's bounded forms of YOLOv3's.

    Returns:
        Centres (..., 2) from the upper left of their cell, in cells; widths and heights (..., 2) in the anchors' unit.
    """
    roots = 2 * sigmoids[..., 2:4]
    # A product, not a power: the numbers are the same, and LiteRT's converter has no power of five dimensions.
    return 2 * sigmoids[..., 0:2] - 0.5, roots * roots * anchors


def _cells(sigmoids: Tensor) -> Tensor:
    """Column and row of each cell (H, W, 2) of a level's sigmoids (B, A, H, W, 5 + C), float32, on their device."""
    if torch.jit.is_tracing():  # type: ignore[no-untyped-call,attr-defined]
        # A trace would keep the device that arange is given, and the file would run on no other one. What is computed
        # from the map goes where the map goes: ones (a sigmoid is never 2), summed up to each place.
        ones = (sigmoids[0, 0, :, :, 0] != 2).to(torch.float32)
        return torch.stack((ones.cumsum(1), ones.cumsum(0)), dim=2) - 1
    height, width = sigmoids.shape[2:4]
    across = torch.arange(width, device=sigmoids.device, dtype=torch.float32).view(1, -1, 1).expand(height, -1, -1)
    down = torch.arange(height, device=sigmoids.device, dtype=torch.float32).view(-1, 1, 1).expand(-1, width, -1)
    return torch.cat((across, down), dim=2)


class ChosenCells(NamedTuple):
    """Some cells of a level, the same ones in every image of a batch."""

    logits: Tensor  # (B, N, E)
    answer: Tensor  # (N,) which of a place's A answers
    place: Tensor  # (N, 2) column and row of the place, float32

    @classmethod
    def of(cls, logits: Tensor, best: Tensor, limit: float) -> ChosenCells:
        """Of a level's logits (B, A, H, W, E) those whose ``best`` (B, A, H, W) is above the limit in any image."""
        # In float32: half precision would round the limit too.
        answer, row, column = (best.float() > limit).any(dim=0).nonzero().unbind(dim=1)
        return cls(logits[:, answer, row, column], answer, torch.stack((column, row), dim=1).float())


def limit_of_logits(maps: HeadMaps, least_score: float) -> float | None:
    """The logit that a cell must exceed to score more than ``least_score``; None where leaving cells out does not pay.

    On the CPU it does: few cells pass, and the boxes and classes of the others need not be computed. A GPU computes
    them sooner than it can be asked which ones pass.
    """
    if not 0 < least_score < 1 or maps.levels[0].device.type != "cpu":
        return None
    return math.log(least_score / (1 - least_score)) - LOGIT_MARGIN


class DetectionHead(nn.Module, ABC):
    """Feature maps to raw logits per level, finest first, and raw logits to boxes.

    ``anchors`` is a buffer (L, A, 2) of widths and heights in cells of the level, the unit of the weight format; A is 0
    where boxes are not told from anchors.
    """

    anchors: Tensor
    class_count: int
    strides: tuple[int, ...]  # pixels per cell of each level

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """What moves or converts a module. Anchors stay float32 where weights become half: boxes are decoded so."""
        anchors = self.anchors
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.anchors.element_size() < anchors.element_size():
            self.anchors = anchors.to(self.anchors.device)
        return self

    @property
    def anchors_px(self) -> Tensor:
        """Anchor widths and heights (L, A, 2) in pixels of the network frame."""
        return self.anchors * self._stride_column()

    def set_anchors(self, anchors_px: Tensor) -> None:
        """Takes anchors (L, A, 2) in pixels, finest level first."""
        if anchors_px.shape != self.anchors.shape:
            raise ValueError(f"anchors of shape {tuple(anchors_px.shape)}, the head has {tuple(self.anchors.shape)}")
        if self.anchors.is_meta:
            return  # shapes alone; a division of them would load torch's compiler, a second of every program's start
        self.anchors.copy_(anchors_px.to(self.anchors) / self._stride_column())

    def _stride_column(self) -> Tensor:
        return self.anchors.new_tensor(self.strides).view(-1, 1, 1)

    @abstractmethod
    def rows(self, maps: HeadMaps) -> Tensor:
        """Decoded rows (B, K, 5 + C) float32: cx cy w h in network pixels, objectness and class probabilities 0-1.

        K runs over levels, anchors, cell rows, cell columns, in this order; it is the output layout of exported models.
        """

    def decode(self, maps: HeadMaps, least_score: float = 0.0) -> Predictions:
        """Raw logits to boxes: (B, K, 4) xyxy in network pixels, objectness (B, K), class_probs (B, K, C), float32.

        K runs as in ``rows``. Cells that score more than ``least_score`` in no image of the batch may be left out.
        """
        rows = self.rows(maps)
        return Predictions(cxcywh_to_xyxy(rows[..., :4]), rows[..., 4], rows[..., 5:])


class Detect(DetectionHead):
    """One 1x1 convolution per level; each cell answers for A anchors with ``tx ty tw th``, objectness and C classes."""

    def __init__(
        self, class_count: int, in_channels: Sequence[int], strides: Sequence[int], anchors_px: Tensor
    ) -> None:
        """``in_channels`` and ``strides`` (pixels per cell) per level; ``anchors_px`` (L, A, 2) in pixels."""
        super().__init__()
        self.class_count = class_count
        self.strides = tuple(strides)
        self.anchor_count = int(anchors_px.shape[1])
        self.register_buffer("anchors", torch.zeros(len(self.strides), self.anchor_count, 2))
        self.set_anchors(anchors_px)
        outputs = self.anchor_count * (5 + class_count)
        self.m = nn.ModuleList(nn.Conv2d(channels, outputs, 1) for channels in in_channels)
        self.initialise_biases()

    @torch.no_grad()
    def initialise_biases(self) -> None:
        """Priors of a fresh head: 8 objects in a 640 px image, classes as if one of them held 0.6 of the objects.

        Objectness starts at log(8 / cells) and classes at log(0.6 / C), in the spirit of focal loss's prior
        (Lin et al., RetinaNet, sec. 3.3); without it the first steps are spent on learning that most cells are empty.
        """
        for convolution, stride in zip(self.m, self.strides, strict=True):
            assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
            bias = convolution.bias.view(self.anchor_count, -1)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, 5:] += math.log(0.6 / (self.class_count - 0.99999))

    def forward(self, maps: Sequence[Tensor]) -> HeadMaps:
        """Feature maps, one (B, C_l, H_l, W_l) per level, to raw logits (B, A, H_l, W_l, 5 + C)."""
        return HeadMaps(
            tuple(
                convolution(x).unflatten(1, (self.anchor_count, 5 + self.class_count)).permute(0, 1, 3, 4, 2)
                for convolution, x in zip(self.m, maps, strict=True)
            )
        )

    def rows(self, maps: HeadMaps) -> Tensor:
        """Decoded rows (B, K, 5 + C) float32: cx cy w h in network pixels, objectness and class probabilities 0-1.

        K runs over levels, anchors, cell rows, cell columns, in this order; it is the output layout of exported models.
        Always computed in float32: half precision has steps of half a pixel at 640.
        """
        if recording_graph() or torch.compiler.is_compiling() or torch.is_grad_enabled():
            return torch.cat([self._level_rows(index, logits) for index, logits in enumerate(maps.levels)], dim=1)
        # Each level's sigmoid goes straight to its place: the maps are large, and joining parts would move them thrice.
        counts = [logits.shape[1] * logits.shape[2] * logits.shape[3] for logits in maps.levels]
        first = maps.levels[0]
        rows = torch.empty((len(first), sum(counts), first.shape[-1]), device=first.device)
        for level, (logits, part) in enumerate(zip(maps.levels, torch.split(rows, counts, dim=1), strict=True)):
            place = part.view(logits.shape)
            torch.sigmoid(logits.float(), out=place)
            place[..., :2], place[..., 2:4] = self._boxes(level, place)
        return rows

    def decode(self, maps: HeadMaps, least_score: float = 0.0) -> Predictions:
        """See ``DetectionHead``."""
        limit = limit_of_logits(maps, least_score)
        if limit is None:
            return super().decode(maps)
        # A score is no larger than the objectness.
        chosen = (ChosenCells.of(logits, logits[..., 4], limit) for logits in maps.levels)
        return Predictions.joined(self._decode_cells(level, cells) for level, cells in enumerate(chosen))

    def _decode_cells(self, level: int, cells: ChosenCells) -> Predictions:
        """Predictions for some cells of a level."""
        # With a gap between rows each is computed by itself, as among all cells: the last bits are the same.
        gapped = torch.empty((*cells.logits.shape[:2], cells.logits.shape[2] + 1), device=cells.logits.device)
        out, stride = torch.sigmoid(cells.logits.float(), out=gapped[..., :-1]), float(self.strides[level])
        offsets, sizes = boxes_of_cells(out, self.anchors[level].float()[cells.answer] * stride)
        boxes = torch.cat(((offsets + cells.place) * stride, sizes), dim=-1)
        return Predictions(cxcywh_to_xyxy(boxes), out[..., 4], out[..., 5:])

    def _level_rows(self, level: int, logits: Tensor) -> Tensor:
        """Rows (B, A H W, 5 + C) of one level."""
        out = logits.float().sigmoid()
        return torch.cat((*self._boxes(level, out), out[..., 4:]), dim=-1).flatten(1, 3)

    def _boxes(self, level: int, out: Tensor) -> tuple[Tensor, Tensor]:
        """``cx cy`` and ``w h``, each (B, A, H, W, 2) network pixels, of a level's sigmoids (B, A, H, W, 5 + C)."""
        stride = float(self.strides[level])
        anchors = self.anchors[level].float() * stride
        offsets, sizes = boxes_of_cells(out, anchors[:, None, None, :])
        return (offsets + _cells(out)) * stride, sizes


class BranchForm(NamedTuple):
    """What the branches of an anchor-free head are made of; YOLOv5u's unless said otherwise."""

    width: int | None = None  # channels inside; None: 64 of the boxes', and as many of the classes' as the finest map
    depth: int = 2  # 3x3 convolutions; with none the branches are 1x1 convolutions, and have no width


YOLOV5U = BranchForm()


class AnchorFreeDetect(DetectionHead):
    """Two branches per level: each cell answers with the distances from its centre to four sides, and with C classes.

    A distance is the mean of a distribution over ``BINS`` whole numbers of cells (Li et al., "Generalized Focal Loss",
    NeurIPS 2020, eq. 5). There is no objectness and there are no anchors. Parameter names and widths are those of the
    published YOLOv5u weights: ``cv2`` the branch of boxes, ``cv3`` that of classes.
    """

    BINS = 16
    numbers: Tensor

    def __init__(
        self,
        class_count: int,
        in_channels: Sequence[int],
        strides: Sequence[int],
        act: Activation = silu,
        form: BranchForm = YOLOV5U,
    ) -> None:
        """``in_channels`` and ``strides`` (pixels per cell) per level, the finest first."""
        super().__init__()
        self.class_count = class_count
        self.form = form
        self.strides = tuple(strides)
        # Not in the state: the published weights have neither.
        self.register_buffer("anchors", torch.zeros(len(self.strides), 0, 2), persistent=False)
        self.register_buffer("numbers", torch.arange(float(self.BINS)), persistent=False)
        finest = in_channels[0]
        widths = form.width or max(16, finest // 4, 4 * self.BINS), form.width or max(finest, min(class_count, 100))
        self.cv2, self.cv3 = (
            nn.ModuleList(_branch((channels, width, answers), form.depth, act) for channels in in_channels)
            for width, answers in zip(widths, (4 * self.BINS, class_count), strict=True)
        )
        self.joined: nn.ModuleList | None = None  # both branches as one, for inference (see models/fuse.py)
        self.initialise_biases()

    @torch.no_grad()
    def initialise_biases(self) -> None:
        """Priors of a fresh head: flat distributions, and 5 objects in a 640 px image, as in YOLOv5u."""
        for boxes, classes, stride in zip(self.cv2, self.cv3, self.strides, strict=True):
            for branch, prior in ((boxes, 1.0), (classes, math.log(5 / self.class_count / (640 / stride) ** 2))):
                assert isinstance(branch, nn.Sequential) and isinstance(branch[-1], nn.Conv2d)
                assert branch[-1].bias is not None
                branch[-1].bias.fill_(prior)

    def forward(self, maps: Sequence[Tensor]) -> HeadMaps:
        """Feature maps, one (B, C_l, H_l, W_l) per level, to raw logits (B, 1, H_l, W_l, 4 BINS + C)."""
        if self.joined is not None:
            answers = [branch(x) for branch, x in zip(self.joined, maps, strict=True)]
        else:
            branches = zip(self.cv2, self.cv3, maps, strict=True)
            answers = [torch.cat((boxes(x), classes(x)), dim=1) for boxes, classes, x in branches]
        return HeadMaps(tuple(each.unsqueeze(1).permute(0, 1, 3, 4, 2) for each in answers))

    def rows(self, maps: HeadMaps) -> Tensor:
        """See ``DetectionHead``; the objectness is 1, so that a score is the class's probability."""
        boxes, _, probs = self.decode(maps)
        sizes = boxes[..., 2:] - boxes[..., :2]
        centres = (boxes[..., :2] + boxes[..., 2:]) / 2
        return torch.cat((centres, sizes, torch.ones_like(sizes[..., :1]), probs), dim=-1)

    def decode(self, maps: HeadMaps, least_score: float = 0.0) -> Predictions:
        """See ``DetectionHead``; corners are not led over centres and sizes, which would round them."""
        limit = limit_of_logits(maps, least_score)
        levels = zip(maps.levels, self.strides, strict=True)
        return Predictions.joined(self._decode_level(logits, stride, limit) for logits, stride in levels)

    def _decode_level(self, logits: Tensor, stride: int, limit: float | None) -> Predictions:
        """Predictions for a level's logits (B, 1, H, W, 4 BINS + C), or for its cells with a class above the limit."""
        if limit is None:
            probs = logits[..., 4 * self.BINS :].float().sigmoid()
            # Flat before distances are made of them: CoreML has tensors of five dimensions at most.
            logits, places, probs = logits.flatten(1, 3), _cells(probs).flatten(0, 1), probs.flatten(1, 3)
        else:
            logits, _, places = ChosenCells.of(logits, logits[..., 4 * self.BINS :].amax(dim=-1), limit)
            probs = logits[..., 4 * self.BINS :].float().sigmoid()
        centres, distances = places + 0.5, self.distances(logits)
        boxes = torch.cat((centres - distances[..., :2], centres + distances[..., 2:]), dim=-1) * stride
        return Predictions(boxes, torch.ones_like(boxes[..., 0]), probs)

    def distances(self, logits: Tensor) -> Tensor:
        """Logits (..., 4 BINS + C) to distances (..., 4) left, top, right, bottom of the cell's centre, in cells."""
        sides = logits[..., : 4 * self.BINS].float().reshape(*logits.shape[:-1], 4, self.BINS)
        shares = sides.softmax(dim=-1)
        return (shares * self.numbers.to(shares)).sum(dim=-1)


def _branch(channels: tuple[int, int, int], depth: int, act: Activation) -> nn.Sequential:
    """``depth`` 3x3 convolutions and one that gives the answers; ``channels``: of the map, inside, of the answers."""
    before, inside, outputs = channels
    convolutions = [Conv(inside if number else before, inside, Kernel(3), act) for number in range(depth)]
    return nn.Sequential(*convolutions, nn.Conv2d(inside if depth else before, outputs, 1))

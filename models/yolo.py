"""The detection model: an architecture's rows as layers, run in order."""

from __future__ import annotations

if __name__ == "__main__":  # python models/yolo.py, as in YOLOv5: the command python -m models, which ends the program
    import runpy
    import sys
    from pathlib import Path

    if not __package__:
        sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, instead of this folder
    runpy.run_module("models", run_name="__main__")

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from models.architecture import Architecture, LayerRow, find_architecture, read_architecture
from models.builders import HEADS, JOINS_MAPS, build_layer
from models.head import DetectionHead
from models.rows import RowContext, parse_activation
from utils.geometry.records import HeadMaps, Predictions
from utils.user_error import UserError

__all__ = [
    "Architecture",
    "DetectionModel",
    "LayerPlan",
    "find_architecture",
    "load_architecture",
    "read_architecture",
]

MOST_REPEATS = 200  # of one row
MOST_LAYER_PARAMETERS = 2**30  # 4 GiB in fp32; the largest layer of yolov5x6 has 2**25


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Where a layer takes its maps from (-1: the images) and how its row reads."""

    sources: tuple[int, ...]
    row: LayerRow
    joins: bool  # takes a list of maps
    arguments: str
    repeats: int
    reduction: Fraction  # pixels of the network frame per cell of its map


class DetectionModel(nn.Module):
    """A YOLOv5-type detector built from an architecture.

    ``forward``: images (B, channels, H, W) float 0-1, H and W multiples of ``stride`` -> HeadMaps of raw logits.
    ``decode`` turns them into Predictions in network pixels; ``predict`` is both. State-dict names are YOLOv5's.
    """

    def __init__(
        self,
        architecture: Architecture,
        class_count: int | None = None,
        names: tuple[str, ...] | None = None,
        channels: int = 3,
    ) -> None:
        """``class_count`` (or the number of ``names``) replaces the file's; ``channels`` counts where it has no ``ch``.

        Names default to the class numbers.
        """
        super().__init__()
        if class_count is None:
            class_count = architecture.class_count if names is None else len(names)
        self.architecture = replace(
            architecture,
            class_count=class_count,
            channels=channels if architecture.channels is None else architecture.channels,
        )
        self.class_count = self.architecture.class_count
        self.names = tuple(map(str, range(self.class_count))) if names is None else tuple(names)
        if len(self.names) != self.class_count:
            raise UserError(f"{architecture.origin}: {len(self.names)} class names for {self.class_count} classes")
        _check_head_is_last(self.architecture)
        layers, self.plan, self.channels = build_layers(self.architecture)
        self.model = nn.ModuleList(layers)
        read_later = {source for index, plan in enumerate(self.plan) for source in plan.sources if source != index - 1}
        self._read_later = frozenset(read_later)

    @property
    def head(self) -> DetectionHead:
        """The detection head, always the last layer."""
        head = self.model[-1]
        assert isinstance(head, DetectionHead)
        return head

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the network frame per cell, finest level first."""
        return self.head.strides

    @property
    def stride(self) -> int:
        """Frames are multiples of it, so that every map is whole: also of those that are coarser than the head's."""
        return math.lcm(*(int(plan.reduction) for plan in self.plan if plan.reduction.denominator == 1))

    @property
    def anchors(self) -> Tensor:
        """Anchor widths and heights (L, A, 2) in pixels, finest level first; A is 0 in a model without anchors."""
        return self.head.anchors_px

    def set_anchors(self, anchors_px: Tensor) -> None:
        """Takes anchors (L, A, 2) in pixels, finest level first."""
        self.head.set_anchors(anchors_px)

    def forward(self, images: Tensor) -> HeadMaps:
        kept: dict[int, Tensor] = {}
        x = images
        head_inputs: list[Tensor] = []
        for index, (layer, plan) in enumerate(zip(self.model, self.plan, strict=True)):
            inputs = [x if source == index - 1 else kept[source] for source in plan.sources]
            if index == len(self.plan) - 1:
                head_inputs = inputs
                break
            x = layer(inputs) if plan.joins else layer(inputs[0])
            if index in self._read_later:
                kept[index] = x
        maps: HeadMaps = self.head(head_inputs)
        return maps

    def decode(self, maps: HeadMaps, least_score: float = 0.0) -> Predictions:
        """Raw logits to boxes (B, K, 4) xyxy in network pixels, objectness (B, K), class_probs (B, K, C), float32."""
        return self.head.decode(maps, least_score)

    def predict(self, images: Tensor, least_score: float = 0.0) -> Predictions:
        """Images (B, channels, H, W) float 0-1 to decoded, unsuppressed predictions, see ``DetectionHead.decode``."""
        return self.decode(self(images), least_score)


def load_architecture(name: str | Path) -> Architecture:
    """The architecture called ``name``: a path, or a file of models/ or models/hub/."""
    return read_architecture(find_architecture(name))


def _resolved_sources(row: LayerRow, index: int, where: str) -> tuple[int, ...]:
    resolved = []
    for source in row.sources:
        layer = index + source if source < 0 else source
        reads_images = index == 0 and layer == -1
        if not (reads_images or 0 <= layer < index):
            raise UserError(f"{where}: from is {source}; only layers before it, 0 to {index - 1}, can be read")
        resolved.append(layer)
    return tuple(resolved)


def build_layers(architecture: Architecture) -> tuple[list[nn.Module], tuple[LayerPlan, ...], tuple[int, ...]]:
    """Layers, where each takes its maps from, and how many channels each gives."""
    activation = parse_activation(architecture.activation, architecture.origin)
    layers: list[nn.Module] = []
    plans: list[LayerPlan] = []
    channels: list[int] = []
    reductions: list[Fraction] = []
    image_channels = architecture.channels or 3
    for index, row in enumerate(architecture.rows):
        where = architecture.place(index)
        sources = _resolved_sources(row, index, where)
        context = RowContext(
            where=where,
            architecture=architecture,
            channels=tuple(channels[s] if s >= 0 else image_channels for s in sources),
            reductions=tuple(reductions[s] if s >= 0 else Fraction(1) for s in sources),
            repeats=architecture.scaled_depth(row.number),
            activation=activation,
        )
        _check_size(row, context)
        built, arguments = build_layer(row.arguments, row.module, context)
        layers.append(built.module)
        channels.append(built.channels)
        reductions.append(built.reduction)
        plans.append(LayerPlan(sources, row, row.module in JOINS_MAPS, arguments, context.repeats, built.reduction))
    return layers, tuple(plans), tuple(channels)


def _check_size(row: LayerRow, context: RowContext) -> None:
    """Refuse a layer that no memory holds, before any is taken for it."""
    if context.repeats > MOST_REPEATS:
        raise UserError(
            f"{context.where}: number {row.number} times depth_multiple {context.architecture.depth_multiple:g} makes "
            f"more than {MOST_REPEATS} repeats"
        )
    with torch.device("meta"):
        trial, _ = build_layer(row.arguments, row.module, context)
    parameters = count_parameters(trial.module)
    if parameters > MOST_LAYER_PARAMETERS:
        arguments = ", ".join(map(str, row.arguments))
        raise UserError(f"{context.where}: arguments {arguments} make {parameters} parameters in one layer")


def _check_head_is_last(architecture: Architecture) -> None:
    heads = [index for index, row in enumerate(architecture.rows) if row.module in HEADS]
    last = len(architecture.rows) - 1
    if last not in heads:
        raise UserError(f"{architecture.place(last)}: the last row must be {' or '.join(HEADS)}")
    if len(heads) > 1:
        module = architecture.rows[heads[0]].module
        raise UserError(f"{architecture.place(heads[0])}: only the last row may be {module}")


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in module.parameters())


def zero_images(model: DetectionModel, height: int, width: int) -> Tensor:
    """A black batch (1, channels, H, W) on the model's device, in its dtype."""
    parameter = next(model.parameters())
    return torch.zeros(
        1, model.architecture.channels or 3, height, width, device=parameter.device, dtype=parameter.dtype
    )

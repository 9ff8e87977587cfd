"""What each layer of a detector is for: a stage of the backbone or a level of the neck, told from the graph.

Detectors of other levels have the same work done by layers of other numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.alignment import (
    embedded,
    fits_inside,
    from_strided,
    renamed,
    signature,
    strided_form,
    to_strided,
    weight_name,
)
from models.common import C3, SPPF, Concat, Conv
from models.rare_layers import SPP, BottleneckCSP, GhostConv
from models.yolo import DetectionModel

BACKBONE, TOP_DOWN, BOTTOM_UP = "backbone", "top-down", "bottom-up"
DOWNSAMPLING = "downsampling"
# Parameters that read a layer's input channels, by the layer's type.
INPUT_WEIGHTS: dict[type[nn.Module], tuple[str, ...]] = {
    Conv: ("conv.weight",),
    C3: ("cv1.conv.weight", "cv2.conv.weight"),
    BottleneckCSP: ("cv1.conv.weight", "cv2.weight"),
    SPP: ("cv1.conv.weight",),
    SPPF: ("cv1.conv.weight",),
    GhostConv: ("cv1.conv.weight",),
}


class Role(NamedTuple):
    """The work of one layer that has tensors."""

    part: str  # BACKBONE; TOP_DOWN: the neck up to its first downsampling; BOTTOM_UP: from there on
    stride: Fraction  # pixels of the network frame per cell of the layer's map
    work: str  # DOWNSAMPLING, or the name of the layer's type
    number: int  # among the layers of equal part, stride and work


def layers_by_role(model: DetectionModel) -> dict[Role, int]:
    """The number of the layer that has each role; layers without tensors and the head have none."""
    layers: dict[Role, int] = {}
    part = BACKBONE
    for index, plan in enumerate(model.plan[:-1]):
        source = plan.sources[0]
        before = model.plan[source].reduction if source >= 0 else Fraction(1)
        if index >= len(model.architecture.backbone):
            part = BOTTOM_UP if part == BOTTOM_UP or plan.reduction > before else TOP_DOWN
        if not model.model[index].state_dict():
            continue
        work = DOWNSAMPLING if plan.reduction > before else type(model.model[index]).__name__
        number = sum(role[:3] == (part, plan.reduction, work) for role in layers)
        layers[Role(part, plan.reduction, work, number)] = index
    return layers


def further_channels(model: DetectionModel, layer: int, source: DetectionModel, old: int) -> int:
    """How many channels ``layer`` reads behind all that the layer ``old`` of another model reads; 0: not just these."""
    ours, theirs = _widths_read(model, layer), _widths_read(source, old)
    return sum(ours[len(theirs) :]) if ours[: len(theirs)] == theirs else 0


def _widths_read(model: DetectionModel, layer: int) -> list[int]:
    """Channels of each map that a layer reads, joined or alone."""
    (before,) = model.plan[layer].sources
    joins = before >= 0 and isinstance(model.model[before], Concat)
    return [model.channels[each] for each in (model.plan[before].sources if joins else (before,)) if each >= 0]


def tensors_from(
    old: nn.Module, new: nn.Module, state: Mapping[str, Tensor], further: int = 0
) -> dict[str, Tensor] | None:
    """Values for the tensors of ``new``, by their names in it, out of ``state``, those of ``old``; None: no fit.

    Another form of the same strided convolution is rewritten. ``further``: channels that ``new`` reads behind those of
    ``old``; they count for nothing until training has found what they are good for.
    """
    before, after = strided_form(old), strided_form(new)
    if not fits_inside(before, after) and signature(old) != signature(new):
        return None
    values: dict[str, Tensor] = {}
    for name, fresh in new.state_dict().items():
        value = state.get(renamed(name, new, old))
        if value is None:
            return None
        if before is not None and after is not None and name == weight_name(new):
            value = from_strided(new, embedded(to_strided(old, value), before, after))
        if further and name in INPUT_WEIGHTS.get(type(new), ()):
            value = torch.cat((value, value.new_zeros(len(value), further, *value.shape[2:])), dim=1)
        if value.shape != fresh.shape:
            return None
        values[name] = value
    return values


def nearest_levels(strides: Sequence[int], given: Sequence[int]) -> list[int]:
    """For each level of ``strides`` the number of the level in ``given`` with the nearest stride, by ratio."""
    return [min(range(len(given)), key=lambda level: abs(math.log2(given[level] / stride))) for stride in strides]

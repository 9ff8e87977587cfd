"""Which layers of one detector do the work of which layers of another, space-to-depth forms included.

A strided convolution has three forms here: ``Conv`` of stride 2; ``SPDConv`` or ``Focus``, which are strided
convolutions of twice the kernel size; and ``Conv`` of stride 1 followed by ``SPD``, whose phase (0,0) is its output.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.common import SPD, Conv, Focus, SPDConv, released_to_unshuffle_order
from models.yolo import DetectionModel


class Relation(Enum):
    """How a target layer relates to its source layer."""

    SAME = auto()  # takes the tensors as they are
    REWRITTEN = auto()  # another form of the same strided convolution
    FULL_RESOLUTION = auto()  # the source's convolution without its stride; SPD follows
    PHASES = auto()  # that SPD: phase (0,0) is the source's output, the others are new


@dataclass(frozen=True, slots=True)
class Match:
    """Target layer ``target`` stands in for source layer ``source``."""

    target: int
    source: int
    relation: Relation


@dataclass(frozen=True, slots=True)
class StridedForm:
    """A layer seen as one convolution of stride above 1; pixels."""

    size: int
    stride: int
    padding: int


def strided_form(layer: nn.Module) -> StridedForm | None:
    """The strided convolution that ``layer`` is, if it is one (square, ungrouped, undilated)."""
    if isinstance(layer, SPDConv):
        return StridedForm(layer.scale * layer.conv.kernel_size[0], layer.scale, layer.strided_padding)
    conv = layer.conv.conv if isinstance(layer, Focus) else layer.conv if isinstance(layer, Conv) else None
    if conv is None or conv.groups != 1 or conv.dilation != (1, 1) or conv.kernel_size[0] != conv.kernel_size[1]:
        return None
    if isinstance(layer, Focus):
        if conv.stride != (1, 1):
            return None
        scale = layer.spd.scale
        return StridedForm(scale * conv.kernel_size[0], scale, scale * int(conv.padding[0]))
    return StridedForm(conv.kernel_size[0], conv.stride[0], int(conv.padding[0])) if conv.stride[0] > 1 else None


def weight_name(layer: nn.Module) -> str:
    """Name of the convolution's weight inside a layer that has a strided form."""
    return "conv.conv.weight" if isinstance(layer, Focus) else "conv.weight"


def renamed(name: str, target: nn.Module, source: nn.Module) -> str:
    """A tensor's name inside ``target`` to its name inside ``source`` (Focus wraps a Conv)."""
    here, there = weight_name(target).removesuffix("conv.weight"), weight_name(source).removesuffix("conv.weight")
    return there + name.removeprefix(here) if here != there else name


def to_strided(layer: nn.Module, weight: Tensor) -> Tensor:
    """The layer's own weight to the kernel (O, C, size, size) of its strided form."""
    if isinstance(layer, SPDConv):
        return functional.pixel_shuffle(weight, layer.scale)
    if isinstance(layer, Focus):
        scale = layer.spd.scale
        order = released_to_unshuffle_order(weight.shape[1] // scale**2, scale)
        return functional.pixel_shuffle(weight[:, order], scale)
    return weight


def from_strided(layer: nn.Module, kernel: Tensor) -> Tensor:
    """The inverse of ``to_strided``."""
    if isinstance(layer, SPDConv):
        return functional.pixel_unshuffle(kernel, layer.scale)
    if isinstance(layer, Focus):
        scale = layer.spd.scale
        order = released_to_unshuffle_order(kernel.shape[1], scale)
        return functional.pixel_unshuffle(kernel, scale)[:, torch.argsort(order)]
    return kernel


def embedded(kernel: Tensor, source: StridedForm, target: StridedForm) -> Tensor:
    """The kernel inside a larger one of zeros, so that both read the same pixels: offset by the padding they add."""
    before = target.padding - source.padding
    after = target.size - source.size - before
    return functional.pad(kernel, (before, after, before, after))


def fits_inside(source: StridedForm | None, target: StridedForm | None) -> bool:
    """Whether ``embedded`` keeps the function: equal strides, and no tap of the source outside the target."""
    if source is None or target is None or source.stride != target.stride:
        return False
    before = target.padding - source.padding
    return before >= 0 and before + source.size <= target.size


def signature(layer: nn.Module) -> tuple[object, ...]:
    """What two layers must share to be the same operation; channels and repeats are left to the tensors' shapes."""
    conv = layer.conv if isinstance(layer, (Conv, SPDConv)) else layer
    if isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d)):
        grouped = conv.groups > 1 if isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)) else False
        return type(layer), conv.kernel_size, conv.stride, conv.padding, conv.dilation, grouped
    if isinstance(layer, nn.Upsample):
        return type(layer), layer.scale_factor, layer.mode
    if isinstance(layer, SPD):
        return type(layer), layer.scale
    return (type(layer),)


def _loses_stride(source: nn.Module, target: nn.Module, following: nn.Module | None) -> bool:
    """A "same" convolution of stride 2 against the same one of stride 1 with SPD(2) behind it."""
    if not (isinstance(source, Conv) and isinstance(target, Conv) and isinstance(following, SPD)):
        return False
    old, new = source.conv, target.conv
    return (
        old.stride == (following.scale,) * 2
        and new.stride == (1, 1)
        and (old.kernel_size, old.padding, old.dilation, old.groups)
        == (new.kernel_size, new.padding, new.dilation, new.groups)
        and all(size % 2 for size in new.kernel_size)
        and new.padding == tuple(size // 2 for size in new.kernel_size)
    )


def align(source: DetectionModel, target: DetectionModel) -> tuple[Match, ...]:
    """Matches from the first layer on, as far as both models have the same graph."""
    matches: list[Match] = []
    origin: dict[int, int] = {-1: -1}  # target layer -> source layer of equal output
    taken = 0  # source layers done
    index = 0
    while index < len(target.plan) and taken < len(source.plan):
        old, new = source.model[taken], target.model[index]
        following = target.model[index + 1] if index + 1 < len(target.plan) else None
        if tuple(origin.get(each) for each in target.plan[index].sources) != source.plan[taken].sources:
            break
        if fits_inside(strided_form(old), strided_form(new)):
            relation = Relation.SAME if signature(old) == signature(new) else Relation.REWRITTEN
        elif signature(old) == signature(new):
            relation = Relation.SAME
        elif _loses_stride(old, new, following) and target.plan[index + 1].sources == (index,):
            matches.append(Match(index, taken, Relation.FULL_RESOLUTION))
            relation, index = Relation.PHASES, index + 1
        else:
            break
        matches.append(Match(index, taken, relation))
        origin[index] = taken
        taken, index = taken + 1, index + 1
    return tuple(matches)

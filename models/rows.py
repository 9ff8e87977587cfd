"""From a row of an architecture file to a layer: one small builder per module name, found in a registry.

A builder reads its arguments by name and type, so that a wrong one is reported with file, row and value; nothing in
the file is ever evaluated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import nn

from models.architecture import Architecture, Argument, nearest
from models.common import (
    C3,
    SPD,
    SPPF,
    Activation,
    BlockFactory,
    Bottleneck,
    Concat,
    Conv,
    Focus,
    Kernel,
    SPDConv,
    silu,
)
from models.head import Detect
from utils.user_error import UserError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    each.__name__: each
    for each in (nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Mish, nn.GELU, nn.ELU, nn.Identity)
}


class RowArguments:
    """The arguments of one row, taken one after the other."""

    def __init__(self, values: Sequence[Argument], where: str) -> None:
        self._left = list(values)
        self._where = where
        self.taken: list[str] = []

    def __len__(self) -> int:
        return len(self._left)

    def _next(self, name: str, default: Argument, kind: str) -> Argument:
        if not self._left:
            if default is None:
                raise UserError(f"{self._where}: argument '{name}' is missing ({kind})")
            return default
        value = self._left.pop(0)
        self.taken.append(f"{name} {value}")
        return value

    def wrong(self, name: str, value: object, needed: str) -> UserError:
        return UserError(f"{self._where}: argument '{name}' is {value!r}; {needed} is needed")

    def integer(self, name: str, default: int | None = None, least: int = 1) -> int:
        value = self._next(name, default, "a whole number")
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.wrong(name, value, f"a whole number of at least {least}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._next(name, default, "a number")
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            raise self.wrong(name, value, "a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._next(name, default, "True or False")
        if not isinstance(value, bool):
            raise self.wrong(name, value, "True or False")
        return value

    def word(self, name: str, expected: Sequence[Argument], default: Argument = None) -> Argument:
        """One of ``expected``; the texts ``None`` and ``none`` count as None."""
        value = self._next(name, default, f"one of {', '.join(map(str, expected))}")
        value = None if value in ("None", "none") else value
        if value not in expected:
            raise self.wrong(name, value, f"one of {', '.join(map(str, expected))}")
        return value

    def optional_integer(self, name: str, least: int = 0) -> int | None:
        if not self._left or self._left[0] in (None, "None"):
            del self._left[:1]
            return None
        return self.integer(name, least=least)

    def sizes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = self._next(name, default, "a list of whole numbers")
        if not isinstance(value, tuple) or not value or not all(type(each) is int and each > 0 for each in value):
            raise self.wrong(name, value, "a list of whole numbers")
        return tuple(int(each) for each in value if isinstance(each, int))

    def done(self) -> None:
        if self._left:
            raise UserError(f"{self._where}: argument {self._left[0]!r} is one too many")


@dataclass(frozen=True, slots=True)
class RowContext:
    """What a builder knows about the place of its row."""

    where: str
    architecture: Architecture
    channels: tuple[int, ...]  # of the input maps
    reductions: tuple[Fraction, ...]  # pixels of the network frame per cell of each input map
    repeats: int
    activation: Activation

    @property
    def in_channels(self) -> int:
        return self.channels[0]

    @property
    def reduction(self) -> Fraction:
        return self.reductions[0]

    def width(self, arguments: RowArguments) -> int:
        """The output channels: the first argument, scaled by the width multiple."""
        return self.architecture.scaled_width(arguments.integer("out"))


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A layer, the channels it gives, and how many pixels of the network frame a cell of its map covers."""

    module: nn.Module
    channels: int
    reduction: Fraction


Builder = Callable[[RowArguments, RowContext], BuiltLayer]


def parse_activation(text: str, where: str) -> Activation:
    """``nn.LeakyReLU(0.1)`` and the like to a factory, by an allow-list: the text is matched, never evaluated."""
    match = re.fullmatch(
        r"(?:torch\.)?(?:nn\.)?(\w+)\(\s*([-+.\deE]*)\s*,?\s*(?:inplace=(?:True|False))?\s*\)", text.strip()
    )
    known = ", ".join(ACTIVATIONS)
    if match is None or match[1] not in ACTIVATIONS:
        raise UserError(f"{where}: activation is '{text}'; one of {known} is needed, as in nn.LeakyReLU(0.1)")
    kind = ACTIVATIONS[match[1]]
    if kind is nn.SiLU and not match[2]:
        return silu
    try:
        numbers = [float(match[2])] if match[2] else []
    except ValueError as error:
        raise UserError(f"{where}: activation is '{text}'; '{match[2]}' is not a number") from error
    if numbers and kind not in (nn.LeakyReLU, nn.ELU):
        raise UserError(f"{where}: activation is '{text}'; {match[1]} takes no number")
    return lambda: kind(*numbers)


def _kernel(arguments: RowArguments, default_size: int = 1) -> Kernel:
    """Arguments ``size, stride, padding, groups, dilation`` of a convolution."""
    size = arguments.integer("size", default_size)
    stride = arguments.integer("stride", 1)
    padding = arguments.optional_integer("padding")
    return Kernel(size, stride, padding, arguments.integer("groups", 1), arguments.integer("dilation", 1))


def _activation(arguments: RowArguments, context: RowContext) -> Activation:
    """A last argument ``act``: False leaves the activation out."""
    return context.activation if arguments.flag("act", True) else nn.Identity


def _strided(context: RowContext, module: nn.Module, channels: int, stride: int = 1) -> BuiltLayer:
    return BuiltLayer(module, channels, context.reduction * stride)


def _check_groups(context: RowContext, out: int, groups: int) -> None:
    if context.in_channels % groups or out % groups:
        raise UserError(
            f"{context.where}: {groups} groups divide neither {context.in_channels} nor {out} channels evenly"
        )


def _conv(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out, kernel = context.width(arguments), _kernel(arguments)
    _check_groups(context, out, kernel.groups)
    stride = int(kernel.stride) if isinstance(kernel.stride, int) else kernel.stride[0]
    return _strided(context, Conv(context.in_channels, out, kernel, _activation(arguments, context)), out, stride)


def _focus(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    kernel = Kernel(arguments.integer("size", 1), 1, None, arguments.integer("groups", 1))
    return _strided(context, Focus(context.in_channels, out, kernel, _activation(arguments, context)), out, 2)


def _spd(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    scale = arguments.integer("scale", 2, least=2)
    return _strided(context, SPD(scale), context.in_channels * scale**2, scale)


def _space_to_depth(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    """The authors' name of SPD(2); their argument is the dimension that the phases are joined along."""
    arguments.word("dimension", (1,), default=1)
    return _strided(context, SPD(2), context.in_channels * 4, 2)


def _spd_conv(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    size, scale = arguments.integer("size", 3), arguments.integer("scale", 2, least=2)
    if size % 2 == 0:
        raise arguments.wrong("size", size, "an odd number")
    return _strided(
        context, SPDConv(context.in_channels, out, size, scale, _activation(arguments, context)), out, scale
    )


def _bottleneck(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    shortcut, groups = arguments.flag("shortcut", True), arguments.integer("groups", 1)
    hidden = int(out * arguments.number("expansion", 0.5))
    return _strided(context, Bottleneck((context.in_channels, hidden, out), shortcut, groups, context.activation), out)


def _stage(context: RowContext, block: BlockFactory) -> BlockFactory:
    """``repeats`` blocks in a row."""
    return lambda hidden: nn.Sequential(*(block(hidden) for _ in range(context.repeats)))


def _c3(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    shortcut, groups = arguments.flag("shortcut", True), arguments.integer("groups", 1)
    expansion = arguments.number("expansion", 0.5)

    def block(hidden: int) -> nn.Module:
        return Bottleneck((hidden, hidden, hidden), shortcut, groups, context.activation)

    stage = C3(context.in_channels, out, _stage(context, block), expansion, context.activation)
    return _strided(context, stage, out)


def _sppf(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out, size = context.width(arguments), arguments.integer("size", 5)
    return _strided(context, SPPF(context.in_channels, out, size, context.activation), out)


def _concat(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    arguments.word("dimension", (1,), default=1)
    if len(set(context.reductions)) > 1:
        strides = ", ".join(map(str, context.reductions))
        raise UserError(f"{context.where}: maps of different strides ({strides}) cannot be joined")
    return _strided(context, Concat(1), sum(context.channels))


def _upsample(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    arguments.word("size", (None,), default="None")
    scale = arguments.integer("scale", least=1)
    mode = arguments.word("mode", ("nearest", "bilinear", "nearest-exact", "bicubic"), default="nearest")
    module = nn.Upsample(None, scale_factor=scale, mode=str(mode))
    return BuiltLayer(module, context.in_channels, context.reduction / scale)


def _initial_anchors(context: RowContext) -> torch.Tensor:
    """Anchors (L, A, 2) in pixels: the file's, finest level first; squares around the stride if it gives a number."""
    given = context.architecture.anchors
    if isinstance(given, int):
        growth = torch.tensor([2.0 ** (1 + 2 * (index + 0.5) / given) for index in range(given)])
        strides = torch.tensor([float(each) for each in context.reductions])
        return (strides[:, None] * growth[None, :])[..., None].repeat(1, 1, 2)
    if len(given) != len(context.channels):
        raise UserError(f"{context.where}: {len(context.channels)} levels, but anchors for {len(given)}")
    # Files of the first releases list the coarsest level first, whatever the order of the levels.
    coarsest_first = _total_area(given[0]) > _total_area(given[-1])
    return torch.tensor(given[::-1] if coarsest_first else given).view(len(given), -1, 2)


def _total_area(level: tuple[float, ...]) -> float:
    return sum(width * height for width, height in zip(level[::2], level[1::2], strict=True))


def _detect(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    arguments.word("nc", ("nc", context.architecture.class_count), default="nc")
    if len(arguments):
        arguments.word("anchors", ("anchors", context.architecture.anchors), default="anchors")
    anchors_px = _initial_anchors(context)
    strides: list[int] = []
    for reduction in context.reductions:
        if reduction.denominator != 1 or (strides and reduction <= strides[-1]):
            found = ", ".join(map(str, context.reductions))
            raise UserError(
                f"{context.where}: levels must go from the finest to the coarsest; their strides are {found}"
            )
        strides.append(int(reduction))
    head = Detect(context.architecture.class_count, context.channels, strides, anchors_px)
    return BuiltLayer(head, 0, Fraction(max(strides)))


BUILDERS: dict[str, Builder] = {
    "Conv": _conv,
    "Focus": _focus,
    "SPD": _spd,
    "space_to_depth": _space_to_depth,
    "SPDConv": _spd_conv,
    "Bottleneck": _bottleneck,
    "C3": _c3,
    "SPPF": _sppf,
    "Concat": _concat,
    "nn.Upsample": _upsample,
    "Detect": _detect,
}
USES_REPEATS = frozenset({"C3"})  # the number of the row goes inside the block
JOINS_MAPS = frozenset({"Concat", "Detect"})


def build_layer(arguments: Sequence[Argument], module: str, context: RowContext) -> tuple[BuiltLayer, str]:
    """The layer of one row and its arguments as a line of text. UserError names file, row and value."""
    if module not in BUILDERS:
        raise UserError(f"{context.where}: unknown module '{module}'{nearest(module, BUILDERS)}")
    if module not in JOINS_MAPS and len(context.channels) != 1:
        raise UserError(f"{context.where}: from names {len(context.channels)} layers; {module} takes one")
    copies = 1 if module in USES_REPEATS else context.repeats
    layers = []
    for _ in range(copies):
        taken = RowArguments(arguments, context.where)
        layers.append(BUILDERS[module](taken, context))
        taken.done()
    first = layers[0]
    if copies == 1:
        return first, ", ".join(taken.taken)
    if first.channels != context.in_channels or first.reduction != context.reduction:
        raise UserError(
            f"{context.where}: repeated {copies} times, but it turns {context.in_channels} channels into "
            f"{first.channels}; only a layer that keeps its input's shape can be repeated"
        )
    stacked = nn.Sequential(*(layer.module for layer in layers))
    return BuiltLayer(stacked, first.channels, first.reduction), ", ".join(taken.taken)

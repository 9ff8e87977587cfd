"""What a builder of a layer is given: the arguments of its row, read by name and type, and the row's place.

A wrong argument is reported with file, row and value; nothing in the file is ever evaluated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import nn

from models.architecture import Architecture, Argument
from models.common import Activation, silu
from utils.user_error import UserError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    each.__name__: each
    for each in (nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Mish, nn.GELU, nn.ELU, nn.Identity)
}

SIDES = ("size", "stride", "padding", "dilation")  # arguments that torch takes as one number or as height and width
LARGEST_INTEGER = 2**20  # of any argument; above it torch's own sums of sizes overflow


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
        if name in SIDES and self._left:
            first = self._left[0]
            if isinstance(first, tuple) and len(first) == 2 and first[0] == first[1]:
                self._left[0] = first[0]  # [1, 1], as torch takes it too
        value = self._next(name, default, "a whole number")
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.wrong(name, value, f"a whole number of at least {least}")
        if value > LARGEST_INTEGER:
            raise self.wrong(name, value, f"a whole number of at most {LARGEST_INTEGER}")
        return value

    def side(self, name: str, default: int = 1) -> int | tuple[int, int]:
        """One number, or a list of height and width; a list of two equal ones is the number."""
        if not self._left or not isinstance(self._left[0], tuple):
            return self.integer(name, default)
        value = self._left[0]
        if len(value) != 2 or not all(type(each) is int and 1 <= each <= LARGEST_INTEGER for each in value):
            raise self.wrong(name, list(value), "a whole number of at least 1 or a list of height and width")
        height, width = (int(each) for each in value if isinstance(each, int))
        self._next(name, None, "a whole number")
        return height if height == width else (height, width)

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
        return None if self.skips() else self.integer(name, least=least)

    def skips(self) -> bool:
        """Whether the next argument is None, which is then taken, or not given."""
        skipped = not self._left or self._left[0] in (None, "None")
        del self._left[: int(skipped)]
        return skipped

    def sizes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = self._next(name, default, "a list of whole numbers")
        if not isinstance(value, tuple) or not value or not all(type(each) is int and each > 0 for each in value):
            raise self.wrong(name, value, "a list of whole numbers")
        return tuple(int(each) for each in value if isinstance(each, int))

    def margins(self, name: str) -> int | tuple[int, int, int, int]:
        """One number, or left, right, top, bottom."""
        value = self._next(name, None, "a whole number or four")
        if type(value) is int and value >= 0:
            return value
        if isinstance(value, tuple) and len(value) == 4 and all(type(each) is int and each >= 0 for each in value):
            left, right, top, bottom = (each for each in value if isinstance(each, int))
            return left, right, top, bottom
        raise self.wrong(name, value, "a whole number or a list of four")

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
        out = arguments.integer("out")
        if not out * self.architecture.width_multiple <= LARGEST_INTEGER:
            raise UserError(
                f"{self.where}: width_multiple {self.architecture.width_multiple:g} makes too many channels"
            )
        return self.architecture.scaled_width(out)


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A layer, the channels it gives, and how many pixels of the network frame a cell of its map covers."""

    module: nn.Module
    channels: int
    reduction: Fraction


def initial_anchors(context: RowContext) -> torch.Tensor:
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

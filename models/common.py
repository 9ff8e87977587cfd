"""The layers that rows of architecture files name; those that few name are in `models.rare_layers`.

Maps are (B, C, H, W), float, any memory format (channels_last is fastest). Attribute names (``conv bn cv1 cv2 cv3
m``) are part of the weight format and never change: YOLOv5's published weights are addressed by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Callable[[], nn.Module]
BlockFactory = Callable[[int], nn.Module]  # hidden channels -> module that keeps them

# Published weights were trained with these, so every model of the family uses them.
BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.03


class Kernel(NamedTuple):
    """Geometry of a convolution. ``padding=None`` keeps the size of the map at stride 1 (odd kernels)."""

    size: int | tuple[int, int] = 1
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] | None = None
    groups: int = 1
    dilation: int = 1

    def same_padding(self) -> tuple[int, int]:
        """Rows and columns of zeros on each side: half of the dilated kernel unless given."""
        if self.padding is not None:
            return self.padding if isinstance(self.padding, tuple) else (self.padding, self.padding)
        height, width = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        return (self.dilation * (height - 1) + 1) // 2, (self.dilation * (width - 1) + 1) // 2


POINTWISE = Kernel()


def silu() -> nn.Module:
    """The activation of YOLOv5 since release 4.0.

    Not in place: its backward pass needs the input, of which an operation in place would first make a copy.
    """
    return nn.SiLU()


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the constants of the published weights."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)


def plain_convolution(in_channels: int, out_channels: int, kernel: Kernel, *, bias: bool = False) -> nn.Conv2d:
    """A bare convolution (no norm, no activation)."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel.size,
        kernel.stride,
        kernel.same_padding(),
        dilation=kernel.dilation,
        groups=kernel.groups,
        bias=bias,
    )


def depthwise(in_channels: int, out_channels: int, size: int, stride: int = 1, dilation: int = 1) -> Kernel:
    """A kernel with as many groups as the channels allow."""
    return Kernel(size, stride, None, math.gcd(in_channels, out_channels), dilation)


class Conv(nn.Module):
    """Convolution, batch norm, activation: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Kernel = POINTWISE, act: Activation = silu) -> None:
        super().__init__()
        self.conv = plain_convolution(in_channels, out_channels, kernel)
        self.bn: nn.Module = batch_norm(out_channels)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


def recording_graph() -> bool:
    """Whether an exporter is writing down what happens."""
    return bool(torch.jit.is_tracing() or torch.compiler.is_exporting())  # type: ignore[no-untyped-call,attr-defined]


def pad_to_multiple(x: Tensor, scale: int) -> Tensor:
    """Zero rows at the bottom and columns at the right until height and width are multiples of ``scale``.

    While a graph is being recorded nothing is added: exporters take frames that are multiples of the model's stride,
    and a size test would be frozen into the graph.
    """
    if recording_graph():
        return x
    bottom, right = -x.shape[-2] % scale, -x.shape[-1] % scale
    return functional.pad(x, (0, right, 0, bottom)) if bottom or right else x


class SPD(nn.Module):
    """Space-to-depth: (B, C, H, W) -> (B, scale^2 C, ceil(H / scale), ceil(W / scale)).

    Sunkara & Luo, "No More Strided Convolutions or Pooling" (ECML PKDD 2022), eq. 1, in the channel order of the
    authors' released weights: phase after phase, each phase holding all channels, phases (row, column) =
    (0,0), (1,0), (0,1), (1,1) for scale 2. YOLOv5's Focus slices in the same order.
    """

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        s = self.scale
        x = pad_to_multiple(x, s)
        if recording_graph():  # slices and a concatenation are what every runtime knows
            return torch.cat([x[..., row::s, column::s] for column in range(s) for row in range(s)], dim=1)
        # One permutation, hence one copy here and one in the backward pass, where each slice would make a gradient of
        # the whole map's size, mostly zeros, to be added to the others: a quarter of the time. Channels come last from
        # the first line on, so that the gradient has the order in memory that batch norm's backward pass is fast in.
        batch, channels, height, width = x.shape
        cells = x.permute(0, 2, 3, 1).reshape(batch, height // s, s, width // s, s, channels)
        phases = cells.permute(0, 1, 3, 4, 2, 5)  # (B, H / s, W / s, column in the cell, row in the cell, C)
        return phases.reshape(batch, height // s, width // s, s * s * channels).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


def released_to_unshuffle_order(channels: int, scale: int) -> Tensor:
    """Index (scale^2 C,) of SPD's output channels that puts them in ``pixel_unshuffle`` order.

    ``SPD(scale)(x)[:, index]`` equals ``pixel_unshuffle(x, scale)`` for x of C = ``channels``.
    """
    released = torch.arange(channels * scale * scale).view(scale, scale, channels)  # column, row, channel
    return released.permute(2, 1, 0).reshape(-1)


class SPDConv(nn.Module):
    """Space-to-depth, then a convolution of stride 1, batch norm, activation: the paper's building block.

    (B, C_in, H, W) -> (B, C_out, ceil(H / scale), ceil(W / scale)); ``conv.weight`` is (C_out, scale^2 C_in, k, k) with
    input channels in ``pixel_unshuffle`` order. The forward moves no data: space-to-depth followed by a k x k
    convolution is a (scale k) x (scale k) convolution of stride ``scale`` whose kernel is ``pixel_shuffle`` of the
    weight, because tap (i, j) of phase (r, q) reads pixel (scale i + r, scale j + q).
    """

    def __init__(
        self, in_channels: int, out_channels: int, size: int = 3, scale: int = 2, act: Activation = silu
    ) -> None:
        super().__init__()
        self.scale = scale
        self.conv = plain_convolution(in_channels * scale * scale, out_channels, Kernel(size))
        self.bn: nn.Module = batch_norm(out_channels)
        self.act = act()

    @property
    def strided_padding(self) -> int:
        """Padding of the strided form, pixels on each side."""
        return self.scale * (self.conv.kernel_size[0] // 2)

    def strided_weight(self) -> Tensor:
        """Kernel (C_out, C_in, scale k, scale k) of the equal strided convolution."""
        return functional.pixel_shuffle(self.conv.weight, self.scale)

    def convolved(self, x: Tensor) -> Tensor:
        """The convolution alone, in its strided form."""
        return functional.conv2d(
            pad_to_multiple(x, self.scale),
            self.strided_weight(),
            self.conv.bias,
            stride=self.scale,
            padding=self.strided_padding,
        )

    def convolved_literally(self, x: Tensor) -> Tensor:
        """The convolution alone, as the paper draws it: rearrange, then convolve. The reference of the strided form."""
        rearranged: Tensor = self.conv(functional.pixel_unshuffle(pad_to_multiple(x, self.scale), self.scale))
        return rearranged

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.convolved(x)))
        return out


class Focus(nn.Module):
    """SPD(2), then Conv: the stem of YOLOv5 up to release 5 and of the authors' SPD models."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Kernel = POINTWISE, act: Activation = silu) -> None:
        super().__init__()
        self.spd = SPD(2)
        self.conv = Conv(4 * in_channels, out_channels, kernel, act)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.spd(x))
        return out


class Bottleneck(nn.Module):
    """1x1 then 3x3 convolution, added to the input where ``shortcut`` asks and the channels allow it."""

    def __init__(self, channels: tuple[int, int, int], shortcut: bool, groups: int, act: Activation) -> None:
        """``channels``: in, hidden, out."""
        super().__init__()
        entering, hidden, leaving = channels
        self.cv1 = Conv(entering, hidden, POINTWISE, act)
        self.cv2 = Conv(hidden, leaving, Kernel(3, groups=groups), act)
        self.adds = shortcut and entering == leaving

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv2(self.cv1(x))
        return x + out if self.adds else out


class C3(nn.Module):
    """Cross-stage partial block with three convolutions (Wang et al., CSPNet, 2019).

    One branch runs through ``inner`` (bottlenecks, a transformer, a pyramid of pools, ...), the other goes around it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, inner: BlockFactory, expansion: float = 0.5, act: Activation = silu
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.cv1 = Conv(in_channels, hidden, POINTWISE, act)
        self.cv2 = Conv(in_channels, hidden, POINTWISE, act)
        self.cv3 = Conv(2 * hidden, out_channels, POINTWISE, act)
        self.m = inner(hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), dim=1))
        return out


class SPPF(nn.Module):
    """Spatial pyramid pooling by three equal max pools in a row: windows of k, 2k - 1 and 3k - 2 pixels."""

    def __init__(self, in_channels: int, out_channels: int, size: int = 5, act: Activation = silu) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.cv1 = Conv(in_channels, hidden, POINTWISE, act)
        self.cv2 = Conv(4 * hidden, out_channels, POINTWISE, act)
        self.m = nn.MaxPool2d(size, stride=1, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        pyramid = [self.cv1(x)]
        for _ in range(3):
            pyramid.append(self.m(pyramid[-1]))
        out: Tensor = self.cv2(torch.cat(pyramid, dim=1))
        return out


class Concat(nn.Module):
    """Maps of one size joined along ``dimension`` (1: channels)."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.dimension = dimension

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(maps), dim=self.dimension)

    def extra_repr(self) -> str:
        return f"dimension={self.dimension}"

"""The layers that a row of an architecture file may name.

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


class SPP(nn.Module):
    """Spatial pyramid pooling (He et al., 2014): parallel max pools of several windows beside the map itself."""

    def __init__(self, in_channels: int, out_channels: int, windows: Sequence[int], act: Activation = silu) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.cv1 = Conv(in_channels, hidden, POINTWISE, act)
        self.cv2 = Conv(hidden * (len(windows) + 1), out_channels, POINTWISE, act)
        self.m = nn.ModuleList(nn.MaxPool2d(window, stride=1, padding=window // 2) for window in windows)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        out: Tensor = self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], dim=1))
        return out


class BottleneckCSP(nn.Module):
    """Cross-stage partial block of the first releases: four convolutions, norm after the branches are joined."""

    def __init__(
        self, in_channels: int, out_channels: int, inner: BlockFactory, expansion: float = 0.5, act: Activation = silu
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.cv1 = Conv(in_channels, hidden, POINTWISE, act)
        self.cv2 = plain_convolution(in_channels, hidden, POINTWISE)
        self.cv3 = plain_convolution(hidden, hidden, POINTWISE)
        self.cv4 = Conv(2 * hidden, out_channels, POINTWISE, act)
        self.bn = batch_norm(2 * hidden)
        self.act = nn.SiLU()  # whatever the file's activation is: published weights have it so
        self.m = inner(hidden)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), dim=1)
        out: Tensor = self.cv4(self.act(self.bn(joined)))
        return out


class CrossConv(nn.Module):
    """A k x k convolution as 1 x k, then k x 1."""

    def __init__(self, channels: tuple[int, int, int], kernel: Kernel, shortcut: bool, act: Activation = silu) -> None:
        """``channels``: in, hidden, out; ``kernel`` with a whole number as size and stride."""
        super().__init__()
        entering, hidden, leaving = channels
        size, stride = kernel.size, kernel.stride
        assert isinstance(size, int) and isinstance(stride, int)
        self.cv1 = Conv(entering, hidden, Kernel((1, size), (1, stride)), act)
        self.cv2 = Conv(hidden, leaving, Kernel((size, 1), (stride, 1), groups=kernel.groups), act)
        self.adds = shortcut and entering == leaving

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv2(self.cv1(x))
        return x + out if self.adds else out


class MixConv2d(nn.Module):
    """Depthwise convolutions of several kernel sizes side by side (Tan & Le, "MixConv", 2019)."""

    def __init__(self, in_channels: int, out_channels: int, sizes: Sequence[int], stride: int, *, equal: bool) -> None:
        """``equal``: every size gets as many channels; otherwise as many weights."""
        super().__init__()
        shares = mixed_channels(out_channels, sizes, equal=equal)
        self.m = nn.ModuleList(
            plain_convolution(in_channels, share, Kernel(size, stride, size // 2, math.gcd(in_channels, share)))
            for share, size in zip(shares, sizes, strict=True)
        )
        self.bn = batch_norm(out_channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(torch.cat([convolution(x) for convolution in self.m], dim=1)))
        return out


def mixed_channels(total: int, sizes: Sequence[int], *, equal: bool) -> list[int]:
    """How ``total`` channels fall to kernels of ``sizes``; the last one takes what rounding leaves.

    Equal channels: channel i belongs to group floor(i n / total). Equal weights: shares go as 1 / size^2.
    """
    count = len(sizes)
    if equal:
        ends = [math.ceil((group + 1) * (total - 1) / (count - 1e-6)) for group in range(count - 1)]
        return [end - start for start, end in zip([0, *ends], [*ends, total], strict=True)]
    weights = [1 / size**2 for size in sizes]
    shares = [round(total * weight / sum(weights)) for weight in weights[:-1]]
    return [*shares, total - sum(shares)]


class Contract(nn.Module):
    """Cells to channels: (B, C, H, W) -> (B, gain^2 C, H / gain, W / gain), phase after phase, row by row."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        # pixel_unshuffle is channel-major; (B, C, g, g, h, w) turned to (B, g, g, C, h, w) is phase-major.
        out = functional.pixel_unshuffle(x, self.gain)
        phases = out.reshape(x.shape[0], -1, self.gain, self.gain, out.shape[2], out.shape[3])
        return phases.permute(0, 2, 3, 1, 4, 5).reshape(out.shape)


class Expand(nn.Module):
    """Channels to cells, the inverse of Contract: (B, C, H, W) -> (B, C / gain^2, H gain, W gain)."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        phases = x.reshape(x.shape[0], self.gain, self.gain, -1, x.shape[2], x.shape[3])
        return functional.pixel_shuffle(phases.permute(0, 3, 1, 2, 4, 5).reshape(x.shape), self.gain)


class ConvTranspose(nn.Module):
    """Transposed convolution, batch norm, activation."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Kernel, act: Activation = silu) -> None:
        super().__init__()
        size, stride = kernel.size, kernel.stride
        self.conv_transpose = nn.ConvTranspose2d(
            in_channels, out_channels, size, stride, kernel.padding or 0, bias=False
        )
        self.bn = batch_norm(out_channels)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv_transpose(x)))
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

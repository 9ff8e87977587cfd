"""Layers that few architecture files name: of YOLOv5's first releases and of its variants."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.common import (
    POINTWISE,
    Activation,
    BlockFactory,
    Conv,
    Kernel,
    batch_norm,
    depthwise,
    plain_convolution,
    silu,
)


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


class GhostConv(nn.Module):
    """Half of the output channels by a convolution, the other half by a cheap 5x5 depthwise one on top of them.

    Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Kernel, act: Activation) -> None:
        super().__init__()
        half = out_channels // 2
        self.cv1 = Conv(in_channels, half, kernel, act)
        self.cv2 = Conv(half, half, Kernel(5, groups=half), act)

    def forward(self, x: Tensor) -> Tensor:
        primary = self.cv1(x)
        return torch.cat((primary, self.cv2(primary)), dim=1)


class GhostBottleneck(nn.Module):
    """Ghost convolutions around a depthwise stride (GhostNet, fig. 3), added to a shortcut of the same shape."""

    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int, act: Activation) -> None:
        super().__init__()
        half = out_channels // 2
        shrinks = stride == 2
        self.conv = nn.Sequential(
            GhostConv(in_channels, half, Kernel(1), act),
            Conv(half, half, depthwise(half, half, size, stride), nn.Identity) if shrinks else nn.Identity(),
            GhostConv(half, out_channels, Kernel(1), nn.Identity),
        )
        self.shortcut = (
            nn.Sequential(
                Conv(in_channels, in_channels, depthwise(in_channels, in_channels, size, stride), nn.Identity),
                Conv(in_channels, out_channels, Kernel(1), nn.Identity),
            )
            if shrinks
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x) + self.shortcut(x)
        return out


class TransformerLayer(nn.Module):
    """Multi-head attention and a two-layer perceptron, each added to its input: (L, B, C) -> (L, B, C).

    Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020, without the norms.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(channels, channels, bias=False)
        self.k = nn.Linear(channels, channels, bias=False)
        self.v = nn.Linear(channels, channels, bias=False)
        self.ma = nn.MultiheadAttention(channels, heads)
        self.fc1 = nn.Linear(channels, channels, bias=False)
        self.fc2 = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.ma(self.q(x), self.k(x), self.v(x), need_weights=False)[0]
        x = attended + x
        out: Tensor = self.fc2(self.fc1(x)) + x
        return out


class TransformerBlock(nn.Module):
    """``layers`` transformer layers over the cells of a map (B, C, H, W), with a learned position term."""

    def __init__(self, channels: int, heads: int, layers: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.tr = nn.Sequential(*(TransformerLayer(channels, heads) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        cells = x.flatten(2).permute(2, 0, 1)
        out: Tensor = self.tr(cells + self.linear(cells))
        return out.permute(1, 2, 0).reshape(x.shape)

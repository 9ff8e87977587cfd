"""GhostNet's layers (Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.common import Activation, Conv, Kernel, depthwise


class GhostConv(nn.Module):
    """Half of the output channels by a convolution, the other half by a cheap 5x5 depthwise one on top of them."""

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

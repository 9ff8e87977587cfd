"""Self-attention over the cells of a map (Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020), without norms."""

from __future__ import annotations

from torch import Tensor, nn


class TransformerLayer(nn.Module):
    """Multi-head attention and a two-layer perceptron, each added to its input: (L, B, C) -> (L, B, C)."""

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

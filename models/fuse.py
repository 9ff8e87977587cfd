"""A detector rewritten for inference: batch norm folded into convolutions, SPD-Conv as one strided convolution."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from models.common import Conv, Focus, Kernel, SPDConv, pad_to_multiple, plain_convolution, released_to_unshuffle_order
from models.yolo import DetectionModel


class FusedConv(nn.Module):
    """Convolution with bias, then activation. ``multiple``: sizes are first padded up to it (see SPD)."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module, multiple: int = 1) -> None:
        super().__init__()
        self.conv, self.act, self.multiple = conv, act, multiple

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.conv(pad_to_multiple(x, self.multiple)))
        return out


def fused(model: DetectionModel) -> DetectionModel:
    """A copy of ``model`` in evaluation mode that computes the same function with fewer operations.

    Every ``Conv`` loses its batch norm; ``SPDConv`` and ``Focus`` become one strided convolution. The copy is for
    inference: its state dict no longer has the names of the weight format.
    """
    copied = copy.deepcopy(model).eval()
    _replace_children(copied)
    return copied.requires_grad_(False)


def folded_batch_norm(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight (O, ...) and bias (O,) of the convolution that equals a bias-free convolution followed by ``norm``.

    ``y = (Wx - mean) gamma / sqrt(var + eps) + beta``; computed in float64, given back in the weight's dtype.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = norm.bias.double() - norm.running_mean.double() * gain
    scaled = weight.double() * gain.view(-1, *[1] * (weight.dim() - 1))
    return scaled.to(weight.dtype), bias.to(weight.dtype)


def _replace_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        replacement = _replacement(child)
        if replacement is None:
            _replace_children(child)
        else:
            setattr(module, name, replacement)


def _replacement(layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, Conv):
        geometry = layer.conv
        bare = nn.Conv2d(
            geometry.in_channels,
            geometry.out_channels,
            (geometry.kernel_size[0], geometry.kernel_size[1]),
            (geometry.stride[0], geometry.stride[1]),
            (int(geometry.padding[0]), int(geometry.padding[1])),
            (geometry.dilation[0], geometry.dilation[1]),
            geometry.groups,
        )
        return _assembled(bare, geometry.weight, layer, 1)
    if isinstance(layer, SPDConv):
        return _assembled(_strided(layer.conv, layer.scale), layer.strided_weight(), layer, layer.scale)
    if isinstance(layer, Focus) and layer.conv.conv.groups == 1 and layer.conv.conv.stride == (1, 1):
        inner, scale = layer.conv, layer.spd.scale
        order = released_to_unshuffle_order(inner.conv.in_channels // scale**2, scale)
        weight = nn.functional.pixel_shuffle(inner.conv.weight[:, order], scale)
        return _assembled(_strided(inner.conv, scale), weight, inner, scale)
    return None


def _strided(conv: nn.Conv2d, scale: int) -> nn.Conv2d:
    """An empty convolution of the shape that replaces space-to-depth(``scale``) followed by ``conv``."""
    kernel = Kernel(scale * conv.kernel_size[0], scale, scale * int(conv.padding[0]))
    return plain_convolution(conv.in_channels // scale**2, conv.out_channels, kernel, bias=True)


@torch.no_grad()
def _assembled(bare: nn.Conv2d, weight: Tensor, layer: Conv | SPDConv, multiple: int) -> FusedConv:
    """``bare`` filled with ``weight`` and the folded norm of ``layer``, followed by its activation."""
    assert isinstance(layer.bn, nn.BatchNorm2d)
    folded, bias = folded_batch_norm(weight, layer.bn)
    bare = bare.to(weight.device, weight.dtype)
    assert bare.bias is not None
    bare.weight.copy_(folded)
    bare.bias.copy_(bias)
    return FusedConv(bare, layer.act, multiple)

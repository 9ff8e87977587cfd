"""A detector rewritten for inference: batch norm folded into convolutions, space-to-depth into strided convolutions.

Both rewrites are exact. A strided form moves no data, and measures as fast or faster in nearly every layer
(`benchmarks/formats.py`). Not rewritten is space-to-depth whose output is joined with another map (neck of the released
family): splitting the convolution behind it in two was measured to gain nothing.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.common import (
    C3,
    SPD,
    Conv,
    Focus,
    Kernel,
    SPDConv,
    pad_to_multiple,
    plain_convolution,
    released_to_unshuffle_order,
)
from models.head import AnchorFreeDetect
from models.yolo import DetectionModel


def in_place(act: nn.Module) -> nn.Module:
    """The activation for inference, where nobody needs its input again."""
    return nn.SiLU(inplace=True) if isinstance(act, nn.SiLU) else act


class FusedConv(nn.Module):
    """Convolution with bias, then activation. ``multiple``: sizes are first padded up to it (see SPD)."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module, multiple: int = 1) -> None:
        super().__init__()
        self.conv, self.act, self.multiple = conv, in_place(act), multiple

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.conv(pad_to_multiple(x, self.multiple)))
        return out


class FusedRearrangedConv(nn.Module):
    """``pixel_unshuffle``, convolution with bias, activation: an SPDConv whose space-to-depth is kept."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module, scale: int) -> None:
        super().__init__()
        self.conv, self.act, self.scale = conv, in_place(act), scale

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.conv(functional.pixel_unshuffle(pad_to_multiple(x, self.scale), self.scale)))
        return out


class PadToMultiple(nn.Module):
    """What remains of SPD where the strided convolutions behind it do its work."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return pad_to_multiple(x, self.scale)


def fused(model: DetectionModel, *, strided: bool = True) -> DetectionModel:
    """A copy of ``model`` in evaluation mode that computes the same function with fewer operations.

    Every ``Conv`` loses its batch norm. ``strided``: space-to-depth and the convolution behind it become one strided
    convolution; otherwise the rearrangement stays. The copy is for inference: its state dict no longer has the names
    of the weight format.
    """
    copied = copy.deepcopy(model).eval()
    if strided:
        for index in spd_before_c3(copied):
            copied.model[index] = _pull_into(copied.model[index], copied.model[index + 1])
    fold_layers(copied, strided=strided)
    if isinstance(copied.head, AnchorFreeDetect):
        join_branches(copied.head)
    return copied.requires_grad_(False)


def folded_batch_norm(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight (O, ...) and bias (O,) of the convolution that equals a bias-free convolution followed by ``norm``.

    ``y = (Wx - mean) gamma / sqrt(var + eps) + beta``, in the weight's own precision.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    deviation = torch.sqrt(norm.running_var + norm.eps)
    gain = (norm.weight / deviation).view(-1, *[1] * (weight.dim() - 1))
    return weight * gain, norm.bias - norm.weight * norm.running_mean / deviation


def fold_layers(module: nn.Module, *, strided: bool = True) -> None:
    """Replaces, in place, every layer inside ``module`` that has a fused form (see ``fused``)."""
    for name, child in module.named_children():
        replacement = _replacement(child, strided=strided)
        if replacement is None:
            fold_layers(child, strided=strided)
        else:
            setattr(module, name, replacement)


def _replacement(layer: nn.Module, *, strided: bool) -> nn.Module | None:
    if isinstance(layer, Conv):
        return FusedConv(_folded(_same_shape(layer.conv), layer.conv.weight, layer), layer.act)
    if isinstance(layer, SPDConv) and strided:
        bare = _strided_shape(layer.conv, layer.scale)
        return FusedConv(_folded(bare, layer.strided_weight(), layer), layer.act, layer.scale)
    if isinstance(layer, SPDConv):
        conv = _folded(_same_shape(layer.conv), layer.conv.weight, layer)
        return FusedRearrangedConv(conv, layer.act, layer.scale)
    if isinstance(layer, Focus) and strided and layer.conv.conv.groups == 1 and layer.conv.conv.stride == (1, 1):
        inner, scale = layer.conv, layer.spd.scale
        bare = _strided_shape(inner.conv, scale)
        return FusedConv(_folded(bare, _strided_kernel(inner.conv.weight, scale), inner), inner.act, scale)
    return None


def _same_shape(conv: nn.Conv2d) -> nn.Conv2d:
    """An empty convolution like ``conv``, with bias."""
    kernel = Kernel(
        (conv.kernel_size[0], conv.kernel_size[1]),
        (conv.stride[0], conv.stride[1]),
        (int(conv.padding[0]), int(conv.padding[1])),
        conv.groups,
        conv.dilation[0],
    )
    return plain_convolution(conv.in_channels, conv.out_channels, kernel, bias=True)


def _strided_shape(conv: nn.Conv2d, scale: int) -> nn.Conv2d:
    """An empty convolution of the shape that replaces space-to-depth(``scale``) followed by ``conv``."""
    kernel = Kernel(scale * conv.kernel_size[0], scale, scale * int(conv.padding[0]))
    return plain_convolution(conv.in_channels // scale**2, conv.out_channels, kernel, bias=True)


def _strided_kernel(weight: Tensor, scale: int) -> Tensor:
    """Kernel of the strided convolution that equals SPD(``scale``), then a convolution with ``weight``."""
    order = released_to_unshuffle_order(weight.shape[1] // scale**2, scale).to(weight.device)
    return functional.pixel_shuffle(weight[:, order], scale)


@torch.no_grad()
def _folded(bare: nn.Conv2d, weight: Tensor, layer: Conv | SPDConv) -> nn.Conv2d:
    """``bare`` filled with ``weight`` and the folded norm of ``layer``."""
    assert isinstance(layer.bn, nn.BatchNorm2d)
    folded, bias = folded_batch_norm(weight, layer.bn)
    bare = bare.to(weight.device, weight.dtype)
    assert bare.bias is not None
    bare.weight.copy_(folded)
    bare.bias.copy_(bias)
    return bare


@torch.no_grad()
def join_branches(head: AnchorFreeDetect) -> None:
    """Gives a folded head, whose branches are equally wide inside, one branch per level that answers as both do.

    The first convolutions have the same input and become one, further ones a convolution of two groups, the last ones
    one whose kernel is zero from one branch's channels to the other's answers, unless they are the first too. Half as
    many convolutions run, and the answers need not be put together, which takes as long as a convolution where maps are
    large. The branches stay for formats that want them apart.
    """
    pairs = [(_convolutions(boxes), _convolutions(classes)) for boxes, classes in zip(head.cv2, head.cv3, strict=True)]
    if any(boxes[-1].in_channels != classes[-1].in_channels for boxes, classes in pairs):
        return
    act = next((layer.act for layer in head.modules() if isinstance(layer, FusedConv)), nn.Identity())
    head.joined = nn.ModuleList(_joined_branch(boxes, classes, act) for boxes, classes in pairs)


def _convolutions(branch: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in branch.modules() if isinstance(layer, nn.Conv2d)]


def _joined_branch(boxes: list[nn.Conv2d], classes: list[nn.Conv2d], act: nn.Module) -> nn.Sequential:
    steps = enumerate(zip(boxes[:-1], classes[:-1], strict=True))
    inner = [FusedConv(_joined(first, second, grouped=number > 0), act) for number, (first, second) in steps]
    return nn.Sequential(*inner, _answering(boxes[-1], classes[-1], shared=not inner))


def _joined(first: nn.Conv2d, second: nn.Conv2d, *, grouped: bool) -> nn.Conv2d:
    """Both convolutions' channels, of one input, or each of its half of the input."""
    inputs = first.in_channels * (2 if grouped else 1)
    kernel = Kernel(int(first.kernel_size[0]), groups=2 if grouped else 1)
    conv = plain_convolution(inputs, 2 * first.out_channels, kernel, bias=True).to(first.weight)
    assert conv.bias is not None and first.bias is not None and second.bias is not None
    conv.weight.copy_(torch.cat((first.weight, second.weight)))
    conv.bias.copy_(torch.cat((first.bias, second.bias)))
    return conv


def _answering(first: nn.Conv2d, second: nn.Conv2d, *, shared: bool) -> nn.Conv2d:
    """The answers of both 1x1 convolutions out of the channels that both have, or of each one's own."""
    outputs = first.out_channels + second.out_channels
    inputs = first.in_channels if shared else first.in_channels + second.in_channels
    conv = plain_convolution(inputs, outputs, Kernel(1), bias=True).to(first.weight)
    assert conv.bias is not None and first.bias is not None and second.bias is not None
    kernels = first.weight.flatten(1), second.weight.flatten(1)
    both = torch.cat(kernels) if shared else torch.block_diag(*kernels)  # type: ignore[no-untyped-call]
    conv.weight.copy_(both[..., None, None])
    conv.bias.copy_(torch.cat((first.bias, second.bias)))
    return conv


def spd_before_c3(model: DetectionModel) -> list[int]:
    """Layers SPD whose only reader is the C3 next to it: the released family's backbone."""
    readers = [source for plan in model.plan for source in plan.sources]
    return [
        index
        for index in range(len(model.plan) - 1)
        if isinstance(model.model[index], SPD)
        and isinstance(model.model[index + 1], C3)
        and model.plan[index + 1].sources == (index,)
        and readers.count(index) == 1
    ]


@torch.no_grad()
def _pull_into(spd: nn.Module, stage: nn.Module) -> nn.Module:
    """Gives the two 1x1 convolutions at the entrance of ``stage`` the work of ``spd``; what is left of ``spd``."""
    assert isinstance(spd, SPD) and isinstance(stage, C3)
    for branch in (stage.cv1, stage.cv2):
        kernel = _strided_kernel(branch.conv.weight, spd.scale)
        bare = _strided_shape(branch.conv, spd.scale).to(kernel.device, kernel.dtype)
        bare.weight.copy_(kernel)
        bare.bias = None
        branch.conv = bare
    return PadToMultiple(spd.scale)

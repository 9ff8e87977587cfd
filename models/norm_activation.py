"""Batch norm and SiLU in one step of the gradient, which keeps one map fewer for the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Statistics = tuple[Tensor | None, Tensor | None]  # running mean and variance


class NormAndSilu(torch.autograd.Function):
    """``silu(batch_norm(x))`` of a batch's own statistics, out of x alone.

    Autograd would keep three maps per convolution: what goes into batch norm, into SiLU, and out of it. The middle one
    is computed again in the backward pass (as in Rota Bulò et al., "In-Place Activated BatchNorm", 2018, the other way
    round): a pass over memory for a third of the memory that activations take.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running: Statistics, momentum: float, eps: float
    ) -> Tensor:
        """x (B, C, H, W); weight and bias (C,); ``running`` is updated in place."""
        normed, mean, inverse_std = torch.native_batch_norm(x, weight, bias, *running, True, momentum, eps)
        ctx.save_for_backward(x, weight, bias, mean, inverse_std)
        ctx.eps = eps
        return functional.silu(normed, inplace=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, inverse_std = ctx.saved_tensors
        variance = inverse_std.square().reciprocal_().sub_(ctx.eps)
        normed, _, _ = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, ctx.eps)
        gradient = torch.ops.aten.silu_backward(gradient, normed)
        parts = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, inverse_std, True, ctx.eps, list(ctx.needs_input_grad[:3])
        )
        return *parts, None, None, None


def norm_and_activation(x: Tensor, norm: nn.Module, act: nn.Module) -> Tensor:
    """``act(norm(x))``, with less memory where that is known to pay: fp32 training on the CPU.

    Half precision halves the maps already, and CUDA has batch norms of its own that this would not use.
    """
    saves = x.dtype == torch.float32 and x.device.type == "cpu" and torch.is_grad_enabled()
    if saves and type(norm) is nn.BatchNorm2d and type(act) is nn.SiLU and norm.training and norm.momentum is not None:
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        running = (norm.running_mean, norm.running_var)
        out: Tensor = NormAndSilu.apply(x, norm.weight, norm.bias, running, norm.momentum, norm.eps)
        return out
    plain: Tensor = act(norm(x))
    return plain

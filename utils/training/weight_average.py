"""Exponential moving average of a model's weights, the model that is evaluated and saved."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module, covariant=True)


class WeightAverage(Generic[Model]):
    """Average of every floating-point parameter and buffer, updated once per optimizer step.

    The decay ramps up as ``decay * (1 - exp(-updates / ramp))``, so that an early average follows quickly.
    """

    def __init__(self, model: Model, *, decay: float = 0.9999, ramp: float = 2000, updates: int = 0) -> None:
        self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.ramp, self.updates = decay, ramp, updates

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards ``model``, which has the same architecture."""
        self.updates += 1
        share = 1 - self.decay * (1 - math.exp(-self.updates / self.ramp))
        own, other = _float_tensors(self.model), _float_tensors(model)
        torch._foreach_lerp_(own, other, share)


def _float_tensors(model: nn.Module) -> list[torch.Tensor]:
    return [t.detach() for t in model.state_dict(keep_vars=True).values() if t.dtype.is_floating_point]

"""Optimizers with YOLOv5's three parameter groups."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters as (biases, weights that decay, weights of normalization layers)."""
    biases: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if name == "bias":
                biases.append(parameter)
            elif isinstance(module, NORMS):
                norms.append(parameter)
            else:
                decayed.append(parameter)
    return biases, decayed, norms


def build_optimizer(model: nn.Module, name: str, *, lr: float, momentum: float, decay: float) -> torch.optim.Optimizer:
    """Optimizer over the groups 0 biases, 1 decayed weights, 2 norm weights.

    ``name``: ``SGD`` (Nesterov), ``Adam``, ``AdamW`` or ``RMSProp``. ``momentum`` is beta1 for the Adam
    family. Only group 1 decays.
    """
    biases, decayed, norms = parameter_groups(model)
    groups: list[dict[str, object]] = [
        {"params": biases, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    if name == "SGD":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=True, foreach=True)
    if name == "Adam":
        return torch.optim.Adam(groups, lr=lr, betas=(momentum, 0.999), foreach=True)
    if name == "AdamW":
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), foreach=True)
    if name == "RMSProp":
        return torch.optim.RMSprop(groups, lr=lr, momentum=momentum, foreach=True)
    raise ValueError(f"unknown optimizer {name}")


def set_rates(optimizer: torch.optim.Optimizer, rates: Iterable[float], momentum: float) -> None:
    """Give each group its learning rate, and all groups their momentum (beta1 for the Adam family)."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        if "momentum" in group:
            group["momentum"] = momentum
        else:
            group["betas"] = (momentum, group["betas"][1])

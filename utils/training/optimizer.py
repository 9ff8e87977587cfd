"""Optimizers with YOLOv5's three parameter groups."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TypeVar, cast

import torch
from torch import nn, optim
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

Kind = TypeVar("Kind", bound=Optimizer)
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


def build_optimizer(model: nn.Module, name: str, *, lr: float, momentum: float, decay: float) -> Optimizer:
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
        return SGD(groups, lr=lr, momentum=momentum, nesterov=True, foreach=True)
    if name == "Adam":
        return Adam(groups, lr=lr, betas=(momentum, 0.999), foreach=True)
    if name == "AdamW":
        return AdamW(groups, lr=lr, betas=(momentum, 0.999), foreach=True)
    if name == "RMSProp":
        return RMSprop(groups, lr=lr, momentum=momentum, foreach=True)
    raise ValueError(f"unknown optimizer {name}")


def without_compiler(kind: type[Kind]) -> type[Kind]:
    """The optimizer, without the decorators that load torch's compiler, a second and 140 MiB of each run.

    They keep ``torch.compile`` from looking into an optimizer, and one that is not compiled has no use for them.
    """
    decorated = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in decorated}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return cast(type[Kind], type(kind.__name__, (kind,), {**methods, "step": step}))


SGD, Adam = without_compiler(optim.SGD), without_compiler(optim.Adam)
AdamW, RMSprop = without_compiler(optim.AdamW), without_compiler(optim.RMSprop)


def set_rates(optimizer: Optimizer, rates: Iterable[float], momentum: float) -> None:
    """Give each group its learning rate, and all groups their momentum (beta1 for the Adam family)."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        if "momentum" in group:
            group["momentum"] = momentum
        else:
            group["betas"] = (momentum, group["betas"][1])

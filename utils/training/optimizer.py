"""Optimizers with YOLOv5's three parameter groups."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, TypeVar, cast

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
    # On a GPU one kernel makes the whole step and looks itself whether fp16 has overflown: the host need not wait.
    fused = True if any(parameter.device.type == "cuda" for parameter in decayed) else None
    groups: list[dict[str, object]] = [
        {"params": biases, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    if name == "SGD":
        sgd = SGD(groups, lr=lr, momentum=momentum, nesterov=True, fused=fused, foreach=not fused)
        _begin_momentum(sgd)
        return sgd
    if name == "Adam":
        return Adam(groups, lr=lr, betas=(momentum, 0.999), fused=fused, foreach=not fused)
    if name == "AdamW":
        return AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=fused, foreach=not fused)
    if name == "RMSProp":
        return RMSprop(groups, lr=lr, momentum=momentum, foreach=True)
    raise ValueError(f"unknown optimizer {name}")


def load_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer the state of another, which may have been on another device: how it computes stays its own."""
    groups = [
        {**saved, **{how: own[how] for how in ("fused", "foreach") if how in own}}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
    _begin_momentum(optimizer)


def _begin_momentum(optimizer: Optimizer) -> None:
    """Start a fused SGD's momentum at 0, which makes the same first step.

    Else it takes memory as it finds it, for the first step to fill, and goes on with that if fp16 overflows there.
    """
    for group in optimizer.param_groups if isinstance(optimizer, optim.SGD) else ():
        for parameter in group["params"] if group["fused"] else ():
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


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

"""Parameter groups and rates."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest
import torch
from torch import nn, optim

from tests.shared_data import REPOSITORY
from utils.training.optimizer import build_optimizer, load_state, parameter_groups, set_rates


def small_network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def test_groups_are_biases_decayed_weights_and_norm_weights() -> None:
    network = small_network()
    biases, decayed, norms = parameter_groups(network)
    assert [p.shape for p in biases] == [(4,), (2,)]
    assert [p.shape for p in decayed] == [(4, 3, 3, 3), (2, 4, 1, 1)]
    assert [p.shape for p in norms] == [(4,)]


def test_frozen_parameters_are_left_out() -> None:
    network = small_network()
    network[0].requires_grad_(False)
    assert [p.shape for p in parameter_groups(network)[1]] == [(2, 4, 1, 1)]


@pytest.mark.parametrize(
    ("name", "kind"), [("SGD", torch.optim.SGD), ("Adam", torch.optim.Adam), ("AdamW", torch.optim.AdamW)]
)
def test_only_weights_decay_and_rates_reach_their_group(name: str, kind: type) -> None:
    optimizer = build_optimizer(small_network(), name, lr=0.01, momentum=0.9, decay=0.1)
    assert isinstance(optimizer, kind)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.1, 0.0]
    set_rates(optimizer, (0.3, 0.2, 0.1), 0.7)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.2, 0.1]
    for group in optimizer.param_groups:
        assert group.get("momentum", group.get("betas", (None,))[0]) == 0.7


def test_sgd_is_nesterov() -> None:
    # One parameter at 1 with gradient 1: v = 1, step = lr * (g + momentum * v) = 0.1 * 1.9.
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    optimizer = build_optimizer(layer, "SGD", lr=0.1, momentum=0.9, decay=0.0)
    layer(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert layer.weight.item() == pytest.approx(1 - 0.19)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSProp"])
def test_steps_and_states_are_those_of_torch(name: str) -> None:
    torch.manual_seed(0)
    network, batches = small_network(), torch.randn(3, 2, 3, 8, 8)
    twin = copy.deepcopy(network)
    own = build_optimizer(network, name, lr=0.01, momentum=0.9, decay=0.1)
    kind = type(own).__mro__[1]
    theirs = kind([{**group, "params": own_to_twin(group["params"], network, twin)} for group in own.param_groups])
    for images in batches:
        for model, optimizer in ((network, own), (twin, theirs)):
            model(images).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    for ours, reference in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)  # a step changes them by 0.01
    assert all(parameter.grad is None for parameter in network.parameters())
    again = build_optimizer(network, name, lr=0.5, momentum=0.5, decay=0.5)
    again.load_state_dict(own.state_dict())
    assert again.param_groups[1]["lr"] == 0.01
    assert str(again.state_dict()) == str(theirs.state_dict())


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_a_state_of_fused_steps_goes_on_in_another_way(name: str) -> None:
    """As a run that was begun on a GPU and goes on without one, and back again."""
    network = small_network()
    kind = type(build_optimizer(network, name, lr=0.01, momentum=0.9, decay=0.1)).__mro__[1]

    def fused() -> optim.Optimizer:
        three = [{"params": parameters} for parameters in parameter_groups(network)]
        built: optim.Optimizer = kind(three, lr=0.01, fused=True, **({"momentum": 0.9} if name == "SGD" else {}))
        return built

    def step(optimizer: optim.Optimizer) -> None:
        network(torch.ones(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()

    begun = fused()
    step(begun)
    apart = build_optimizer(network, name, lr=0.5, momentum=0.5, decay=0.5)
    load_state(apart, begun.state_dict())
    assert [(group["fused"], group["foreach"], group["lr"]) for group in apart.param_groups] == [(None, True, 0.01)] * 3
    step(apart)
    again = fused()
    load_state(again, apart.state_dict())
    assert all(group["fused"] and not group["foreach"] for group in again.param_groups)
    step(again)


def test_an_overflow_in_the_first_fused_step_leaves_no_trace() -> None:
    layer = nn.Linear(3, 1, bias=False)
    plain = build_optimizer(layer, "SGD", lr=0.1, momentum=0.9, decay=0.0)
    fused = optim.SGD([{"params": each} for each in parameter_groups(layer)], lr=0.1, momentum=0.9, fused=True)
    load_state(fused, plain.state_dict())
    assert [value["momentum_buffer"].tolist() for value in fused.state.values()] == [[[0.0, 0.0, 0.0]]]
    scaler, before = torch.amp.GradScaler("cpu"), layer.weight.detach().clone()
    for gradient, moved in ((math.inf, 0.0), (1.0, 0.19)):  # Nesterov's first step: 0.1 x (1 + 0.9)
        scaler.scale((layer.weight * gradient).sum()).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(fused)
        scaler.step(fused)
        scaler.update()
        fused.zero_grad()
        torch.testing.assert_close(layer.weight.detach(), before - moved)


def own_to_twin(parameters: list[nn.Parameter], network: nn.Module, twin: nn.Module) -> list[nn.Parameter]:
    """The twin's parameters at the places of the network's."""
    pairs = {id(own): other for own, other in zip(network.parameters(), twin.parameters(), strict=True)}
    return [pairs[id(parameter)] for parameter in parameters]


STEP = """
import sys, torch
from utils.runtime.seeds import repeatable_arithmetic
from utils.training.optimizer import build_optimizer
repeatable_arithmetic(torch.device("cpu"))
layer = torch.nn.Linear(1, 1)
assert torch.are_deterministic_algorithms_enabled()
optimizer = build_optimizer(layer, sys.argv[1], lr=0.1, momentum=0.9, decay=0.0)
layer(torch.ones(1, 1)).sum().backward()
optimizer.step(), optimizer.zero_grad(), optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSProp"])
def test_neither_a_step_nor_what_precedes_it_loads_the_compiler(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEP, name], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"

"""Parameter groups and rates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.training.optimizer import build_optimizer, parameter_groups, set_rates


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

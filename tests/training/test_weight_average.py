"""The average, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from utils.training.weight_average import WeightAverage


def test_decay_ramps_up_with_the_updates() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average = WeightAverage(layer, decay=0.9, ramp=10)
    nn.init.ones_(layer.weight)
    average.update(layer)
    first = 0.9 * (1 - math.exp(-0.1))
    assert average.model.weight.item() == pytest.approx(1 - first)
    average.update(layer)
    second = 0.9 * (1 - math.exp(-0.2))
    assert average.model.weight.item() == pytest.approx(second * (1 - first) + (1 - second))
    assert average.updates == 2


def test_running_statistics_are_averaged_and_counters_left() -> None:
    norm = nn.BatchNorm1d(1)
    average = WeightAverage(norm, decay=0.0)
    norm.running_mean = torch.full((1,), 5.0)
    norm.num_batches_tracked = torch.tensor(7)
    average.update(norm)
    assert average.model.running_mean is not None and average.model.running_mean.item() == 5.0
    assert not average.model.training
    assert all(not parameter.requires_grad for parameter in average.model.parameters())

"""What an epoch keeps of its steps."""

from __future__ import annotations

import pytest
import torch

from utils.training.one_epoch import LossMeter, NonFiniteLoss


def test_a_batch_counts_when_it_is_read() -> None:
    meter = LossMeter(("box", "objectness"))
    assert not meter.read() and meter.text() == ""
    meter.add(torch.tensor([1.0, 2.0, 0.0]), 0, 0)
    assert meter.text() == ""
    assert not meter.read() and not meter.read()  # counted once
    assert meter.text() == "box 1.0000  objectness 2.0000"
    meter.add(torch.tensor([2.0, 4.0, 0.5]), 0, 1)  # one of two processes was asked to stop
    assert meter.read()
    assert meter.mean() == (1.5, 3.0)


def test_a_loss_that_is_not_finite_is_told_with_its_own_step() -> None:
    meter = LossMeter(("box",))
    meter.add(torch.tensor([float("nan"), 0.0]), 3, 7)
    with pytest.raises(NonFiniteLoss, match=r"epoch 3, step 7: the loss is not finite \(box nan\)"):
        meter.read()

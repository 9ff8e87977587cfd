"""What an epoch keeps of its steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from utils.runtime.process_ranks import ProcessRanks
from utils.training.one_epoch import LossMeter, NonFiniteLoss, exchange_gradients, shared_network


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


def test_gradients_that_accumulate_on_gpus_are_exchanged_once(tmp_path: Path) -> None:
    on_gpus, on_cpus = (ProcessRanks(torch.device(kind), world=2) for kind in ("cuda", "cpu"))
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        network = shared_network(nn.Linear(2, 1), on_gpus, sync_bn=False)
        assert isinstance(network, DistributedDataParallel)
        exchanges = []
        for ranks, now in ((on_gpus, False), (on_gpus, True), (on_cpus, False)):
            exchange_gradients(network, ranks, now=now)
            exchanges.append(network.require_backward_grad_sync)
        assert exchanges == [False, True, True]
    finally:
        distributed.destroy_process_group()

"""What an epoch keeps of its steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from utils.runtime.process_ranks import ALONE, ProcessRanks
from utils.training.one_epoch import LossMeter, NonFiniteLoss, backward, exchange_gradients, shared_network

ON_GPUS, ON_CPUS = (ProcessRanks(torch.device(kind), world=2) for kind in ("cuda", "cpu"))


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


def test_a_report_of_several_steps_counts_them() -> None:
    meter = LossMeter(("box",))
    for step, total in ((0, 1.0), (3, 7.0)):
        meter.add(torch.tensor([total, 0.0]), 0, step)
        assert not meter.read()
    assert meter.mean() == (2.0,)


def test_a_loss_that_is_not_finite_is_told_with_its_own_step() -> None:
    meter = LossMeter(("box",))
    meter.add(torch.tensor([float("nan"), 0.0]), 3, 7)
    with pytest.raises(NonFiniteLoss, match=r"epoch 3, step 7: the loss is not finite \(box nan\)"):
        meter.read()


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """This process is the only one; what it is given stands for one of two."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_gradients_that_accumulate_on_gpus_are_exchanged_once() -> None:
    network = shared_network(nn.Linear(2, 1), ON_CPUS, parts=1, sync_bn=False)
    assert isinstance(network, DistributedDataParallel)
    exchanges = []
    for ranks, now in ((ON_GPUS, False), (ON_GPUS, True), (ON_CPUS, False)):
        exchange_gradients(network, ranks, now=now)
        exchanges.append(network.require_backward_grad_sync)
    assert exchanges == [False, True, True]


@pytest.mark.usefixtures("process_group")
def test_a_report_goes_along_with_the_gradients() -> None:
    model = nn.Linear(2, 1)
    network = shared_network(model, ON_CPUS, parts=1, sync_bn=False)
    images = torch.tensor([[3.0, 5.0]])
    reports = []
    for now, report in ((True, [1.0, 0.0]), (False, [2.0, 1.0]), (False, [4.0, 0.0]), (True, [0.5, 0.0])):
        exchange_gradients(network, ON_GPUS, now=now)
        found = backward(network, network(images).sum(), torch.tensor(report))
        reports.append(None if found is None else found.tolist())
        if now:
            network.zero_grad()
    assert reports == [[1.0, 0.0], None, None, [6.5, 1.0]]
    backward(network, network(images).sum(), torch.tensor([1e9, torch.nan]))
    assert [p.grad.tolist() for p in network.parameters() if p.grad is not None] == [[[3.0, 5.0]], [1.0]]
    assert model.weight.grad is not None


def test_a_process_alone_keeps_its_report() -> None:
    model = nn.Linear(2, 1)
    assert shared_network(model, ALONE, parts=1, sync_bn=False) is model
    report = torch.tensor([1.0, 0.0])
    assert backward(model, model(torch.ones(1, 2)).sum(), report) is report
    assert model.bias.grad is not None and model.bias.grad.tolist() == [1.0]

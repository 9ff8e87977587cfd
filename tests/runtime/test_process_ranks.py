"""What the processes of a run tell each other, with a stand-in for the others."""

from __future__ import annotations

import pytest
import torch
from torch import distributed, nn

from utils.runtime.device import placed
from utils.runtime.process_ranks import ProcessRanks


def test_the_writers_weights_arrive_together_and_in_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[torch.dtype] = []

    def broadcast(values: torch.Tensor, src: int) -> None:
        sent.append(values.dtype)
        values += 1  # as the writer would have it

    monkeypatch.setattr(distributed, "broadcast", broadcast)
    cpu = torch.device("cpu")
    module = placed(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)), cpu)  # channels_last, and a count in int64
    before = {name: value.clone() for name, value in module.state_dict().items()}
    ProcessRanks(cpu, rank=1, world=2).share(module)
    assert sent == [torch.float32, torch.int64]
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name] + 1), name

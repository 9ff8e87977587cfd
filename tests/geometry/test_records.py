"""Batches as they are handed over to a GPU."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from utils.geometry.records import Batch, ClassificationBatch


@pytest.mark.parametrize(
    "batch",
    [
        Batch(
            torch.zeros((1, 3, 8, 8), dtype=torch.uint8), torch.ones((2, 4)), torch.arange(2), torch.tensor([0, 0]),
            (None,), (), (7,),
        ),
        ClassificationBatch(torch.zeros((1, 3, 8, 8), dtype=torch.uint8), torch.tensor([1]), (7,)),
    ],
)  # fmt: skip
def test_what_goes_to_the_device_is_pinned_and_nothing_else_changes(
    batch: Batch | ClassificationBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:  # without a GPU there is nothing to pin memory for
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    after = batch.pin_memory()
    for item in fields(batch):
        old, new = getattr(batch, item.name), getattr(after, item.name)
        if isinstance(old, torch.Tensor):
            sent = isinstance(batch, ClassificationBatch) or item.name == "images"  # a detector's labels stay here
            assert any(new is tensor for tensor in pinned) == sent and torch.equal(old, new)
        else:
            assert new == old

"""Random numbers as a function of seed, epoch and process."""

from __future__ import annotations

import itertools

import torch

from utils.runtime.seeds import reseed_torch


def drawn(seed: int, epoch: int, rank: int) -> float:
    reseed_torch(seed, epoch, rank)
    return float(torch.rand(()))


def test_the_same_for_the_same_and_different_for_every_other() -> None:
    cases = list(itertools.product((0, 1, 2), (0, 1, 300), (0, 1, 7)))
    first = {case: drawn(*case) for case in cases}
    torch.rand(1000)  # what was drawn between does not count
    assert {case: drawn(*case) for case in reversed(cases)} == first
    assert len(set(first.values())) == len(cases)

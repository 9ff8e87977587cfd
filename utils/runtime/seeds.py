"""Random state of a run as a function of (seed, epoch, rank), so that a resumed run draws what it would have drawn."""

from __future__ import annotations

import torch


def reseed_torch(seed: int, epoch: int, rank: int = 0) -> None:
    """Give torch's generators (dropout, initial weights) the state that belongs to this epoch and process."""
    torch.manual_seed((seed * 1_000_003 + epoch) * 1_009 + rank)

"""What makes a run repeatable: random state as a function of (seed, epoch, rank), and sums in a fixed order."""

from __future__ import annotations

import torch


def repeatable_arithmetic(device: torch.device) -> None:
    """Have this process compute the same to the bit each time, if it does so on the CPU; on CUDA that costs speed."""
    # use_deterministic_algorithms would also load torch's compiler, to set it the same.
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def reseed_torch(seed: int, epoch: int, rank: int = 0) -> None:
    """Give torch's generators (dropout, initial weights) the state that belongs to this epoch and process."""
    torch.manual_seed((seed * 1_000_003 + epoch) * 1_009 + rank)

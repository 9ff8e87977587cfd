"""The processes of one run, as ``torchrun`` starts them, and what they tell each other.

A single process is a group too. Only tensors travel between processes: objects would be pickled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn

from utils.runtime.device import select_device
from utils.user_error import UsageError

PATIENCE = timedelta(hours=1)  # a rank waits as long while another one scans a large data set


@dataclass(frozen=True, slots=True)
class ProcessRanks:
    """This process among those of its run."""

    device: torch.device
    rank: int = 0  # over all machines; 0 writes
    world: int = 1  # number of processes
    local_rank: int = 0  # on this machine

    @property
    def is_writer(self) -> bool:
        """Whether this is the one process that writes the run's files."""
        return self.rank == 0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the processes of a tensor of equal shape in each, on the CPU if ``values`` are."""
        if self.world == 1:
            return values
        summed = values.detach().to(self.device, copy=True)
        distributed.all_reduce(summed)
        return summed.to(values.device)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over the processes of a tensor of equal shape in each."""
        return self.total(values) / self.world if self.world > 1 else values

    def any(self, flag: bool) -> bool:
        """Whether it is true in at least one process."""
        return bool(self.total(torch.tensor(float(flag), device=self.device)) > 0) if self.world > 1 else flag

    def all_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows (K, D) of every process one after the other; K may differ, D and the type may not."""
        if self.world == 1:
            return rows
        count = torch.tensor([len(rows)], device=self.device)
        counts = [torch.zeros_like(count) for _ in range(self.world)]
        distributed.all_gather(counts, count)
        longest = max(int(one) for one in counts)
        padded = torch.zeros((longest, rows.shape[1]), dtype=rows.dtype, device=self.device)
        padded[: len(rows)] = rows
        received = [torch.empty_like(padded) for _ in range(self.world)]
        distributed.all_gather(received, padded)
        return torch.cat([one[: int(own)] for one, own in zip(received, counts, strict=True)]).to(rows.device)

    def text(self, own: str) -> str:
        """The writer's text."""
        if self.world == 1:
            return own
        coded = torch.tensor(list(own.encode("utf-8", errors="surrogateescape")), dtype=torch.uint8)
        lengths = self.all_rows(torch.tensor([[len(coded)]]))
        everyone = self.all_rows(coded[:, None])
        return bytes(everyone[: int(lengths[0]), 0].tolist()).decode("utf-8", errors="surrogateescape")

    def share(self, module: nn.Module) -> None:
        """Give every process the writer's parameters and buffers, those of one type together."""
        if self.world == 1:
            return
        tensors = [tensor.data for tensor in module.state_dict(keep_vars=True).values()]
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            own = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in own])
            distributed.broadcast(flat, src=0)
            for tensor, part in zip(own, torch.split(flat, [tensor.numel() for tensor in own]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    @contextmanager
    def first_on_machine(self) -> Iterator[None]:
        """One process of each machine runs the block before the others: for files that the first one leaves behind."""
        if self.world > 1 and self.local_rank > 0:
            distributed.barrier()
        yield
        if self.world > 1 and self.local_rank == 0:
            distributed.barrier()


ALONE = ProcessRanks(torch.device("cpu"))


@contextmanager
def joined_processes(device_name: str, local_rank: int = -1) -> Iterator[ProcessRanks]:
    """Join the processes that ``torchrun`` started with this one, if it did; nccl on CUDA, gloo on the CPU.

    Args:
        device_name: as for `select_device`; of a list (``0,1``) each process of a machine takes its own.
        local_rank: as older launchers pass it; -1 for what the environment says.

    Raises:
        UsageError: no such device, or a local rank without a launcher or against what it says.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    told = int(os.environ.get("LOCAL_RANK", "-1"))
    if local_rank >= 0 and "WORLD_SIZE" not in os.environ:
        raise UsageError(f"--local-rank {local_rank}: is set by a launcher; start with torchrun --nproc_per_node N")
    if local_rank >= 0 and told >= 0 and local_rank != told:
        raise UsageError(f"--local-rank {local_rank}: the launcher says LOCAL_RANK={told}")
    place = max(told, local_rank, 0)
    if world == 1:
        yield ProcessRanks(select_device(device_name))
        return
    device = select_device(device_name, place)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield ProcessRanks(device, distributed.get_rank(), distributed.get_world_size(), place)
    finally:
        distributed.destroy_process_group()

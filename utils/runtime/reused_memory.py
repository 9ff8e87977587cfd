"""Memory that tensors gave back, kept for the next ones."""

from __future__ import annotations

import ctypes

import torch

# Parameters of glibc's mallopt (malloc.h).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
GROWTH = 64 * 2**20  # bytes that the heap grows by at least


def reuse_freed_memory(device: torch.device) -> bool:
    """Keep freed memory in this process when it computes on the CPU; whether the C library could be told so.

    As glibc comes, every large tensor is a mapping of its own: the system clears its pages when they are first
    touched and takes them back when it is freed, layer after layer, batch after batch. That was 30 % of the
    processor time of a training step at 320 pixels, batch 16. Here freed memory stays in the heap, which holds as much
    as the program's peak needs, until the process ends. Other C libraries have no such setting and are left alone.
    """
    if device.type != "cpu":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, -1), mallopt(M_TOP_PAD, GROWTH)])


def give_back_freed_memory() -> None:
    """Give the system what is free in the heap, before work whose tensors have other sizes.

    The free pieces that training leaves between what lives on would not fit an evaluation's tensors, which would come
    on top: the peak of a run was a fifth higher.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim.argtypes, trim.restype = (ctypes.c_size_t,), ctypes.c_int
        trim(0)

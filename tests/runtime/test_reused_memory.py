"""Freed memory is kept on the CPU: the next tensor of the size touches no new page."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from tests.shared_data import REPOSITORY
from utils.runtime.reused_memory import reuse_freed_memory

PROGRAM = """
import resource, torch
from utils.runtime.reused_memory import reuse_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
fresh = [faults() for _ in range(3)]
assert reuse_freed_memory(torch.device("cpu"))
later = [faults() for _ in range(10)]  # the heap grows for the first few
print(min(fresh), later[-1])
"""


def test_other_devices_are_left_alone() -> None:
    assert not reuse_freed_memory(torch.device("cuda"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_tensor_of_the_same_size_needs_no_new_pages() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    fresh, reused = map(int, done.stdout.split())
    assert fresh >= 1000  # 64 MiB: 16384 pages of 4 KiB, fewer where pages are larger
    assert reused <= fresh / 100


GIVING_BACK = """
import torch
from utils.runtime.reused_memory import give_back_freed_memory, reuse_freed_memory
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
reuse_freed_memory(torch.device("cpu"))
large, kept = torch.ones(32 * 2**20), torch.ones(2**18)
del large
kept_back = resident()
give_back_freed_memory()
print(kept_back - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_is_free_below_a_living_tensor_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIVING_BACK], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) >= 100 * 1024  # KiB, of 128 MiB

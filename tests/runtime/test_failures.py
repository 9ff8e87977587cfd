"""Failures of the machine, each as its library raises it, become a line that says what to change."""

from __future__ import annotations

import cv2
import pytest
from torch.distributed import DistBackendError

from utils.runtime.failures import explained_failures, is_lost_loader, own_failures
from utils.user_error import UserError

MEMORY = "out of memory with --batch-size 64 and --imgsz 1280; take a smaller one of the two"
OTHER = "another process of this run ended; its own message says why"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), MEMORY),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), MEMORY),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes"), MEMORY),
        (cv2.error("(-4:Insufficient memory) Failed to allocate 99 bytes"), MEMORY),
        (
            RuntimeError("DataLoader worker (pid 4711) is killed by signal: Killed."),
            "a loading process (4711) was killed, often for lack of memory; take fewer --workers",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"),
            "a loading process (12, 13) was killed, often for lack of memory; take fewer --workers",
        ),
        (RuntimeError("[../gloo/transport/tcp/pair.cc] Connection closed by peer"), OTHER),
        (RuntimeError("NCCL communicator was aborted"), OTHER),
        (DistBackendError("remote process exited"), OTHER),
        (ConnectionResetError(), "a loading process was killed, often for lack of memory; take fewer --workers"),
        (ConnectionRefusedError(), "a loading process was killed, often for lack of memory; take fewer --workers"),
        (EOFError(), "a loading process was killed, often for lack of memory; take fewer --workers"),
    ],
)
def test_failures_of_the_machine(error: Exception, line: str) -> None:
    with pytest.raises(UserError) as told, explained_failures(64, 1280):
        raise error
    assert str(told.value) == line and told.value.__cause__ is error
    assert is_lost_loader(error) == (line not in (MEMORY, OTHER))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        UserError("a.yaml: wrong"),
    ],
)
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, explained_failures(64, 1280):
        raise error
    assert raised.value is error and not is_lost_loader(error)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ConnectionRefusedError(111, "Connection refused"),
            "Tell: ConnectionRefusedError: [Errno 111] Connection refused",
        ),
        (
            TimeoutError("timed out"),
            "Tell: TimeoutError: timed out",
        ),
        (MemoryError(), "Tell: MemoryError"),
        (RuntimeError("no NCCL here"), "Tell: RuntimeError: no NCCL here"),
    ],
)
def test_failures_of_foreign_code_have_its_name(error: Exception, line: str) -> None:
    with pytest.raises(UserError) as told, explained_failures(64, 1280), own_failures("Tell"):
        raise error
    assert str(told.value) == line and told.value.__cause__ is error


def test_other_errors_of_foreign_code_pass() -> None:
    error = RuntimeError("enough")
    with pytest.raises(RuntimeError) as raised, explained_failures(64, 1280), own_failures("Tell"):
        raise error
    assert raised.value is error


def test_work_that_succeeds_is_not_touched() -> None:
    with explained_failures(64, 1280):
        done = True
    assert done

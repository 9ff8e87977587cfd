"""Names of devices and of arithmetic, on a machine with so many GPUs."""

from __future__ import annotations

import pytest
import torch

from utils.runtime import device as module
from utils.runtime.device import (
    autocast,
    describe_device,
    measured_convolutions,
    placed,
    requested_precision,
    resolve_precision,
    select_device,
)
from utils.user_error import UsageError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> list[torch.device]:
    """A machine with so many GPUs; the list is filled with those that were made the current one."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.mark.parametrize(
    ("gpus", "name", "rank", "expected"),
    [
        (0, "", None, "cpu"),
        (0, "CPU", None, "cpu"),
        (0, " cpu ", 1, "cpu"),  # several processes on the CPU
        (0, "", 1, "cpu"),
        (2, "", None, "cuda:0"),
        (2, "cuda", None, "cuda:0"),
        (2, "1", None, "cuda:1"),
        (2, "cuda:1", None, "cuda:1"),
        (2, "cpu", None, "cpu"),
        (2, "", 1, "cuda:1"),
        (4, "2,3", 0, "cuda:2"),
        (4, "2, 3", 1, "cuda:3"),
        (4, "cuda:2,3", 1, "cuda:3"),
    ],
)
def test_which_device(monkeypatch: pytest.MonkeyPatch, gpus: int, name: str, rank: int | None, expected: str) -> None:
    current = with_gpus(monkeypatch, gpus)
    assert str(select_device(name, rank)) == expected
    assert [str(device) for device in current] == ([] if expected == "cpu" else [expected])


@pytest.mark.case("Flags", "`--device mps` where torch has no Metal GPU", "exit 2: “has no Metal GPU”")
def test_an_apple_gpu_is_taken_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="--device mps: this machine, or its torch, has no Metal GPU"):
        select_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = select_device(" MPS ")
    assert device == torch.device("mps", 0) and resolve_precision("auto", device) is torch.float32
    assert requested_precision("fp32", True, device) is torch.float16
    assert "not verified" in describe_device(device)
    with pytest.raises(UsageError, match="--device mps: one process"):
        select_device("mps", 1)


@pytest.mark.parametrize(
    ("gpus", "name", "rank", "line"),
    [
        (2, "2", None, "this machine shows 2 CUDA devices"),
        (0, "0", None, "this machine shows 0 CUDA devices"),
        (2, "0,1", None, "start with torchrun"),
        (2, "0,1", 2, "too few for process 3 of this machine"),
        (2, "-1", None, "not a device"),
        (2, "gpu", None, "not a device"),
        (2, "²", None, "not a device"),  # a digit to Python, but no number
    ],
)
def test_what_is_no_device(monkeypatch: pytest.MonkeyPatch, gpus: int, name: str, rank: int | None, line: str) -> None:
    with_gpus(monkeypatch, gpus)
    with pytest.raises(UsageError, match=f"--device {name}: .*{line}"):
        select_device(name, rank)


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("auto", CPU, torch.float32),
        ("auto", GPU, torch.float16),
        ("fp32", GPU, torch.float32),
        ("bf16", GPU, torch.bfloat16),
        ("fp16", GPU, torch.float16),
        ("fp32", CPU, torch.float32),
        ("bf16", CPU, torch.bfloat16),
    ],
)
def test_which_arithmetic(
    monkeypatch: pytest.MonkeyPatch, name: str, device: torch.device, expected: torch.dtype
) -> None:
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: True)
    assert resolve_precision(name, device) is expected
    assert requested_precision(name, False, device) is expected


def test_arithmetic_that_a_cpu_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: False)
    for name in ("fp16", "bf16"):
        with pytest.raises(UsageError, match=f"--precision {name}: "):
            resolve_precision(name, CPU)
    with pytest.raises(UsageError, match="--half: "):
        requested_precision("auto", True, CPU)
    assert requested_precision("auto", True, GPU) is torch.float16


def test_autocast_changes_the_arithmetic_of_its_block_only() -> None:
    a = torch.ones(2, 2)
    with autocast(CPU, torch.bfloat16):
        assert (a @ a).dtype is torch.bfloat16
    with autocast(CPU, torch.float32):
        assert (a @ a).dtype is torch.float32
    assert (a @ a).dtype is torch.float32


@pytest.mark.parametrize(("device", "repeat", "expected"), [(GPU, True, True), (GPU, False, False), (CPU, True, False)])
def test_convolutions_are_measured_where_sizes_repeat_on_a_gpu(
    device: torch.device, repeat: bool, expected: bool
) -> None:
    with pytest.raises(ValueError), measured_convolutions(device, sizes_repeat=repeat):
        assert torch.backends.cudnn.benchmark is expected
        raise ValueError
    assert torch.backends.cudnn.benchmark is False


def test_weights_are_placed_channels_last() -> None:
    convolution = placed(torch.nn.Conv2d(3, 8, 3), CPU)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_cpu_is_described_with_its_threads() -> None:
    torch.set_num_threads(1)
    assert describe_device(CPU) == "cpu (1 thread)"

"""Where tensors live and in which precision they are computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch

from utils.runtime.console_log import counted
from utils.user_error import UsageError

Module = TypeVar("Module", bound=torch.nn.Module)


def select_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device named ``cpu``, ``0``, ``cuda:0``, ``mps`` or ``''`` (first CUDA GPU, else CPU).

    A CUDA GPU becomes the current one.

    One of several processes on a machine takes the GPU of its ``local_rank``, counted in the list ``0,1`` if given.

    Raises:
        UsageError: the name is not understood or no such device is there.
    """
    text = name.strip().lower().removeprefix("cuda:")
    if text == "cpu" or (text == "" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if text == "mps":
        return _apple_gpu(name, local_rank)
    if text in ("", "cuda"):
        text = str(local_rank or 0)
    elif local_rank is not None:
        listed = text.split(",")
        if local_rank >= len(listed):
            raise UsageError(f"--device {name}: too few for process {local_rank + 1} of this machine")
        text = listed[local_rank].strip()
    if "," in text:
        raise UsageError(f"--device {name}: for several GPUs start with torchrun --nproc_per_node N")
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"--device {name}: not a device; use cpu, mps or the number of a GPU")
    if int(text) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: this machine shows {torch.cuda.device_count()} CUDA devices")
    device = torch.device("cuda", int(text))
    torch.cuda.set_device(device)  # for libraries that are not told which: TensorRT's streams, synchronize()
    return device


def _apple_gpu(name: str, local_rank: int | None) -> torch.device:
    if not torch.backends.mps.is_available():
        raise UsageError(f"--device {name}: this machine, or its torch, has no Metal GPU")
    if local_rank is not None:
        raise UsageError(f"--device {name}: one process computes on it; start without torchrun")
    return torch.device("mps", 0)


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """Arithmetic type for ``auto`` (fp16 on CUDA, else fp32), ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        UsageError: fp16 on CPU, which has no fp16 arithmetic worth training or evaluating with; bf16 on a CPU
            that only emulates it.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if device.type == "cpu" and name == "fp16":
        raise UsageError("--precision fp16: needs a CUDA device; use bf16 or fp32 on CPU")
    if device.type == "cpu" and name == "bf16" and not cpu_has_bf16():
        raise UsageError("--precision bf16: this processor has no native bf16 arithmetic; use fp32")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def requested_precision(name: str, half: bool, device: torch.device) -> torch.dtype:
    """Arithmetic type of ``--precision name``, or of ``--half``; see ``resolve_precision``."""
    if not half:
        return resolve_precision(name, device)
    if device.type == "cpu":
        raise UsageError("--half: this CPU has no fp16 arithmetic for convolutions; use --precision bf16, or a GPU")
    return torch.float16


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 natively (AVX512-BF16 or AMX)."""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def placed(model: Module, device: torch.device) -> Module:
    """The model on its device with weights in channels_last order, in which convolutions are fastest here."""
    return model.to(device).to(memory_format=torch.channels_last)


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on ``device``; a GPU takes it from page-locked memory, and the host does not wait for it."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[None]:
    """Autocast to ``dtype`` for the model's forward pass; nothing for fp32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


@contextlib.contextmanager
def measured_convolutions(device: torch.device, *, sizes_repeat: bool) -> Iterator[None]:
    """Have cuDNN time its algorithms on the first batch of each size and keep the fastest, where ``sizes_repeat``.

    Where nearly every batch has a size of its own, the trials would cost more than they save.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or (sizes_repeat and device.type == "cuda")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def describe_device(device: torch.device) -> str:
    """One phrase for the log: the device and what it is."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"cuda:{device.index} ({properties.name}, {properties.total_memory / 2**30:.1f} GiB)"
    if device.type == "mps":
        return "mps (Metal; not verified by this program's tests)"
    return f"cpu ({counted(torch.get_num_threads(), 'thread')})"

"""Share of this machine's matrix-multiply peak that training and inference reach, in fp32 and bf16.

The peak is the best of matrix products of several sizes. Floating point operations of a model are those of its
convolutions (2 x multiply-adds, ``models.summary``); a training step counts as three forward passes. Processor time of
one thread: run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

import torch

from benchmarks.inputs import times_of
from benchmarks.measuring import Table
from benchmarks.own_side import CPU, Call, step_call
from models.fuse import fused
from models.summary import summarize
from models.yolo import DetectionModel, load_architecture
from utils.runtime.device import autocast, placed
from utils.runtime.reused_memory import reuse_freed_memory
from utils.runtime.seeds import repeatable_arithmetic

SIZES = (256, 512, 1024, 2048)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def shortest(call: Call, rounds: int) -> float:
    """Least processor time of a call, after one that does not count."""
    return min(cpu for _, cpu in times_of(call, rounds)[""])


@torch.inference_mode()
def peak(dtype: torch.dtype, rounds: int, share: float) -> float:
    """Best GFLOP/s of square matrix products: by ``torch.mm`` and as 1x1 convolutions, which run in other libraries."""
    rates = []
    for size in (_multiple_of_32(size * share) for size in SIZES):
        left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
        maps = torch.randn(1, size, 32, size // 32).to(dtype).contiguous(memory_format=torch.channels_last)
        kernel = right.view(size, size, 1, 1).contiguous(memory_format=torch.channels_last)
        seconds = (
            shortest(lambda a=left, b=right: torch.mm(a, b), rounds),  # type: ignore[misc]
            shortest(lambda x=maps, k=kernel: torch.nn.functional.conv2d(x, k), rounds),  # type: ignore[misc]
        )
        rates.append(2 * size**3 / max(min(seconds), 1e-9) / 1e9)
    return max(rates)


def training_call(name: str, precision: str, side: int, images: int) -> Call:
    """Whole training steps, loss and optimizer included."""
    return step_call(name, precision, side, images)


def inference_call(name: str, precision: str, side: int, images: int) -> Call:
    """Forward passes with decoding, of the model as it is run: fused."""
    repeatable_arithmetic(CPU)
    reuse_freed_memory(CPU)
    model = placed(fused(DetectionModel(load_architecture(name)).eval()), CPU).eval()
    batch = torch.rand(images, 3, side, side).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward() -> None:
        with autocast(CPU, PRECISIONS[precision]):
            model.predict(batch)

    return forward


def tables(flags: Namespace) -> Iterator[Table]:
    """One table of GFLOP/s; ``--share`` makes matrices and images smaller."""
    yield Table(("GFLOP/s", "fp32", "of peak", "bf16", "of peak"), _rows(flags.rounds, flags.share))


def _rows(rounds: int, share: float) -> Iterator[list[str]]:
    peaks = {name: peak(dtype, rounds, share) for name, dtype in PRECISIONS.items()}
    yield [f"matrix product, best of {SIZES}", *(cell for rate in peaks.values() for cell in (f"{rate:.0f}", ""))]
    for name in ("yolov5n", "yolov5n-spd"):
        for work, call_of, usual, images, passes in (
            ("training", training_call, 320, 16, 3),
            ("inference", inference_call, 640, 4, 1),
        ):
            side, cells = _multiple_of_32(usual * share), []
            gflops = passes * images * summarize(DetectionModel(load_architecture(name)), side, side).gflops
            for precision, best in peaks.items():
                rate = gflops / shortest(call_of(name, precision, side, images), rounds)
                cells += [f"{rate:.0f}", f"{rate / best:.0%}"]
            yield [f"{name}, {work}, {side} pixels, batch {images}", *cells]


def _multiple_of_32(size: float) -> int:
    return 32 * max(round(size / 32), 1)

"""Share of this machine's matrix-multiply peak that training and inference reach, in fp32 and bf16.

The peak is the best of matrix products of several sizes. Floating point operations of a model are those of its
convolutions (2 x multiply-adds, ``models.summary``); a training step counts as three forward passes. Processor time of
one thread: run with OMP_NUM_THREADS=1.

python -m benchmarks.roofline
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from benchmarks.measuring import machine
from benchmarks.training_step import CPU, random_batch, training_step
from models.fuse import fused
from models.summary import summarize
from models.yolo import DetectionModel, load_architecture
from utils.runtime.device import autocast, placed
from utils.runtime.reused_memory import reuse_freed_memory
from utils.runtime.seeds import repeatable_arithmetic

SIZES = (256, 512, 1024, 2048)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def shortest(call: Callable[[], object], rounds: int) -> float:
    """Least processor time of a call, after one that does not count."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


def peak(dtype: torch.dtype, rounds: int) -> float:
    """Best GFLOP/s of square matrix products: by ``torch.mm`` and as 1x1 convolutions, which run in other libraries."""
    rates = []
    for size in SIZES:
        left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
        maps = torch.randn(1, size, 32, size // 32).to(dtype).contiguous(memory_format=torch.channels_last)
        kernel = right.view(size, size, 1, 1).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            seconds = (
                shortest(lambda a=left, b=right: torch.mm(a, b), rounds),  # type: ignore[misc]
                shortest(lambda x=maps, k=kernel: torch.nn.functional.conv2d(x, k), rounds),  # type: ignore[misc]
            )
        rates.append(2 * size**3 / min(seconds) / 1e9)
    return max(rates)


def training_rate(name: str, dtype: torch.dtype, side: int, images: int, rounds: int) -> float:
    """GFLOP/s of whole training steps, loss and optimizer included."""
    model = placed(DetectionModel(load_architecture(name)), CPU).train()
    step = training_step(model, random_batch(images, side), dtype)
    return 3 * images * summarize(model, side, side).gflops / shortest(step, rounds)


def inference_rate(name: str, dtype: torch.dtype, side: int, batch_size: int, rounds: int) -> float:
    """GFLOP/s of forward passes with decoding, of the model as it is run: fused."""
    plain = DetectionModel(load_architecture(name)).eval()
    model = placed(fused(plain), CPU).eval()
    images = torch.rand(batch_size, 3, side, side).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward() -> None:
        with autocast(CPU, dtype):
            model.predict(images)

    return batch_size * summarize(plain, side, side).gflops / shortest(forward, rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    peaks = {name: peak(dtype, flags.rounds) for name, dtype in PRECISIONS.items()}
    repeatable_arithmetic(CPU)  # as train.py
    reuse_freed_memory(CPU)
    print(f"\nGFLOP/s ({machine()})\n\n| | fp32 | of peak | bf16 | of peak |\n|---|---:|---:|---:|---:|")
    print(f"| matrix product, best of {SIZES} | {peaks['fp32']:.0f} | | {peaks['bf16']:.0f} | |")
    for name in ("yolov5n", "yolov5n-spd"):
        for title, measure, side, images in (
            ("training, 320 pixels, batch 16", training_rate, 320, 16),
            ("inference, 640 pixels, batch 4", inference_rate, 640, 4),
        ):
            rates = {p: measure(name, dtype, side, images, flags.rounds) for p, dtype in PRECISIONS.items()}
            cells = " | ".join(f"{rate:.0f} | {rate / peaks[p]:.0%}" for p, rate in rates.items())
            print(f"| {name}, {title} | {cells} |", flush=True)


if __name__ == "__main__":
    main()

"""``benchmarks.gpu_check`` at a tiny size:  python checked_gpu.py FOLDER. Its commands run in forks of this process."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import gpu_check
from benchmarks.gpu_check import CHECKS, check
from benchmarks.gpu_runs import Bench, Sizes
from benchmarks.measuring import Command, Cost
from tests.documentation.workspace import run

TINY = Sizes(
    train=8,
    val=4,
    imgsz=64,
    batch_size=4,
    epochs=1,
    least_ap50=0.0,
    fast_cfg="yolov5n.yaml",
    fast_imgsz=64,
    fast_batch=4,
    conf=0.001,
    copied_mib=1,
    workers=0,
)


def run_in(command: Command, said: str) -> None:
    with Path(said).open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(command.folder)
    sys.exit(run(["python", *command.words[1:]]))


def finished_in_a_fork(command: Command) -> tuple[str, Cost]:
    """As ``Command.finished``."""
    with tempfile.NamedTemporaryFile("r") as said:
        process = multiprocessing.get_context("fork").Process(target=run_in, args=(command, said.name))
        process.start()
        process.join()
        text = Path(said.name).read_text(encoding="utf-8")
    if process.exitcode:
        raise RuntimeError(f"{' '.join(command.words)} failed:\n{text}")
    return text, Cost(1.0, 1.0, 1.0)


def main(folder: Path) -> None:
    Command.finished = finished_in_a_fork  # type: ignore[method-assign, assignment]
    gpu_check.UNMATCHED = 1.0  # an untrained network's boxes are so alike that in fp16 others are kept
    gpu_check.OVERLAPPED = gpu_check.COMPILED_SHARE = float("inf")  # nothing is faster here
    check(Bench("0", folder / "bench", TINY), list(CHECKS), folder / "gpu-check.md")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

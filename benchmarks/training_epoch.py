"""train.py: seconds per epoch after the first, and peak memory, ours beside a YOLOv5 checkout.

The time of an epoch is the difference between a run of one epoch and one of ``--epochs``, so that the start of the
program, the label scan and the last evaluation count for nothing.

python -m benchmarks.training_epoch --peer ~/yolov5 --weights yolov5n.pt --data coco128.yaml --precision fp32 bf16
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.measuring import Command, ProcessRun, alternate_processes, print_process_ratios, print_ratios, python

FEW = 1  # epochs of the short run


def main() -> None:
    """Train in turn, print the ratios of time and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of a YOLOv5 checkout")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="dataset YAML whose path: is absolute")
    parser.add_argument("--img", default="320")
    parser.add_argument("--batch-size", default="16")
    parser.add_argument("--workers", default="1")
    parser.add_argument("--precision", nargs="*", default=["fp32"], help="of ours, one row each")
    parser.add_argument("--epochs", type=int, default=3, help="of the long run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", action="store_true", help="for processor time on a busy machine")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as runs:
        common = ["--weights", flags.weights.resolve(), "--data", flags.data.resolve(), "--img", flags.img]
        common += ["--batch-size", flags.batch_size, "--workers", flags.workers, "--noval", "--noplots"]
        common += ["--noautoanchor", "--project", runs]
        commands: dict[str, Command] = {}
        for epochs in (FEW, flags.epochs):
            own = ["train.py", *common, "--epochs", str(epochs)]
            commands |= {f"ours, {p} {epochs}": python(*own, "--precision", p) for p in flags.precision}
            if flags.peer:
                commands[f"peer {epochs}"] = python(*own, folder=flags.peer)
        done = alternate_processes(commands, flags.rounds, at_once=flags.at_once)
    names = [name.removesuffix(f" {FEW}") for name in done if name.endswith(f" {FEW}")]
    each = {name: an_epoch(done[f"{name} {FEW}"], done[f"{name} {flags.epochs}"], flags.epochs - FEW) for name in names}
    print_process_ratios(f"train.py, {flags.img} pixels, batch {flags.batch_size}, an epoch", each, names[-1])
    memory = {name: epoch.peak_mib for name, epoch in each.items()}
    print_ratios("peak memory of the training process", memory, names[-1], unit="MiB")


def an_epoch(few: ProcessRun, many: ProcessRun, count: int) -> ProcessRun:
    """What one of the ``count`` further epochs takes; the memory is that of the long run."""
    return ProcessRun((many.seconds - few.seconds) / count, many.peak_mib, (many.cpu_seconds - few.cpu_seconds) / count)


if __name__ == "__main__":
    main()

"""train.py: processor time per step outside of the network's forward and backward passes, ours beside a checkout's.

Both run as they are, under a launcher that times the model's ``forward`` and ``Tensor.backward``; what is left of a
step is reading and augmenting the batch, the loss, the optimizer, the average and the bookkeeping. Images are read in
the training process itself (``--workers 0``), so that their time counts. Run with OMP_NUM_THREADS=1.

python -m benchmarks.training_overhead --peer ~/yolov5 --weights yolov5n.pt --data coco128.yaml
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.measuring import print_ratios, python

SKIPPED = 2  # first steps


def main() -> None:
    """Train in turn, print milliseconds per step and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of a YOLOv5 checkout")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="dataset YAML whose path: is absolute")
    parser.add_argument("--img", default="320")
    parser.add_argument("--batch-size", default="16")
    parser.add_argument("--workers", default="0")
    parser.add_argument("--cache", action="store_true", help="images in memory on both sides: no decoding")
    parser.add_argument("--rounds", type=int, default=1)
    flags = parser.parse_args()
    launcher = Path(__file__).parent / "peer_side" / "training_overhead.py"
    outside: dict[str, list[float]] = {}
    inside: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as runs:
        words = [launcher, str(SKIPPED), "train.py", "--weights", flags.weights.resolve(), "--data"]
        words += [flags.data.resolve(), "--img", flags.img, "--batch-size", flags.batch_size, "--workers"]
        words += [flags.workers, "--noval", "--noplots", "--noautoanchor", "--epochs", "1", "--project", runs]
        words += ["--cache", "ram"] if flags.cache else []
        commands = {"ours": python(*words)}
        if flags.peer:
            commands["peer"] = python(*words, folder=flags.peer)
        for _ in range(flags.rounds):
            for name, command in commands.items():
                values = command.json_line()
                outside.setdefault(name, []).append(1000 * values[0])
                inside.setdefault(name, []).append(1000 * values[1])
    size = f"{flags.img} pixels, batch {flags.batch_size}, CPU time per step"
    reference = list(commands)[-1]
    print_ratios(f"outside forward and backward, {size}", {n: median(v) for n, v in outside.items()}, reference, "ms")
    print_ratios(f"forward and backward, {size}", {n: median(v) for n, v in inside.items()}, reference, "ms")


if __name__ == "__main__":
    main()

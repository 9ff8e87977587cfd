"""val.py as a whole process, ours beside a YOLOv5 checkout: same weights, images, size.

python -m benchmarks.validation --peer ~/yolov5 --weights yolov5n.pt --data coco128.yaml --batch-size 32
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.measuring import alternate_processes, print_process_ratios, python


def main() -> None:
    """Time the processes in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of a YOLOv5 checkout")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="dataset YAML whose path: is absolute")
    parser.add_argument("--img", default="640")
    parser.add_argument("--batch-size", default="32")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--precision", nargs="*", default=["fp32"], help="of ours, one row each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", action="store_true", help="for processor time on a busy machine")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as runs:
        common = ["--weights", flags.weights.resolve(), "--data", flags.data.resolve(), "--img", flags.img]
        common += ["--batch-size", flags.batch_size, "--workers", flags.workers, "--project", runs]
        commands = {f"ours, {p}": python("val.py", *common, "--precision", p) for p in flags.precision}
        if flags.peer:
            commands["peer"] = python("val.py", *common, folder=flags.peer)
        runs_of = alternate_processes(commands, flags.rounds, at_once=flags.at_once)
    title = f"val.py, {flags.img} pixels, batch {flags.batch_size}, whole process"
    print_process_ratios(title, runs_of, list(runs_of)[-1])


if __name__ == "__main__":
    main()

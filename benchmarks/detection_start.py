"""detect.py on one image, whole process, ours beside a YOLOv5 checkout; and ``detect.py --help``.

python -m benchmarks.detection_start --peer ~/yolov5 --weights yolov5n.pt --source image.jpg
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
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", action="store_true", help="for processor time on a busy machine")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as runs:
        common = ["detect.py", "--weights", flags.weights.resolve(), "--source", flags.source.resolve()]
        common += ["--project", runs]
        commands = {"ours --help": python("detect.py", "--help"), "ours": python(*common)}
        if flags.peer:
            commands["peer"] = python(*common, folder=flags.peer)
        done = alternate_processes(commands, flags.rounds, at_once=flags.at_once)
    print_process_ratios("detect.py on one image, whole process", done, list(done)[-1])


if __name__ == "__main__":
    main()

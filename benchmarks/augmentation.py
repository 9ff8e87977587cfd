"""Time per training sample in one process: mosaic, warp, jitter, flips, with the images in memory and on disk.

python -m benchmarks.augmentation --peer ~/yolov5 --data path/to/images --side 640
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import cv2

from benchmarks.measuring import alternate_children, print_ratios, python
from benchmarks.peer_side.inputs import print_seconds
from utils.config.hyperparameters import read_hyperparameters
from utils.dataset.detection_dataset import open_dataset
from utils.dataset.samplers import SampleKey
from utils.dataset.training_loader import AugmentedImages

COUNT = 128  # samples per measurement


def own_side(folder: Path, side: int, *, cached: bool) -> None:
    """Time our samples with YOLOv5's default hyperparameters."""
    cv2.setNumThreads(0)
    dataset = open_dataset((folder,), tuple(map(str, range(80))))
    if cached:
        dataset = dataset.cached("ram", long_side=side)
    hyp = read_hyperparameters(Path("data/hyps/hyp.scratch-low.yaml"))
    samples = AugmentedImages(dataset, side, hyp, seed=0)
    print_seconds(
        lambda: [samples[SampleKey(0, i, i % len(dataset))] for i in range(COUNT)], times=3, clock=time.process_time
    )


def main() -> None:
    """Compare, or, with ``--own``, be one of the two sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of a YOLOv5 checkout")
    parser.add_argument("--data", type=Path, required=True, help="folder of images with labels")
    parser.add_argument("--side", type=int, default=640, help="pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--own", choices=("memory", "disk"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.own:
        own_side(flags.data, flags.side, cached=flags.own == "memory")
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # per core, as in a loading process
    data, side = flags.data.resolve(), str(flags.side)
    for place in ("memory", "disk"):
        commands = {"ours": python("-m", "benchmarks.augmentation", "--own", place, "--data", data, "--side", side)}
        if flags.peer:
            script = Path(__file__).parent / "peer_side" / "augmentation.py"
            commands["peer"] = python(script, data, side, str(COUNT), place, folder=flags.peer)
        seconds = alternate_children(commands, flags.rounds)
        each = {name: 1000 * value / COUNT for name, value in seconds.items()}
        title = f"mosaic, warp, jitter at {side} pixels, images from {place}, CPU time per image"
        print_ratios(title, each, list(each)[-1], unit="ms")


if __name__ == "__main__":
    main()

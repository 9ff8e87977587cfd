"""Training samples per second of one process: read, mosaic, warp, jitter, flips.

python -m benchmarks.augmentation --peer ~/yolov5 --data path/to/images --side 640
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.measuring import alternate_children, print_ratios, python
from benchmarks.peer_side.inputs import print_seconds
from utils.config.hyperparameters import read_hyperparameters
from utils.dataset.detection_dataset import AugmentedPictures, SampleKey
from utils.dataset.loaders import open_dataset

COUNT = 128  # samples per measurement


def own_side(folder: Path, side: int) -> None:
    """Time our samples with YOLOv5's default hyperparameters."""
    dataset = open_dataset((folder,), tuple(map(str, range(80))))
    hyp = read_hyperparameters(Path("data/hyps/hyp.scratch-low.yaml"))
    samples = AugmentedPictures(dataset, side, hyp, seed=0)
    print_seconds(lambda: [samples[SampleKey(0, i, i % len(dataset))] for i in range(COUNT)], times=3)


def main() -> None:
    """Compare, or, with ``--own``, be one of the two sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of a YOLOv5 checkout")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures with labels")
    parser.add_argument("--side", type=int, default=640, help="pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--own", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.own:
        own_side(flags.data, flags.side)
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # per core, as in a loading process
    data, side = flags.data.resolve(), str(flags.side)
    commands = {"ours": python("-m", "benchmarks.augmentation", "--own", "--data", data, "--side", side)}
    if flags.peer:
        script = Path(__file__).parent / "peer_side" / "augmentation.py"
        commands["peer"] = python(script, data, side, str(COUNT), folder=flags.peer)
    seconds = alternate_children(commands, flags.rounds)
    each = {name: 1000 * value / COUNT for name, value in seconds.items()}
    print_ratios(f"mosaic, warp, jitter at {side} pixels, per picture and core", each, list(each)[-1], unit="ms")


if __name__ == "__main__":
    main()

"""Train a detector.

python train.py --weights yolov5s.pt --data coco128.yaml --img 640                  fine-tune official weights
python train.py --weights '' --cfg yolov5n-spd.yaml --data my.yaml --epochs 300     an SPD model from scratch
python train.py --weights yolov5n.pt --cfg yolov5n-spd.yaml --data my.yaml          an SPD model from COCO weights
python train.py --evolve 100 --weights yolov5n.pt --data my.yaml --epochs 20        search hyperparameters
python train.py --resume                                                            continue the newest run
"""

from __future__ import annotations

import sys

from utils.config.command_line import parse_command_line
from utils.config.train_flags import REFUSED_TRAIN_FLAGS, TrainConfig
from utils.runtime.console_log import run_verb


def main() -> None:
    assert __doc__ is not None
    config = parse_command_line(
        TrainConfig, sys.argv[1:], prog="train.py", description=__doc__, refused=REFUSED_TRAIN_FLAGS
    )
    # After parsing, so that --help and a wrong flag answer at once.
    if config.evolve is None:
        from utils.verbs.train import train_detector

        train_detector(config)
    else:
        from utils.verbs.search import search

        search(config)


if __name__ == "__main__":
    sys.exit(run_verb(main))

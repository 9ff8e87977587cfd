"""Train a classifier.

python classify/train.py --model yolov5s-cls.pt --data my_folder --img 224              fine-tune official weights
python classify/train.py --model resnet18-spd --data my_folder --img 64 --epochs 100    an SPD ResNet from scratch
python classify/train.py --model resnet50-spd --data cifar10 --img 32 --hyp data/hyps/hyp.classify-cifar10.yaml
python classify/train.py --resume                                                       continue the newest run

A data folder has train/ and val/ or test/, and in each one folder of images per class.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    from utils.config.classification_recipe import parse_with_recipe

    assert __doc__ is not None
    config = parse_with_recipe(sys.argv[1:], prog="classify/train.py", description=__doc__)
    # After parsing, so that --help and a wrong flag answer at once.
    from utils.verbs.train_classifier import train_classifier

    train_classifier(config)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, instead of this folder
    from utils.runtime.console_log import run_verb

    sys.exit(run_verb(main))

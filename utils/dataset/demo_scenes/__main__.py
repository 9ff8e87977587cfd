"""Writes the demo's data set of generated images.

python -m utils.dataset.demo_scenes                 where data/demo-scenes.yaml looks for it, once
python -m utils.dataset.demo_scenes --train 1000    a larger one into a folder of your choice: --root
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from utils.config.dataset_file import find_dataset_yaml
from utils.config.dataset_yaml import read_dataset_yaml
from utils.dataset.demo_scenes import SEED, TRAIN_IMAGES, VAL_IMAGES, SceneSize, write_demo_scenes
from utils.runtime.console_log import run_verb
from utils.user_error import UsageError


def main() -> None:
    root = read_dataset_yaml(find_dataset_yaml("demo-scenes.yaml")).root
    parser = argparse.ArgumentParser(
        prog="python -m utils.dataset.demo_scenes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=root, help=f"folder to write (default: {root})")
    parser.add_argument("--train", type=int, default=TRAIN_IMAGES, help="training images")
    parser.add_argument("--val", type=int, default=VAL_IMAGES, help="validation images")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    if options.train < 1 or options.val < 1 or options.seed < 0:
        given = f"--train {options.train} --val {options.val} --seed {options.seed}"
        raise UsageError(f"{given}: at least 1 image each and a seed of at least 0 are needed")
    there = options.root.exists()
    write_demo_scenes(options.root, SceneSize(options.train, options.val, options.seed))
    print(f"demo scenes {'were already' if there else 'written'} in {options.root}")


if __name__ == "__main__":
    sys.exit(run_verb(main))

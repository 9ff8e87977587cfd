"""Split a folder of labelled images into train, val and test; images that belong together stay in one set.

    python -m utils.dataset.split pictures
    python -m utils.dataset.split pictures --shares 0.8 0.2 --output datasets/mine
    python -m utils.dataset.split my.yaml --folders
    python -m utils.dataset.split pictures --groups '(flight\\d+)_'

Labels are beside the images, or in labels/ beside images/. Images that look alike, that Roboflow made of one original,
that were taken within seconds of each other, or that are frames in a row stay in one set. The sets are balanced in
classes and object sizes. The originals are not changed: lists of them, data.yaml and report.html are written to a new
folder.
"""

from __future__ import annotations

import shlex
import sys

from utils.config.command_line import parse_command_line
from utils.dataset.split import SplitConfig, split_dataset
from utils.dataset.split.files import new_folder, write_split
from utils.reporting.run_directory import write_problems
from utils.reporting.split_page import console_lines, write_split_page
from utils.runtime.console_log import run_verb
from utils.user_error import typed


def main() -> None:
    assert __doc__ is not None
    words = sys.argv[1:]
    if words and not words[0].startswith("-"):
        words.insert(0, "--source")
    config = parse_command_line(SplitConfig, words, prog="python -m utils.dataset.split", description=__doc__)
    config.place()  # nothing is made where there is nothing to split
    with new_folder(config.named, config.output, copies=config.folders) as folder:
        split = split_dataset(config)
        write_problems(folder, split.problems)
        page = write_split_page(folder, split)
        yaml = write_split(folder, split, copies=config.folders)
    for line in console_lines(split):
        print(line)
    print(f"page: {page}")
    print(f"dataset YAML: {yaml}")
    print(f"next: {typed('python train.py')} --weights yolov5n.pt --data {shlex.quote(str(yaml))}")


if __name__ == "__main__":
    sys.exit(run_verb(main))

"""Reads every image and label of a data set and writes a page about it.

    python -m utils.dataset.inspect --data my.yaml
    python -m utils.dataset.inspect --data VisDrone.yaml --img 1280 --cfg yolov5s-spd-p2.yaml

The page is ``runs/inspect/exp/report.html``, with its figures in ``inspection.json`` and files and rows that cannot be
used in ``problems.txt`` beside it. It ends with what follows for training.
"""

from __future__ import annotations

import argparse
import sys

from utils.config.shared_flags import LONGEST_SIDE
from utils.dataset.available_dataset import available_dataset
from utils.dataset.inspect import InspectionSettings, inspect_dataset
from utils.reporting.dataset_page import write_inspection
from utils.reporting.run_directory import new_run_directory
from utils.runtime.console_log import run_verb
from utils.user_error import UsageError, typed


def main() -> None:
    assert __doc__ is not None
    script = "python -m utils.dataset.inspect"
    parser = argparse.ArgumentParser(
        prog=typed(script),
        description=__doc__.replace(script, typed(script)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, help="dataset YAML")
    parser.add_argument("--imgsz", "--img", "--img-size", type=int, default=640, help="image size for training")
    parser.add_argument("--cfg", default="yolov5s.yaml", help="architecture whose anchors are measured")
    parser.add_argument(
        "--labels-only", action="store_true", help="do not decode images: finds no duplicates and no leak"
    )
    parser.add_argument("--project", default="runs/inspect", help="folder of runs")
    parser.add_argument("--name", default="exp", help="name of this run's folder")
    parser.add_argument("--exist-ok", action="store_true", help="use the folder even if it exists")
    flags = parser.parse_args()
    if not 32 <= flags.imgsz <= LONGEST_SIDE:
        raise UsageError(f"--imgsz {flags.imgsz}: must be 32 to {LONGEST_SIDE}")
    settings = InspectionSettings(flags.imgsz, flags.cfg, decode_images=not flags.labels_only)
    found = inspect_dataset(available_dataset(flags.data), settings)
    folder = new_run_directory(flags.project, flags.name, exist_ok=flags.exist_ok)
    for line in write_inspection(folder, found):
        print(line)


if __name__ == "__main__":
    sys.exit(run_verb(main))

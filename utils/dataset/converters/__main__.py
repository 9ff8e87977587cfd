"""Writes YOLO label files from other annotation formats, with progress and a summary.

    python -m utils.dataset.converters coco annotations/instances_val2017.json --images val2017
    python -m utils.dataset.converters voc VOCdevkit/VOC2007 --data VOC.yaml
    python -m utils.dataset.converters visdrone ../datasets/VisDrone
    python -m utils.dataset.converters dota DOTA --to ../datasets/dota
    python -m utils.dataset.converters sku110k SKU110K_fixed
    python -m utils.dataset.converters xview xView/xView_train.geojson

Label files go beside the images (``labels`` for ``images``), or with --to into a folder of their own, with links to
the images. The last lines are a dataset YAML.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from utils.config.dataset_file import find_dataset_yaml
from utils.config.dataset_yaml import read_dataset_yaml
from utils.dataset.converters import FORMATS
from utils.dataset.converters.label_writing import SourceSettings, dataset_yaml, write_labels
from utils.runtime.atomic_files import write_text
from utils.runtime.console_log import run_verb


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m utils.dataset.converters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("format", choices=FORMATS)
    parser.add_argument("source", type=Path, help="folder of the data set, or its annotation file (coco, xview)")
    parser.add_argument("--to", type=Path, help="folder to write to; otherwise labels go beside the images")
    parser.add_argument("--images", type=Path, help="folder of the images, if it is not the format's usual one")
    parser.add_argument("--data", help="dataset YAML whose names give the classes and their order")
    parser.add_argument("--outlines", action="store_true", help="write outlines where the format has them (coco)")
    flags = parser.parse_args()
    names = read_dataset_yaml(find_dataset_yaml(flags.data), quiet=True).names if flags.data else None
    settings = SourceSettings(flags.source, names, flags.images, flags.outlines)
    source = FORMATS[flags.format](settings)
    summaries = write_labels(source, flags.to)
    for summary in summaries:
        print("\n".join(summary.lines(source.names)))
    base = flags.to or (source.root if source.root.is_dir() else source.root.parent)
    yaml = dataset_yaml(source, summaries, base)
    if flags.to:
        write_text(flags.to / "data.yaml", yaml)
        print(f"dataset YAML: {flags.to / 'data.yaml'}")
    else:
        print(f"\n{yaml}", end="")


if __name__ == "__main__":
    sys.exit(run_verb(main))

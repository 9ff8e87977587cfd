"""Prints what an architecture file builds.

Usage:
    python -m models --cfg models/yolov5n-spd.yaml
    python -m models --cfg yolov5n-spd-released.yaml --imgsz 320 --profile
    python models/yolo.py --cfg yolov5s.yaml                               the same, as in YOLOv5
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from utils.config.shared_flags import IMGSZ_ALIASES
from utils.runtime.console_log import run_verb
from utils.user_error import UsageError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models", description="Layers, parameters and GFLOPs of a model.")
    parser.add_argument("--cfg", default="yolov5n-spd.yaml", help="architecture file, or its name in models/")
    parser.add_argument("--imgsz", *IMGSZ_ALIASES, type=int, nargs="+", default=[640], help="pixels: side, or h w")
    parser.add_argument("--profile", action="store_true", help="time every layer on the CPU, batch 1")
    flags = parser.parse_args()
    # After parsing, so that --help and a wrong flag answer at once.
    from models.summary import layer_milliseconds, summarize
    from models.yolo import DetectionModel, load_architecture

    model = DetectionModel(load_architecture(flags.cfg))
    height, width = flags.imgsz[0], flags.imgsz[-1]
    if len(flags.imgsz) > 2 or any(side < 1 or side % model.stride for side in (height, width)):
        raise UsageError(
            f"--imgsz {' '.join(map(str, flags.imgsz))}: one or two multiples of {model.stride} are needed"
        )
    summary = summarize(model, height, width)
    if flags.profile:
        summary = replace(summary, milliseconds=layer_milliseconds(model, height, width))
    print("\n".join(summary.lines()))


if __name__ == "__main__":
    sys.exit(run_verb(main))

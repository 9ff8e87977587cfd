"""The console command ``yolov5-spd`` of an installed copy: the scripts by name, with the same flags.

yolov5-spd train --weights yolov5n.pt --data my.yaml
yolov5-spd classify predict --weights best.pt --source images/
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = {
    ("train",): ("train.py", "train a detector"),
    ("val",): ("val.py", "evaluate detectors by AP, AP_S and YOLOv5's figures"),
    ("detect",): ("detect.py", "find objects in images, videos and streams"),
    ("export",): ("export.py", "write ONNX, TorchScript, OpenVINO or TensorRT files"),
    ("classify", "train"): ("classify/train.py", "train a classifier"),
    ("classify", "val"): ("classify/val.py", "evaluate a classifier"),
    ("classify", "predict"): ("classify/predict.py", "classify images"),
    ("inspect",): ("utils/dataset/inspect/__main__.py", "look at a data set: sizes, faults, look-alikes"),
    ("split",): ("utils/dataset/split/__main__.py", "make train, val and test of a folder of images and labels"),
}
USAGE = "\n".join(
    [
        "usage: yolov5-spd COMMAND [FLAGS]; yolov5-spd COMMAND --help lists the flags",
        *(f"  {' '.join(words):17}{meaning}" for words, (_, meaning) in SCRIPTS.items()),
    ]
)


def main() -> None:
    """Run the script that the first words name, in the folder of the caller, as ``python SCRIPT`` does."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return
    for command, (script, _) in SCRIPTS.items():
        if tuple(words[: len(command)]) == command:
            # The packages are called models and utils: found here first, and by the processes that are started.
            sys.path.insert(0, str(REPOSITORY))
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
            from utils.runtime.console_log import run_verb

            sys.argv = [f"yolov5-spd {' '.join(command)}", *words[len(command) :]]  # as messages name the program
            verb: Callable[[], None] = importlib.import_module(script.removesuffix(".py").replace("/", ".")).main
            sys.exit(run_verb(verb))
    print(f"error: yolov5-spd: no command {' '.join(words[:2])!r}\n{USAGE}", file=sys.stderr)
    sys.exit(2)

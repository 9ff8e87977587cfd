"""Evaluate a model file: YOLOv5's precision, recall and mAP, and COCO's AP by object size.

python val.py --weights yolov5s.pt --data coco128.yaml --img 640
python val.py --weights runs/train/exp/weights/best.pt --data my.yaml --task test --verbose
python val.py --weights best.onnx --data my.yaml --save-json
"""

from __future__ import annotations

import sys

from utils.config.command_line import parse_command_line
from utils.config.val_flags import ValConfig
from utils.runtime.console_log import run_verb


def main() -> None:
    assert __doc__ is not None
    run(parse_command_line(ValConfig, sys.argv[1:], prog="val.py", description=__doc__))


def run(config: ValConfig) -> None:
    """The verb that ``--task`` and ``--compare`` say."""
    # After parsing, so that --help and a wrong flag answer at once.
    from utils.verbs.compare import run_comparison
    from utils.verbs.evaluate import run_evaluation
    from utils.verbs.study import run_speed, run_study

    if config.task == "speed":
        run_speed(config)
    elif config.task == "study":
        run_study(config)
    elif config.compare:
        run_comparison(config)
    else:
        run_evaluation(config)


if __name__ == "__main__":
    sys.exit(run_verb(main))

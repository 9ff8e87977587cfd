"""Evaluate a classifier: top-1 and top-5 accuracy, of each class too, and a confusion matrix.

python classify/val.py --weights runs/train-cls/exp/weights/best.pt --data my_folder
python classify/val.py --weights best.onnx --data my_folder
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    from utils.config.classify_flags import ClassifyValConfig
    from utils.config.command_line import parse_command_line

    assert __doc__ is not None
    config = parse_command_line(ClassifyValConfig, sys.argv[1:], prog="classify/val.py", description=__doc__)
    # After parsing, so that --help and a wrong flag answer at once.
    from utils.verbs.evaluate_classifier import run_classification_evaluation

    run_classification_evaluation(config)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, instead of this folder
    from utils.runtime.console_log import run_verb

    sys.exit(run_verb(main))

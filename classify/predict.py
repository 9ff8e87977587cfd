"""Say what images show.

python classify/predict.py --weights runs/train-cls/exp/weights/best.pt --source images/
python classify/predict.py --weights best.onnx --source 'images/*.jpg' --save-txt
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    from utils.config.classify_flags import REFUSED_PREDICT_FLAGS, ClassifyPredictConfig
    from utils.config.command_line import parse_command_line

    assert __doc__ is not None
    config = parse_command_line(
        ClassifyPredictConfig,
        sys.argv[1:],
        prog="classify/predict.py",
        description=__doc__,
        refused=REFUSED_PREDICT_FLAGS,
    )
    # After parsing, so that --help and a wrong flag answer at once.
    from utils.verbs.classify import run_prediction

    run_prediction(config)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, instead of this folder
    from utils.runtime.console_log import run_verb

    sys.exit(run_verb(main))

"""Write a trained model in formats of other runtimes, each checked against PyTorch before it is kept.

python export.py --weights best.pt --include onnx                                  one image of 640 x 640
python export.py --weights best.pt --include torchscript onnx openvino --img 480 640
python export.py --weights best.pt --include onnx --dynamic --simplify             any batch and size
python export.py --weights runs/train-cls/exp/weights/best.pt --include onnx             a classifier, at its own size
python export.py --weights best.pt --include onnx --nms --data my.yaml             suppressed boxes, checked on images
"""

from __future__ import annotations

import sys

from utils.config.command_line import parse_command_line
from utils.config.export_flags import REFUSED_EXPORT_FLAGS, ExportConfig
from utils.runtime.console_log import run_verb


def main() -> None:
    assert __doc__ is not None
    config = parse_command_line(
        ExportConfig, sys.argv[1:], prog="export.py", description=__doc__, refused=REFUSED_EXPORT_FLAGS
    )
    # After parsing, so that --help and a wrong flag answer at once.
    from utils.runtime.failures import explained_failures
    from utils.verbs.export import run_export

    with explained_failures(config.batch_size, max(config.imgsz)):
        run_export(config)


if __name__ == "__main__":
    sys.exit(run_verb(main))

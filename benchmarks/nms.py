"""Non-maximum suppression at evaluation settings, 25 200 x 85, multi-label, beside a YOLOv5 checkout.

python -m benchmarks.nms --peer ~/yolov5
"""

from __future__ import annotations

import sys

from benchmarks.comparison import compare_children
from benchmarks.peer_side.inputs import nms_rows, print_seconds
from utils.evaluation.evaluate import VALIDATION_NMS
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.inference.nms import non_max_suppression


def own_side() -> None:
    """Time our suppression on the rows, from centres and sizes on, as the peer's does."""
    rows = nms_rows()

    def suppress() -> None:
        half = rows[..., 2:4] / 2
        boxes, centres = rows.new_empty(*rows.shape[:2], 4), rows[..., :2]
        boxes[..., :2], boxes[..., 2:] = centres - half, centres + half
        non_max_suppression(Predictions(boxes, rows[..., 4], rows[..., 5:]), VALIDATION_NMS, FrameSize(640, 640))

    print_seconds(suppress)


if __name__ == "__main__":
    compare_children("nms", "NMS, 25 200 x 85, multi-label", own_side, sys.argv[1:])

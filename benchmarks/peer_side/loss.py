"""The peer's loss, timed inside its own folder: `benchmarks.loss` starts this."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path.cwd()), str(Path(__file__).parent)]

from inputs import head_maps, objects, print_seconds
from models.yolo import Model
from utils.loss import ComputeLoss

model = Model("models/yolov5n.yaml")
model.hyp = {
    "box": 0.05, "obj": 1.0, "cls": 0.5, "cls_pw": 1.0, "obj_pw": 1.0, "fl_gamma": 0.0, "anchor_t": 4.0,
    "label_smoothing": 0.0,
}  # fmt: skip
LOSS, MAPS, TARGETS = ComputeLoss(model), [one.requires_grad_() for one in head_maps()], objects()


def step() -> None:
    for one in MAPS:
        one.grad = None
    LOSS(MAPS, TARGETS)[0].backward()


print_seconds(step)

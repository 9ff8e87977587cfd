"""Loss forward and backward on raw maps: batch 16, 640 pixels, 80 classes, 30 objects per image.

python -m benchmarks.loss --peer ~/yolov5
"""

from __future__ import annotations

import sys

from benchmarks.comparison import compare_children
from benchmarks.peer_side.inputs import head_maps, print_seconds
from benchmarks.training_step import random_batch
from models.yolo import DetectionModel, load_architecture
from utils.config.hyperparameters import Hyperparameters
from utils.geometry.records import HeadMaps
from utils.loss.detection_loss import DetectionLoss, LossGains

IMAGES, SIDE = 16, 640


def own_side() -> None:
    """Time our loss on the same maps and objects."""
    model = DetectionModel(load_architecture("yolov5n"), class_count=80)
    gains = LossGains.from_hyperparameters(Hyperparameters())
    loss = DetectionLoss(model.anchors, model.strides, 80, gains)
    maps = HeadMaps(tuple(one.requires_grad_() for one in head_maps(IMAGES)))
    batch = random_batch(IMAGES, SIDE)

    def step() -> None:
        for one in maps.levels:
            one.grad = None
        (loss(maps, batch).total * IMAGES).backward()  # type: ignore[no-untyped-call]

    print_seconds(step)


if __name__ == "__main__":
    compare_children("loss", "loss forward and backward, batch 16, 640 pixels", own_side, sys.argv[1:])

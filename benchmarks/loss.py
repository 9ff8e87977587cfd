"""Loss forward and backward on raw maps: batch 16, 640 pixels, 80 classes, 30 objects per picture.

python -m benchmarks.loss --peer ~/yolov5
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from benchmarks.comparison import compare_children
from benchmarks.peer_side.inputs import head_maps, objects, print_seconds
from models.yolo import DetectionModel, load_architecture
from utils.config.hyperparameters import Hyperparameters
from utils.geometry.records import Batch, HeadMaps
from utils.loss.detection_loss import DetectionLoss, LossGains

PICTURES, SIDE = 16, 640


def own_side() -> None:
    """Time our loss on the same maps and objects."""
    model = DetectionModel(load_architecture("yolov5n"), class_count=80)
    gains = LossGains.from_hyperparameters(Hyperparameters())
    loss = DetectionLoss(model.anchors, model.strides, 80, gains)
    maps = HeadMaps(tuple(one.requires_grad_() for one in head_maps(PICTURES)))
    rows = objects(PICTURES)
    half = rows[:, 4:] / 2
    batch = Batch(
        images=torch.zeros(PICTURES, 3, SIDE, SIDE, dtype=torch.uint8),
        boxes=torch.cat((rows[:, 2:4] - half, rows[:, 2:4] + half), dim=1) * SIDE,
        classes=rows[:, 1].long(),
        image_index=rows[:, 0].long(),
        letterboxes=(None,) * PICTURES,
        paths=(Path("none.jpg"),) * PICTURES,
        indices=tuple(range(PICTURES)),
    )

    def step() -> None:
        for one in maps.levels:
            one.grad = None
        (loss(maps, batch).total * PICTURES).backward()  # type: ignore[no-untyped-call]

    print_seconds(step)


if __name__ == "__main__":
    compare_children("loss", "loss forward and backward, batch 16, 640 pixels", own_side, sys.argv[1:])

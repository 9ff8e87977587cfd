"""A detector in which a map of stride 8 comes by two ways: from P3, and by space-to-depth from P2."""

from __future__ import annotations

from models.architecture import Architecture
from models.yolo import load_architecture


def joined_ways() -> Architecture:
    """``yolov5n-small`` with its finest level at stride 8, whose stage (layer 12) reads both."""
    values = load_architecture("yolov5n-small").as_dict()
    backbone = [*values["backbone"], [2, 1, "SPDConv", [128, 1]]]
    head = [
        [7, 1, "Conv", [256, 1, 1]],
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 4, 8], 1, "Concat", [1]],
        [-1, 3, "C3", [256, False]],
        [[12, 7], 1, "AnchorFreeDetect", ["nc", 224, 1]],
    ]
    return Architecture.from_dict(values | {"backbone": backbone, "head": head}, "joined ways")

"""Labels and detections written as short rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections, Labels

IMAGE = FrameSize(200, 300)


def labels_of(*rows: Sequence[float], size: FrameSize = IMAGE) -> Labels:
    """Labels from rows ``class x1 y1 x2 y2``."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 5)
    return Labels(boxes=table[:, 1:], classes=table[:, 0].astype(np.int64), polygons=(None,) * len(table), size=size)


def detections_of(*rows: Sequence[float], size: FrameSize = IMAGE) -> Detections:
    """Detections from rows ``class score x1 y1 x2 y2``, best first."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(boxes=table[:, 2:], scores=table[:, 1], classes=table[:, 0].long(), size=size)


def random_scene(rng: np.random.Generator, classes: int = 3, objects: int = 12) -> tuple[Labels, Detections]:
    """Objects of all three sizes, some missed, some found twice or shifted, and some inventions."""
    corner = rng.uniform(0, 400, (objects, 2))
    side = np.exp(rng.uniform(np.log(8), np.log(200), (objects, 2)))
    boxes = np.concatenate((corner, corner + side), axis=1)
    kinds = rng.integers(0, classes, objects)
    size = FrameSize(640, 640)
    labels = labels_of(*np.column_stack((kinds, boxes)).tolist(), size=size)

    source = rng.integers(0, objects, int(objects * 1.5))
    jitter = rng.normal(0, 0.08, (len(source), 4)) * np.tile(side[source], 2)
    found_kinds = np.where(rng.random(len(source)) < 0.85, kinds[source], rng.integers(0, classes, len(source)))
    found = np.column_stack((found_kinds, rng.random(len(source)), boxes[source] + jitter))
    return labels, detections_of(*found[np.argsort(-found[:, 1])].tolist(), size=size)

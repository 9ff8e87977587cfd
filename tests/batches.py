"""Batches made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from utils.geometry.records import Batch


def batch_of(
    boxes: Sequence[np.ndarray], classes: Sequence[Sequence[int]] | None = None, *, height: int, width: int
) -> Batch:
    """A batch of black images (float), one per array of boxes (N, 4) xyxy in pixels; class 0 unless given."""
    classes = classes or [[0] * len(rows) for rows in boxes]
    return Batch(
        images=torch.zeros(len(boxes), 3, height, width),
        boxes=torch.from_numpy(np.concatenate(list(boxes)).astype(np.float32)).reshape(-1, 4),
        classes=torch.tensor([c for row in classes for c in row], dtype=torch.int64),
        image_index=torch.tensor([i for i, rows in enumerate(boxes) for _ in rows], dtype=torch.int64),
        letterboxes=(None,) * len(boxes),
        paths=tuple(Path(f"image{i}.jpg") for i in range(len(boxes))),
        indices=tuple(range(len(boxes))),
    )

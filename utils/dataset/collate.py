"""Samples to a batch: the place where NumPy ends and torch begins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from utils.geometry.records import Batch, Sample


def collate(samples: Sequence[Sample]) -> Batch:
    """A `Batch` of samples whose images have one size.

    The images keep their channels-last order in memory, so that no pixel is moved on the way to the model.
    """
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)
    counts = [len(sample.labels) for sample in samples]
    return Batch(
        images=images,
        boxes=torch.from_numpy(np.concatenate([sample.labels.boxes for sample in samples]).astype(np.float32)),
        classes=torch.from_numpy(np.concatenate([sample.labels.classes for sample in samples]).astype(np.int64)),
        # torch's own repeat would start as many threads as there are processors, in each thread that makes batches.
        image_index=torch.from_numpy(np.repeat(np.arange(len(samples)), counts)),
        letterboxes=tuple(sample.letterbox for sample in samples),
        paths=tuple(sample.path for sample in samples),
        indices=tuple(sample.index for sample in samples),
    )

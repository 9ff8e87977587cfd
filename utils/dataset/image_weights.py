"""How often each training image is drawn, from the classes it holds and how badly they are found."""

from __future__ import annotations

import numpy as np

from utils.dataset.label_index import LabelIndex


def image_weights(index: LabelIndex, class_ap: np.ndarray) -> np.ndarray:
    """Weights (F,) of the images, above 0, as YOLOv5's ``--image-weights``: the sum over an image's objects of
    ``(1 - AP)^2 / objects of that class in the data set``.

    An image without objects counts as much as the least of the others, so that background stays in training.

    Args:
        index: the training split.
        class_ap: (C,) mAP50-95 of each class in the last evaluation, 0 before it; of length 1 all classes are one.
    """
    classes = index.rows[:, 0].astype(np.int64) if len(class_ap) > 1 else np.zeros(len(index.rows), dtype=np.int64)
    counts = np.bincount(classes, minlength=len(class_ap))
    importance = (1 - class_ap) ** 2 / np.maximum(counts, 1)
    image = np.repeat(np.arange(len(index)), np.diff(index.row_ends, prepend=0))
    weights = np.bincount(image, weights=importance[classes], minlength=len(index))
    known = weights[weights > 0]
    return np.where(weights > 0, weights, known.min() if len(known) else 1.0)

"""Mirrored images and their labels."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from utils.geometry.records import Labels


def flip_image(image: np.ndarray, *, left_right: bool, up_down: bool) -> np.ndarray:
    """Image (H, W, 3) mirrored along the chosen axes, in its own memory."""
    if left_right:
        cv2.flip(image, 1, dst=image)
    if up_down:
        cv2.flip(image, 0, dst=image)
    return image


def flip_labels(labels: Labels, *, left_right: bool, up_down: bool) -> Labels:
    """Labels mirrored in their frame along the chosen axes."""
    if not left_right and not up_down:
        return labels
    height, width = labels.size
    boxes = labels.boxes.copy()
    shift, sign = np.zeros(2, np.float32), np.ones(2, np.float32)
    if left_right:
        boxes[:, [0, 2]] = width - labels.boxes[:, [2, 0]]
        shift[0], sign[0] = width, -1
    if up_down:
        boxes[:, [1, 3]] = height - labels.boxes[:, [3, 1]]
        shift[1], sign[1] = height, -1
    polygons = tuple(None if polygon is None else polygon * sign + shift for polygon in labels.polygons)
    return replace(labels, boxes=boxes, polygons=polygons)

"""Which detections are right: pairing with the ground truth of one image at ten IoU thresholds."""

from __future__ import annotations

import numpy as np
import torch

from utils.geometry.boxes import clip_boxes, pairwise_iou
from utils.geometry.records import Detections, Labels

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10).astype(np.float32)


def overlaps(labels: Labels, detections: Detections) -> np.ndarray:
    """IoU (M, N) float32 of every label with every detection; both in source pixels, labels clipped to the image."""
    boxes = clip_boxes(torch.from_numpy(labels.boxes).float(), labels.size.height, labels.size.width)
    return pairwise_iou(boxes, detections.boxes.float().cpu()).numpy()


def match_detections(detections: Detections, labels: Labels) -> np.ndarray:
    """Mark the true positives as YOLOv5's validation does.

    A detection aims at the label of its own class that it overlaps most; a label goes to the best-scored detection
    that aims at it with enough overlap; the others are false positives.

    Args:
        detections: N detections of one image, source pixels, best score first.
        labels: M objects of that image, source pixels.

    Returns:
        (N, 10) bool, one column per threshold of :data:`IOU_THRESHOLDS`; an IoU equal to the threshold counts.
    """
    correct = np.zeros((len(detections), len(IOU_THRESHOLDS)), dtype=bool)
    if not len(labels) or not len(detections):
        return correct
    same_class = labels.classes[:, None] == detections.classes.cpu().numpy()[None, :]
    iou = np.where(same_class, overlaps(labels, detections), -1)
    target = iou.argmax(axis=0)
    overlap = iou.max(axis=0)
    for column, threshold in enumerate(IOU_THRESHOLDS):
        passing = np.flatnonzero(overlap >= threshold)
        _, first = np.unique(target[passing], return_index=True)
        correct[passing[first], column] = True
    return correct

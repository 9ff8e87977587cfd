"""Detections paired with the ground truth of one image: which are right, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from utils.geometry.boxes import clip_boxes, pairwise_iou
from utils.geometry.records import Detections, Labels

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10).astype(np.float32)
CONFUSION_CONFIDENCE, CONFUSION_IOU = 0.25, 0.45  # above which a detection counts in the matrix, and forms a pair
MOST_CONFUSIONS = 20  # pairs of classes that are named


def overlaps(labels: Labels, detections: Detections) -> np.ndarray:
    """IoU (M, N) float32 of every label with every detection; both in source pixels, labels clipped to the image."""
    boxes = clip_boxes(torch.from_numpy(labels.boxes).float(), labels.size.height, labels.size.width)
    return pairwise_iou(boxes, detections.boxes.float().cpu()).numpy()


def match_detections(detections: Detections, labels: Labels) -> np.ndarray:
    """Mark the true positives, (N, 10) bool; see :func:`matched_objects`."""
    return matched_objects(detections, labels)[0]


def matched_objects(detections: Detections, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Mark the true positives as YOLOv5's validation does.

    A detection aims at the label of its own class that it overlaps most; a label goes to the best-scored detection
    that aims at it with enough overlap; the others are false positives.

    Args:
        detections: N detections of one image, source pixels, best score first.
        labels: M objects of that image, source pixels.

    Returns:
        ``correct`` (N, 10) bool, one column per threshold of :data:`IOU_THRESHOLDS`, where an IoU equal to the
        threshold counts; ``target`` (N,), the label that each detection aims at, 0 without labels.
    """
    correct = np.zeros((len(detections), len(IOU_THRESHOLDS)), dtype=bool)
    if not len(labels) or not len(detections):
        return correct, np.zeros(len(detections), dtype=np.int64)
    same_class = labels.classes[:, None] == detections.classes.cpu().numpy()[None, :]
    iou = np.where(same_class, overlaps(labels, detections), -1)
    target = iou.argmax(axis=0)
    overlap = iou.max(axis=0)
    for column, threshold in enumerate(IOU_THRESHOLDS):
        passing = np.flatnonzero(overlap >= threshold)
        _, first = np.unique(target[passing], return_index=True)
        correct[passing[first], column] = True
    return correct, target


class ConfusionMatrix:
    """Counts (C + 1, C + 1) of what is taken for what: rows predicted, columns true classes, the last one background.

    Pairs are formed regardless of class: a detection aims at the label that it overlaps most, and a label takes the
    detection that overlaps it most. Unlike YOLOv5, which counts false positives only in images where at least one
    detection hit, every unpaired detection above the confidence counts.
    """

    def __init__(self, class_count: int) -> None:
        self.counts = np.zeros((class_count + 1, class_count + 1), dtype=np.int64)

    def add(self, detections: Detections, labels: Labels) -> None:
        """Count one image; both in source pixels."""
        background = len(self.counts) - 1
        confident = (detections.scores > CONFUSION_CONFIDENCE).cpu().numpy()
        predicted = detections.classes.cpu().numpy()[confident]
        taken_by = np.full(len(labels), -1)
        paired = np.zeros(len(predicted), dtype=bool)
        if len(labels) and len(predicted):
            iou = overlaps(labels, detections)[:, confident]
            target, overlap = iou.argmax(axis=0), iou.max(axis=0)
            for detection in np.argsort(-overlap, kind="stable"):
                if overlap[detection] > CONFUSION_IOU and taken_by[target[detection]] < 0:
                    taken_by[target[detection]] = detection
                    paired[detection] = True
        found = taken_by >= 0
        np.add.at(self.counts, (predicted[taken_by[found]], labels.classes[found]), 1)
        np.add.at(self.counts[background], labels.classes[~found], 1)
        np.add.at(self.counts[:, background], predicted[~paired], 1)


class Confusion(NamedTuple):
    """Objects of one class that were taken for another one."""

    true: str
    predicted: str
    objects: int
    share: float  # of the objects of the true class, 0-1


def largest_confusions(counts: np.ndarray, names: Sequence[str], most: int = MOST_CONFUSIONS) -> list[Confusion]:
    """Pairs of classes that are mixed up most often, out of the counts of a :class:`ConfusionMatrix`."""
    totals = counts.sum(axis=0)
    classes = counts[: len(names), : len(names)].copy()
    np.fill_diagonal(classes, 0)
    rows, columns = np.nonzero(classes)
    objects, shares = classes[rows, columns], classes[rows, columns] / totals[columns]
    order = np.lexsort((-shares, -objects))[:most]  # of equals, the larger share first
    return [
        Confusion(names[column], names[row], int(number), float(share))
        for row, column, number, share in zip(rows[order], columns[order], objects[order], shares[order], strict=True)
    ]

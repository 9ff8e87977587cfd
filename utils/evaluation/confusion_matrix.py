"""Which class is taken for which, and what is missed or invented."""

from __future__ import annotations

import numpy as np

from utils.evaluation.match_detections import overlaps
from utils.geometry.records import Detections, Labels

CONFIDENCE = 0.25
IOU = 0.45


class ConfusionMatrix:
    """Counts (C + 1, C + 1): rows are predicted classes, columns true ones, the last of each is background.

    Pairs are formed regardless of class: a detection aims at the label that it overlaps most, and a label takes the
    detection that overlaps it most. Unlike YOLOv5, which counts false positives only in images where at least one
    detection hit, every unpaired detection above the confidence counts.
    """

    def __init__(self, class_count: int) -> None:
        self.counts = np.zeros((class_count + 1, class_count + 1), dtype=np.int64)

    def add(self, detections: Detections, labels: Labels) -> None:
        """Count one image; both in source pixels."""
        background = len(self.counts) - 1
        confident = (detections.scores > CONFIDENCE).cpu().numpy()
        predicted = detections.classes.cpu().numpy()[confident]
        taken_by = np.full(len(labels), -1)
        paired = np.zeros(len(predicted), dtype=bool)
        if len(labels) and len(predicted):
            iou = overlaps(labels, detections)[:, confident]
            target, overlap = iou.argmax(axis=0), iou.max(axis=0)
            for detection in np.argsort(-overlap, kind="stable"):
                if overlap[detection] > IOU and taken_by[target[detection]] < 0:
                    taken_by[target[detection]] = detection
                    paired[detection] = True
        found = taken_by >= 0
        np.add.at(self.counts, (predicted[taken_by[found]], labels.classes[found]), 1)
        np.add.at(self.counts[background], labels.classes[~found], 1)
        np.add.at(self.counts[:, background], predicted[~paired], 1)

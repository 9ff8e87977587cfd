"""Precision, recall and average precision per class, integrated as YOLOv5 does so that figures compare with its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

CURVE_POINTS = 1000
RECALL_POINTS = 101
F1_SMOOTHING = 0.1  # part of the confidence axis that the smoothing window spans
EPSILON = 1e-16
WANTED = 0.9  # precision, recall of `OperatingPoints`


class OperatingPoints(NamedTuple):
    """Confidences (0-1) worth working at, on curves at IoU 0.5; None where the figure is not reached."""

    best_f1: float | None  # where F1, smoothed as for the table's P and R, is highest
    precision_90: float | None  # the lowest at which precision is 0.9 or more and anything is found
    recall_90: float | None  # the highest at which recall is 0.9 or more


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """Figures and curves of the K classes that have ground truth, in order of class index."""

    classes: np.ndarray  # (K,) int64
    objects: np.ndarray  # (K,) int64
    ap: np.ndarray  # (K, 10) at IoU 0.50, 0.55, ..., 0.95
    best: int  # place on the confidence axis where the smoothed mean F1 is highest
    confidence: np.ndarray  # (1000,) 0-1, axis of the next three
    precision_curve: np.ndarray  # (K, 1000) at IoU 0.5
    recall_curve: np.ndarray  # (K, 1000)
    f1_curve: np.ndarray  # (K, 1000)
    precision_at_recall: np.ndarray  # (K, 1000) over recall 0-1, at IoU 0.5

    @property
    def precision(self) -> np.ndarray:
        """(K,) precision at IoU 0.5 and the best confidence."""
        return self.precision_curve[:, self.best]

    @property
    def recall(self) -> np.ndarray:
        """(K,) recall at IoU 0.5 and the best confidence."""
        return self.recall_curve[:, self.best]

    @property
    def operating_points(self) -> OperatingPoints:
        """On the mean curves of all classes."""
        if not len(self.classes):
            return OperatingPoints(None, None, None)
        means = (curve.mean(axis=0) for curve in (self.precision_curve, self.recall_curve, self.f1_curve))
        return _operating_points(self.confidence, *means)

    def class_operating_points(self) -> dict[int, OperatingPoints]:
        """On the own curves of each class, by class index."""
        curves = zip(self.precision_curve, self.recall_curve, self.f1_curve, strict=True)
        return {
            kind: _operating_points(self.confidence, *own)
            for kind, own in zip(self.classes.tolist(), curves, strict=True)
        }


def precision_recall(
    correct: np.ndarray, scores: np.ndarray, classes: np.ndarray, label_classes: np.ndarray
) -> PrecisionRecall:
    """Figures over all images.

    Args:
        correct: (N, 10) bool, true positives at ten IoU thresholds (see ``match_detections``).
        scores: (N,) 0-1.
        classes: (N,) class of each detection.
        label_classes: (M,) class of each ground-truth object.

    Returns:
        Curves and AP of every class in ``label_classes``; a class without detections has zeros. Detections of classes
        without ground truth count nowhere.
    """
    order = np.argsort(-scores, kind="stable")
    correct, scores, classes = correct[order], scores[order], classes[order]
    present, objects = np.unique(label_classes, return_counts=True)
    axis = np.linspace(0, 1, CURVE_POINTS)
    shape = (len(present), CURVE_POINTS)
    precision, recall, at_recall = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    ap = np.zeros((len(present), correct.shape[1]))
    for row, (index, count) in enumerate(zip(present, objects, strict=True)):
        own = classes == index
        if not own.any():
            continue
        hits = correct[own].cumsum(axis=0)  # (n, 10) true positives among the best 1..n
        rank = np.arange(1, len(hits) + 1)[:, None]
        own_recall, own_precision = hits / (count + EPSILON), hits / rank
        # Confidence falls along the ranking; np.interp wants a rising axis.
        recall[row] = np.interp(-axis, -scores[own], own_recall[:, 0], left=0)
        precision[row] = np.interp(-axis, -scores[own], own_precision[:, 0], left=1)
        for column in range(correct.shape[1]):
            envelope = _envelope(own_recall[:, column], own_precision[:, column])
            ap[row, column] = _area_under(envelope)
            if column == 0:
                at_recall[row] = np.interp(axis, *envelope)
    f1 = 2 * precision * recall / (precision + recall + EPSILON)
    best = int(_smoothed(f1.mean(axis=0)).argmax()) if len(present) else 0
    return PrecisionRecall(
        classes=present.astype(np.int64),
        objects=objects.astype(np.int64),
        ap=ap,
        best=best,
        confidence=axis,
        precision_curve=precision,
        recall_curve=recall,
        f1_curve=f1,
        precision_at_recall=at_recall,
    )


def _operating_points(
    confidence: np.ndarray, precision: np.ndarray, recall: np.ndarray, f1: np.ndarray
) -> OperatingPoints:
    """Of curves (1000,) over the confidence."""
    precise = np.flatnonzero((precision >= WANTED) & (recall > 0))  # where nothing is found, precision is 1
    complete = np.flatnonzero(recall >= WANTED)
    return OperatingPoints(
        best_f1=float(confidence[_smoothed(f1).argmax()]) if f1.any() else None,
        precision_90=float(confidence[precise[0]]) if len(precise) else None,
        recall_90=float(confidence[complete[-1]]) if len(complete) else None,
    )


def _envelope(recall: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and the best precision at that recall or a higher one, with the ends 0 and 1 of the axis added."""
    recall = np.concatenate(([0.0], recall, [1.0]))
    precision = np.concatenate(([1.0], precision, [0.0]))
    return recall, np.maximum.accumulate(precision[::-1])[::-1]


def _area_under(envelope: tuple[np.ndarray, np.ndarray]) -> float:
    """Trapezoids under the envelope, sampled at COCO's 101 recalls (COCO itself takes the mean of the samples)."""
    axis = np.linspace(0, 1, RECALL_POINTS)
    return float(np.trapezoid(np.interp(axis, *envelope), axis))


def _smoothed(curve: np.ndarray) -> np.ndarray:
    """Moving average (n,) of a curve (n,) whose ends are held."""
    window = round(len(curve) * F1_SMOOTHING * 2) // 2 + 1
    padded = np.pad(curve, window // 2, mode="edge")
    return np.convolve(padded, np.full(window, 1 / window), mode="valid")

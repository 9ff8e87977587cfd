"""What an evaluation finds, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from utils.dataset.coco_annotations import CocoTruth
from utils.evaluation.average_precision import PrecisionRecall
from utils.evaluation.coco_average_precision import AreaFigures, CocoFindings, CocoSummary


class LossFigures(NamedTuple):
    """Mean validation loss over batches, weighted parts."""

    box: float
    objectness: float
    classification: float


class SpeedFigures(NamedTuple):
    """Milliseconds per image."""

    preprocess: float  # to the device and to float
    inference: float
    nms: float


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What was measured while the images were looked at."""

    loss: LossFigures | None
    speed_ms: SpeedFigures


@dataclass(frozen=True, slots=True)
class ClassReport:
    """Figures of one class with ground truth."""

    name: str
    index: int
    images: int  # images that hold the class
    objects: int
    precision: float
    recall: float
    map50: float
    map50_95: float
    coco: CocoSummary

    def as_dict(self) -> dict[str, object]:
        plain: dict[str, object] = {
            key: getattr(self, key) for key in ("name", "index", "images", "objects", *YOLOV5_FIGURES)
        }
        return plain | self.coco._asdict()


YOLOV5_FIGURES = ("precision", "recall", "map50", "map50_95")


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """Figures of a data set: YOLOv5's (means over the classes with ground truth) and COCO's."""

    precision: float
    recall: float
    map50: float
    map50_95: float
    coco: CocoSummary
    per_class: tuple[ClassReport, ...]  # in order of class index
    images: int
    objects: int
    loss: LossFigures | None
    speed_ms: SpeedFigures
    names: tuple[str, ...]
    by_area: tuple[AreaFigures, ...]  # of the ranges that were asked for
    truth: CocoTruth = field(repr=False, compare=False)  # images numbered as the data set's images
    findings: CocoFindings = field(repr=False, compare=False)
    curves: PrecisionRecall = field(repr=False, compare=False)
    confusion: np.ndarray = field(repr=False, compare=False)  # (C + 1, C + 1), see ConfusionMatrix

    def as_dict(self) -> dict[str, object]:
        """Plain values with the keys of ``metrics.json``; curves and confusion matrix are left out."""
        plain: dict[str, object] = {key: getattr(self, key) for key in YOLOV5_FIGURES}
        return plain | {
            **self.coco._asdict(),
            "by_area": [one._asdict() for one in self.by_area],
            "images": self.images,
            "objects": self.objects,
            "loss": self.loss._asdict() if self.loss else None,
            "speed_ms": self.speed_ms._asdict(),
            "per_class": [row.as_dict() for row in self.per_class],
        }


class StudyRow(NamedTuple):
    """One model at one image size."""

    imgsz: int
    precision: float
    recall: float
    map50: float
    map50_95: float
    AP: float
    AP50: float
    AP_S: float
    AP_M: float
    AP_L: float
    preprocess_ms: float
    inference_ms: float
    nms_ms: float

    @property
    def milliseconds(self) -> float:
        """Per image, without loading it."""
        return self.inference_ms + self.nms_ms

"""What an evaluation finds, as one value, made once all images of a data set have been through the detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from utils.dataset.coco_annotations import CocoTruth
from utils.evaluation.average_precision import OperatingPoints, PrecisionRecall, precision_recall
from utils.evaluation.coco_average_precision import (
    COCO_RANGES,
    NO_FIGURES,
    AreaFigures,
    AreaRange,
    CocoFigures,
    CocoFindings,
    CocoSummary,
    coco_figures,
    existing_figures,
    findings_from_detections,
    truth_from_labels,
)
from utils.evaluation.match_detections import Confusion, ConfusionMatrix, largest_confusions, matched_objects
from utils.geometry.boxes import box_area
from utils.geometry.records import Detections, Labels
from utils.user_error import UserError


class SpeedFigures(NamedTuple):
    """Milliseconds per image."""

    preprocess: float  # to the device and to float
    inference: float
    nms: float


@dataclass(frozen=True, slots=True)
class EvaluatedImage:
    """Labels and detections of one image, in source pixels."""

    index: int  # in the data set
    labels: Labels
    detections: Detections


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What was measured on the way through the images."""

    loss: Mapping[str, float] | None  # mean over batches of the weighted parts, by their names
    speed_ms: SpeedFigures


NOWHERE = OperatingPoints(None, None, None)


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
    thresholds: OperatingPoints = NOWHERE
    thresholds_small: OperatingPoints = NOWHERE  # of its small objects

    def as_dict(self) -> dict[str, object]:
        plain: dict[str, object] = {
            key: getattr(self, key) for key in ("name", "index", "images", "objects", *YOLOV5_FIGURES)
        }
        return plain | existing_figures(self.coco._asdict()) | thresholds_of(self)


YOLOV5_FIGURES = ("precision", "recall", "map50", "map50_95")


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """Figures of a data set: YOLOv5's (means over the classes with ground truth) and COCO's."""

    precision: float
    recall: float
    map50: float
    map50_95: float
    per_class: tuple[ClassReport, ...]  # in order of class index
    images: int
    objects: int
    loss: Mapping[str, float] | None  # mean over batches of the weighted parts, by their names
    speed_ms: SpeedFigures
    names: tuple[str, ...]
    coco_figures: CocoFigures = field(repr=False)  # images numbered as the data set's images
    curves: PrecisionRecall = field(repr=False, compare=False)
    curves_small: PrecisionRecall = field(repr=False, compare=False)  # of the small objects, at IoU 0.5 alone
    confusion: np.ndarray = field(repr=False, compare=False)  # (C + 1, C + 1), see ConfusionMatrix

    @property
    def coco(self) -> CocoSummary:
        return self.coco_figures.summary

    @property
    def thresholds(self) -> OperatingPoints:
        """Confidences worth working at, over all classes."""
        return self.curves.operating_points

    @property
    def thresholds_small(self) -> OperatingPoints:
        """The same for small objects."""
        return self.curves_small.operating_points

    def stored_thresholds(self) -> dict[str, object]:
        """What a checkpoint keeps of them, plain values; ``stored_thresholds`` in models/weights.py reads them."""
        classes = {row.index: {"objects": row.objects, **row.thresholds._asdict()} for row in self.per_class}
        return {**self.thresholds._asdict(), "small": self.thresholds_small._asdict(), "classes": classes}

    @property
    def confusions(self) -> list[Confusion]:
        """Pairs of classes that are mixed up most often."""
        return largest_confusions(self.confusion, self.names)

    @property
    def by_area(self) -> tuple[AreaFigures, ...]:
        """Figures of the ranges that were asked for."""
        return self.coco_figures.by_area

    @property
    def truth(self) -> CocoTruth:
        return self.coco_figures.truth

    @property
    def findings(self) -> CocoFindings:
        return self.coco_figures.findings

    def as_dict(self) -> dict[str, object]:
        """Plain values with the keys of ``metrics.json``, None for a figure of objects that do not exist.

        Of the confusion matrix there are the largest confusions, of the curves their best points.
        """
        plain: dict[str, object] = {key: getattr(self, key) for key in YOLOV5_FIGURES}
        return plain | {
            **existing_figures(self.coco._asdict()),
            "by_area": [existing_figures(one._asdict()) for one in self.by_area],
            "images": self.images,
            "objects": self.objects,
            "loss": dict(self.loss) if self.loss else None,
            "speed_ms": self.speed_ms._asdict(),
            **thresholds_of(self),
            "confusions": [pair._asdict() for pair in self.confusions],
            "per_class": [row.as_dict() for row in self.per_class],
        }


def report_on(
    images: Sequence[EvaluatedImage],
    names: tuple[str, ...],
    annotated: CocoTruth | None,
    areas: Sequence[AreaRange],
    run: RunFigures,
) -> EvaluationReport:
    """The report of a data set.

    Args:
        images: all of them, in any order.
        names: of the classes.
        annotated: what COCO's figures are computed against, if it is not the images' labels; images are numbered
            as the data set's images.
        areas: ranges of object size to give figures for, besides COCO's.
        run: what was measured on the way.

    Raises:
        UserError: no image.
    """
    if not images:
        raise UserError("nothing to evaluate: the split has no images")
    # Detections of equal score rank by image: in the data set's order, whatever the batches were.
    images = sorted(images, key=lambda image: image.index)
    truth = [image.labels for image in images]
    found = [image.detections for image in images]
    findings = findings_from_detections(found)
    matches = [matched_objects(own, labels) for own, labels in zip(found, truth, strict=True)]
    curves = precision_recall(
        np.concatenate([correct for correct, _ in matches]),
        findings.scores,
        findings.classes,
        np.concatenate([labels.classes for labels in truth]),
    )
    small = _small_curves(truth, findings, matches)
    objects = truth_from_labels(truth) if annotated is None else annotated
    coco = coco_figures(objects, findings, areas=areas)
    confusion = ConfusionMatrix(len(names))
    for image in images:
        confusion.add(image.detections, image.labels)
    return EvaluationReport(
        precision=_mean(curves.precision),
        recall=_mean(curves.recall),
        map50=_mean(curves.ap[:, 0]),
        map50_95=_mean(curves.ap),
        coco_figures=coco,
        per_class=_class_reports(names, truth, (curves, small), coco.per_class),
        images=len(images),
        objects=int(curves.objects.sum()),
        loss=run.loss,
        speed_ms=run.speed_ms,
        names=names,
        curves=curves,
        curves_small=small,
        confusion=confusion.counts,
    )


def _small_curves(
    truth: Sequence[Labels], findings: CocoFindings, matches: Sequence[tuple[np.ndarray, np.ndarray]]
) -> PrecisionRecall:
    """Curves at IoU 0.5 of the small objects, by the areas of the boxes in source pixels.

    As for AP_S, what found a larger object counts nowhere, nor does a larger box that found nothing.
    """
    largest = COCO_RANGES[1].high
    small = [box_area(labels.boxes.astype(np.float64)) <= largest for labels in truth]
    hits = np.concatenate([correct[:, 0] for correct, _ in matches])
    aims = [
        own[target] if len(own) else np.zeros(len(target), dtype=bool)
        for own, (_, target) in zip(small, matches, strict=True)
    ]
    counted = np.where(hits, np.concatenate(aims), box_area(findings.boxes) <= largest)
    return precision_recall(
        hits[counted, None],
        findings.scores[counted],
        findings.classes[counted],
        np.concatenate([labels.classes[own] for labels, own in zip(truth, small, strict=True)]),
    )


def thresholds_of(report: ClassReport | EvaluationReport) -> dict[str, object]:
    """The confidences worth working at as they stand in ``metrics.json``."""
    return {"thresholds": report.thresholds._asdict(), "thresholds_small": report.thresholds_small._asdict()}


def _class_reports(
    names: tuple[str, ...],
    truth: Sequence[Labels],
    both: tuple[PrecisionRecall, PrecisionRecall],
    coco: Mapping[int, CocoSummary],
) -> tuple[ClassReport, ...]:
    """The classes that have objects, out of the curves of all and of the small ones."""
    curves, (points, small) = both[0], (one.class_operating_points() for one in both)
    images_with = np.zeros(len(names), dtype=np.int64)
    for labels in truth:
        images_with[np.unique(labels.classes)] += 1
    return tuple(
        ClassReport(
            name=names[index],
            index=index,
            images=int(images_with[index]),
            objects=int(curves.objects[row]),
            precision=float(curves.precision[row]),
            recall=float(curves.recall[row]),
            map50=float(curves.ap[row, 0]),
            map50_95=float(curves.ap[row].mean()),
            coco=coco.get(index, NO_FIGURES),  # an annotation file need not have every class of the labels
            thresholds=points[index],
            thresholds_small=small.get(index, NOWHERE),
        )
        for row, index in enumerate(curves.classes.tolist())
    )


def _mean(figures: np.ndarray) -> float:
    """Mean over classes; 0 where no class has ground truth, as YOLOv5 prints it."""
    return float(figures.mean()) if figures.size else 0.0

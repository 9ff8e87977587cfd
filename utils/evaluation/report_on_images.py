"""Figures of all images of a data set, once each of them has been looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from utils.dataset.coco_annotations import CocoTruth
from utils.evaluation.area_ranges import AreaRange
from utils.evaluation.average_precision import PrecisionRecall, precision_recall
from utils.evaluation.coco_average_precision import (
    CocoSummary,
    coco_figures,
    findings_from_detections,
    truth_from_labels,
)
from utils.evaluation.confusion_matrix import ConfusionMatrix
from utils.evaluation.evaluated_images import EvaluatedImage
from utils.evaluation.evaluation_report import ClassReport, EvaluationReport, RunFigures
from utils.evaluation.match_detections import match_detections
from utils.geometry.records import Labels
from utils.user_error import UserError

NO_FIGURES = CocoSummary(*[-1.0] * 12)  # of a class that the labels have and the annotation file has not


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
    curves = precision_recall(
        np.concatenate([match_detections(own, labels) for own, labels in zip(found, truth, strict=True)]),
        findings.scores,
        findings.classes,
        np.concatenate([labels.classes for labels in truth]),
    )
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
        coco=coco.summary,
        by_area=coco.by_area,
        truth=objects,
        findings=findings,
        per_class=_class_reports(names, truth, curves, coco.per_class),
        images=len(images),
        objects=int(curves.objects.sum()),
        loss=run.loss,
        speed_ms=run.speed_ms,
        names=names,
        curves=curves,
        confusion=confusion.counts,
    )


def _class_reports(
    names: tuple[str, ...], truth: Sequence[Labels], curves: PrecisionRecall, coco: Mapping[int, CocoSummary]
) -> tuple[ClassReport, ...]:
    """The classes that have objects."""
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
            coco=coco.get(index, NO_FIGURES),
        )
        for row, index in enumerate(curves.classes.tolist())
    )


def _mean(figures: np.ndarray) -> float:
    """Mean over classes; 0 where no class has ground truth, as YOLOv5 prints it."""
    return float(figures.mean()) if figures.size else 0.0

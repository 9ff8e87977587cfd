"""Reports of evaluations written down by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.evaluation.small_cases import detections_of, labels_of
from utils.evaluation.average_precision import PrecisionRecall
from utils.evaluation.coco_average_precision import (
    CocoFigures,
    CocoSummary,
    findings_from_detections,
    truth_from_labels,
)
from utils.evaluation.evaluation_report import ClassReport, EvaluationReport, SpeedFigures

COCO = CocoSummary(
    AP=0.5,
    AP50=0.75,
    AP75=0.25,
    AP_S=0.125,
    AP_M=0.6,
    AP_L=-1,
    AR1=0.1,
    AR10=0.2,
    AR100=0.3,
    AR_S=0.4,
    AR_M=0.5,
    AR_L=-1,
)

# Of one image without objects in which nothing was found.
FIGURES = CocoFigures(
    summary=COCO,
    per_class={},
    by_area=(),
    truth=truth_from_labels([labels_of()]),
    findings=findings_from_detections([detections_of()]),
    evaluator=None,
)


def class_report(name: str, index: int, **changes: Any) -> ClassReport:
    """3 images, 7 objects, P 0.9, R 0.8, mAP50 0.7, mAP50-95 0.6, unless changed."""
    own = ClassReport(name, index, 3, 7, precision=0.9, recall=0.8, map50=0.7, map50_95=0.6, coco=COCO)
    return replace(own, **changes)


def curves_of(count: int) -> PrecisionRecall:
    """Curves of ``count`` classes over three scores 0, 0.5, 1; class k has k tenths more than the first."""
    more = np.arange(count)[:, None] / 10
    return PrecisionRecall(
        classes=np.arange(count),
        objects=np.full(count, 7),
        ap=np.full((count, 10), 0.5) + more,
        best=1,
        confidence=np.array([0.0, 0.5, 1.0]),
        precision_curve=np.array([[0.1, 0.2, 0.4]]) + more,
        recall_curve=np.array([[0.8, 0.4, 0.0]]) + more,
        f1_curve=np.array([[0.2, 0.6, 0.3]]) + more,
        precision_at_recall=np.array([[0.9, 0.5, 0.1, 0.0, 0.0]]) + more,
    )


def report_of(*classes: ClassReport, **changes: Any) -> EvaluationReport:
    """5 images, 21 objects, P 0.5, R 0.25, mAP50 0.375, mAP50-95 0.3, without any box, unless changed."""
    names = tuple(one.name for one in classes)
    report = EvaluationReport(
        precision=0.5,
        recall=0.25,
        map50=0.375,
        map50_95=0.3,
        per_class=classes,
        images=5,
        objects=21,
        loss=None,
        speed_ms=SpeedFigures(1.25, 20.0, 3.5),
        names=names,
        coco_figures=FIGURES,
        curves=curves_of(len(names)),
        curves_small=curves_of(len(names)),
        confusion=np.zeros((len(names) + 1, len(names) + 1)),
    )
    return replace(report, **changes)

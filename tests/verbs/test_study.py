"""The row of a study, out of a report."""

from __future__ import annotations

from dataclasses import replace

from tests.reporting.hand_made import COCO, FIGURES, report_of
from utils.evaluation.evaluation_report import SpeedFigures
from utils.verbs.study import study_row


def test_every_figure_comes_into_its_column() -> None:
    # Each has a value of its own, so that no two can change places unseen.
    report = report_of(
        precision=0.51,
        recall=0.52,
        map50=0.53,
        map50_95=0.54,
        coco_figures=replace(FIGURES, summary=COCO._replace(AP=0.55, AP50=0.56, AP_L=0.57)),
        speed_ms=SpeedFigures(preprocess=1.0, inference=20.0, nms=3.5),
    )
    row = study_row(320, report)
    assert row._asdict() == {
        "imgsz": 320,
        "precision": 0.51,
        "recall": 0.52,
        "map50": 0.53,
        "map50_95": 0.54,
        "AP": 0.55,
        "AP50": 0.56,
        "AP_S": 0.125,
        "AP_M": 0.6,
        "AP_L": 0.57,
        "preprocess_ms": 1.0,
        "inference_ms": 20.0,
        "nms_ms": 3.5,
    }
    assert row.milliseconds == 23.5

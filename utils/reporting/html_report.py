"""``report.html``: the tables and images of an evaluation on one page that needs no network and no other file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from utils.evaluation.coco_average_precision import WITHOUT_END, CocoSummary
from utils.evaluation.error_analysis import ErrorAnalysis, advice
from utils.evaluation.evaluation_report import ClassReport, EvaluationReport
from utils.reporting.evaluation_files import THRESHOLD_HEADER, YOLOV5_HEADER, figure_text, threshold_texts
from utils.reporting.html_page import PageContent, Section, Table, images_of, write_page

TEMPLATE = "report.html.j2"


class ReportSource(NamedTuple):
    """Where the figures come from."""

    command: str
    weights: str
    data: str  # which part of which data set


def write_report(path: Path, source: ReportSource, report: EvaluationReport, analysis: ErrorAnalysis | None) -> None:
    """Write the page, with the images that lie in its folder inside it."""
    coco, speed = report.coco, report.speed_ms
    headline = [(name, figure_text(getattr(coco, name))) for name in ("AP", "AP50", "AP_S", "AP_M", "AP_L")]
    headline += [("mAP50", figure_text(report.map50)), ("mAP50-95", figure_text(report.map50_95))]
    headline += [("ms per image", f"{speed.inference + speed.nms:.1f}")]
    content = PageContent(
        headline=headline,
        advice=advice(analysis) if analysis else [],
        tables=_tables(report, analysis),
        sections=_sections(path.parent),
    )
    write_page(path, TEMPLATE, content, source=source, report=report)


def _tables(report: EvaluationReport, analysis: ErrorAnalysis | None) -> list[Table]:
    rows: list[tuple[str, EvaluationReport | ClassReport]] = [("all", report)]
    rows += [(one.name, one) for one in report.per_class]
    tables = [
        Table(
            "Precision, recall, mAP as YOLOv5 computes them",
            ("Class", *YOLOV5_HEADER),
            [
                (name, str(one.images), str(one.objects))
                + tuple(map(figure_text, (one.precision, one.recall, one.map50, one.map50_95)))
                for name, one in rows
            ],
        ),
        Table(
            "COCO's figures",
            ("Class", *CocoSummary._fields),
            [(name, *map(figure_text, one.coco)) for name, one in rows],
        ),
        Table(
            "Confidence to detect at: where F1 is best, precision or recall reaches 0.9 (IoU 0.5)",
            ("Class", *THRESHOLD_HEADER, *(f"small: {text}" for text in THRESHOLD_HEADER)),
            [(name, *threshold_texts(one)) for name, one in rows],
        ),
    ]
    if report.by_area:
        header = ("Area", "from, px²", "to, px²", "Objects", "AP", "AP50", "AR100")
        cells = [
            (one.name, f"{one.low:g}", "no end" if one.high >= WITHOUT_END else f"{one.high:g}", str(one.objects))
            + tuple(map(figure_text, (one.AP, one.AP50, one.AR100)))
            for one in report.by_area
        ]
        tables.append(Table("Figures by object size", header, cells))
    if analysis is not None:
        kinds = [kind.kind for kind in analysis.by_size[0].kinds]
        cells = [
            (size.area.name, str(size.objects), figure_text(size.AP50))
            + tuple(f"{kind.ap50_lost:.3f} ({kind.errors})" for kind in size.kinds)
            for size in analysis.by_size
            if size.objects
        ]
        title = "Errors: AP50 that each kind costs, and how often it occurs"
        tables.append(Table(title, ("Objects", "Number", "AP50", *kinds), cells))
    return tables


def _sections(folder: Path) -> list[Section]:
    samples = sorted(file.name for file in folder.glob("sample*.jpg"))
    curves = ("PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png")
    return [
        Section("Object sizes", "", images_of(folder, ("object_sizes.png",)), False),
        Section("Recall by object size, and errors", "", images_of(folder, ("recall_by_size.png", "errors.png")), True),
        Section(
            "Objects missed worst",
            "White: an object that nothing of a score of 0.25 or more found; small, medium, large from top to bottom. "
            "Coloured: what was found near it.",
            images_of(folder, ("missed_objects.jpg",)),
            False,
        ),
        Section("Labels (left) and detections (right)", "", images_of(folder, samples), False),
        Section("Curves at IoU 0.5", "", images_of(folder, curves), True),
        Section("Confusion matrix", "", images_of(folder, ("confusion_matrix.png",)), False),
    ]

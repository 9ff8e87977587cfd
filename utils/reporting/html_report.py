"""The tables and images of an evaluation, or of several models compared, on one page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utils.evaluation.coco_average_precision import WITHOUT_END, CocoSummary
from utils.evaluation.error_analysis import ErrorAnalysis, advice
from utils.evaluation.evaluation_report import ClassReport, EvaluationReport
from utils.reporting.evaluation_files import (
    CONFUSION_HEADER,
    THRESHOLD_HEADER,
    YOLOV5_HEADER,
    confusion_texts,
    figure_text,
    threshold_texts,
)
from utils.reporting.html_page import PageContent, Section, Table, images_of, write_page

TEMPLATE = "report.html.j2"
BY_SIZE = ("AP", "AP_S", "AP_M", "AP_L", "AR100", "AR_S", "AR_M", "AR_L")  # figures that models are compared in


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
    if report.confusions:
        title = "Classes mixed up most often (score above 0.25, IoU above 0.45)"
        cells = [(pair.true, *confusion_texts(pair)) for pair in report.confusions]
        tables.append(Table(title, ("Class", *CONFUSION_HEADER), cells))
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
            "Dotted: an object that nothing of a score of 0.25 or more found; small, medium, large from top to bottom. "
            "Near it, what was found: right (unbroken line) or wrong (dashed).",
            images_of(folder, ("missed_objects.jpg",)),
            False,
        ),
        Section(
            "Labels (left); what was found and missed (right)",
            "Of a score of 0.25 or more, at IoU 0.5: right detections have an unbroken line, wrong ones are dashed, "
            "missed objects dotted.",
            images_of(folder, samples),
            False,
        ),
        Section("Curves at IoU 0.5", "", images_of(folder, curves), True),
        Section("Confusion matrix", "", images_of(folder, ("confusion_matrix.png",)), False),
    ]


def write_comparison_page(
    path: Path, source: ReportSource, names: Sequence[str], reports: Sequence[EvaluationReport]
) -> None:
    """Write the page of several models on the same images, each against the first.

    The images of `write_found_alone` are taken from the folders ``found_alone_1`` and so on beside the page.
    """
    first = reports[0]
    rows = [(name, *_compared(first.coco, one.coco)) for name, one in zip(names, reports, strict=True)]
    tables = [Table(f"AP and recall by object size (difference to {names[0]})", ("Model", *BY_SIZE), rows)]
    sections = [Section("AP and AP_S, and 95 % intervals", "", images_of(path.parent, ("comparison.png",)), False)]
    for number, (name, report) in enumerate(zip(names[1:], reports[1:], strict=True), start=1):
        pairs = list(zip(first.per_class, report.per_class, strict=True))  # of the same objects
        pairs.sort(key=lambda pair: -abs(pair[1].coco.AP - pair[0].coco.AP))
        rows = [(one.name, str(one.objects), *_compared(one.coco, two.coco)) for one, two in pairs]
        title = f"Classes of {name} (difference to {names[0]}), the most different first"
        tables.append(Table(title, ("Class", "Objects", *BY_SIZE), rows))
        folder = path.parent / f"found_alone_{number}"
        sections.append(
            Section(
                f"Objects that only one found: {names[0]} (left), {name} (right)",
                "The images in which they differ most. Found is: at IoU 0.5 by a detection of the class with a "
                "score of 0.25 or more; what both or neither found is not drawn.",
                images_of(folder, [file.name for file in sorted(folder.glob("*.jpg"))]),
                False,
            )
        )
    headline = [(f"AP_S of {name}", figure_text(one.coco.AP_S)) for name, one in zip(names, reports, strict=True)]
    write_page(path, TEMPLATE, PageContent(headline, [], tables, sections), source=source, report=first)


def _compared(first: CocoSummary, other: CocoSummary) -> list[str]:
    """The figures by size, each with its difference to the first model's."""
    cells = []
    for key in BY_SIZE:
        before, after = getattr(first, key), getattr(other, key)
        exists = before >= 0 and after >= 0 and other is not first
        cells.append(figure_text(after) + (f" ({after - before:+.3f})" if exists else ""))
    return cells

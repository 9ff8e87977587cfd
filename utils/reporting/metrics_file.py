"""The figures of an evaluation as a table for the console and as ``metrics.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.evaluation.coco_average_precision import WITHOUT_END, AreaFigures, CocoSummary
from utils.evaluation.evaluation_report import ClassReport, EvaluationReport
from utils.runtime.atomic_files import write_text

AREA_HEADER = ("Instances", "AP", "AP50", "AR100")
YOLOV5_HEADER = ("Images", "Instances", "P", "R", "mAP50", "mAP50-95")
MANY_CLASSES = 50  # without --verbose classes are listed up to this number


def format_table(report: EvaluationReport, *, verbose: bool = False) -> str:
    """Two blocks, YOLOv5's figures and COCO's: a row for the whole and, with ``verbose``, one for each class.

    Like YOLOv5, few classes are always listed. A dash stands where no object of that size exists.
    """
    shown = report.per_class if verbose or 1 < len(report.names) < MANY_CLASSES else ()
    names = ["all", *(row.name for row in shown)]
    reports: tuple[EvaluationReport | ClassReport, ...] = (report, *shown)
    yolov5 = [
        (str(row.images), str(row.objects), *map(figure_text, (row.precision, row.recall, row.map50, row.map50_95)))
        for row in reports
    ]
    coco = [tuple(map(figure_text, row.coco)) for row in reports]
    blocks = [_block(names, YOLOV5_HEADER, yolov5), _block(names, CocoSummary._fields, coco)]
    if report.by_area:
        rows = [(str(one.objects), *map(figure_text, (one.AP, one.AP50, one.AR100))) for one in report.by_area]
        blocks.append(_block([_range_text(one) for one in report.by_area], AREA_HEADER, rows, title="Area, px^2"))
    return "\n\n".join("\n".join(block) for block in blocks)


def speed_line(report: EvaluationReport) -> str:
    """Time per image in one line."""
    speed = report.speed_ms
    return (
        f"Speed: {speed.preprocess:.1f} ms pre-process, {speed.inference:.1f} ms inference, {speed.nms:.1f} ms NMS "
        f"per image"
    )


def write_metrics(
    path: Path,
    report: EvaluationReport,
    weights: str | Path,
    settings: Mapping[str, object],
    further: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Write ``metrics.json`` and give its content.

    ``settings`` are those that the figures depend on; what JSON has no form for is written as text. ``further`` is
    written beside them.
    """
    content = report.as_dict() | dict(further or {}) | {"weights": str(weights), "settings": dict(settings)}
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")
    return content


def figure_text(value: float) -> str:
    """A figure with three digits; a dash for one that does not exist."""
    if value < 0 or math.isnan(value):
        return "-"
    return f"{value:.3g}" if value >= 0.001 or value == 0 else f"{value:.1e}"


def _range_text(one: AreaFigures) -> str:
    return f"{one.name} {one.low:g}-{'' if one.high >= WITHOUT_END else format(one.high, 'g')}"


def _block(
    names: Sequence[str], header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "Class"
) -> list[str]:
    width = max(22, *(len(name) + 2 for name in names))
    cell = 11 if len(header) < 10 else 8
    return [
        f"{name:>{width}}" + "".join(f"{text:>{cell}}" for text in row)
        for name, row in zip((title, *names), (header, *rows), strict=True)
    ]

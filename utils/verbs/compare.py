"""``--compare``: several models on the same images, and how sure the differences between them are."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from models.summary import summarize
from utils.config.command_line import as_command
from utils.config.val_flags import ValConfig
from utils.evaluation.coco_average_precision import existing_figures
from utils.evaluation.evaluation_report import EvaluationReport
from utils.evaluation.model_comparison import (
    CONFIDENCE,
    RESAMPLES,
    ComparedModel,
    Difference,
    PairedDifferences,
    ResampledFigures,
    paired_differences,
    paired_draws,
    resampled_figures,
)
from utils.inference.detector import OpenedDetector
from utils.inference.torch_backend import TorchBackend
from utils.reporting.curve_plots import plot_comparison
from utils.reporting.evaluation_files import figure_text, write_metrics
from utils.reporting.html_report import ReportSource, write_comparison_page
from utils.reporting.missed_objects import write_found_alone
from utils.reporting.run_directory import new_run_directory
from utils.runtime.atomic_files import write_text
from utils.runtime.device import describe_device
from utils.verbs.evaluate import EvaluationSetup

LOGGER = logging.getLogger(__name__)

HEADER = ("parameters", "GFLOPs", "AP", "AP50", "AP_S", "AP_M", "AP_L", "ms")


def run_comparison(config: ValConfig) -> tuple[ComparedModel, ...]:
    """Evaluate each file of ``--weights``; table, JSON, CSV and image go to the run's folder."""
    setup = EvaluationSetup.of(config)
    detectors = [setup.detector([name]) for name in config.weights]
    folder = new_run_directory(config.project, config.name, exist_ok=config.exist_ok, set_aside=("found_alone_[0-9]",))
    LOGGER.info("comparing on the %s part of %s, %s", setup.part, setup.dataset.file, describe_device(setup.device))
    draws = paired_draws(len(setup.images))
    first: ResampledFigures | None = None
    rows: list[ComparedModel] = []
    reports: list[EvaluationReport] = []
    for name, label, detector in zip(config.weights, short_names(config.weights), detectors, strict=True):
        report = setup.evaluate(detector)
        write_metrics(folder / f"metrics_{len(rows)}_{Path(name).stem}.json", report, name, asdict(config))
        figures = resampled_figures(report.truth, report.findings, draws, title=f"resampling {label}")
        differences = paired_differences(first, figures) if first is not None else None
        first = first or figures
        rows.append(_row(label, detector, report, differences, config.imgsz))
        reports.append(report)
        LOGGER.info("%s: AP %s, AP_S %s", label, figure_text(report.coco.AP), figure_text(report.coco.AP_S))
    LOGGER.info("%s", comparison_table(rows))
    content = {"command": as_command(config, "val.py"), "models": [_plain(row) for row in rows]}
    write_text(folder / "comparison.json", json.dumps(content, indent=2) + "\n")
    write_text(folder / "comparison.csv", _csv(rows))
    plot_comparison(folder / "comparison.png", rows)
    for number, report in enumerate(reports[1:], start=1):
        write_found_alone(folder / f"found_alone_{number}", setup.images, reports[0], report)
    labels = [row.name for row in rows]
    source = ReportSource(
        as_command(config, "val.py"), " and ".join(labels), f"{setup.part} part of {setup.dataset.file.name}"
    )
    write_comparison_page(folder / "report.html", source, labels, reports)
    LOGGER.info("report with images: %s", folder / "report.html")
    LOGGER.info("results in %s", folder)
    return tuple(rows)


def short_names(weights: Sequence[str]) -> list[str]:
    """File names, with as many folders as it takes to tell them apart."""
    parts = [Path(name).parts for name in weights]
    depth = 1
    while depth < max(map(len, parts)) and len({own[-depth:] for own in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(own[-depth:]) for own in parts]


def comparison_table(rows: Sequence[ComparedModel]) -> str:
    """A row per model, then a line per difference to the first."""
    width = max(len("model"), *(len(row.name) for row in rows)) + 2
    table: list[tuple[str, ...]] = [HEADER]
    for row in rows:
        cells = (
            "-" if row.parameters is None else f"{row.parameters:,}".replace(",", " "),
            "-" if row.gflops is None else f"{row.gflops:.1f}",
            *(figure_text(getattr(row, key)) for key in HEADER[2:7]),
            f"{row.milliseconds:.1f}",
        )
        table.append(cells)
    widths = [max(map(len, column)) + 2 for column in zip(*table, strict=True)]  # as narrow as they go
    lines = [
        f"{name:>{width}}" + "".join(f"{text:>{own}}" for text, own in zip(cells, widths, strict=True))
        for name, cells in zip(("model", *(row.name for row in rows)), table, strict=True)
    ]
    lines.append("")
    lines.append(f"differences to {rows[0].name}, {CONFIDENCE:.0%} intervals from {RESAMPLES} resamples of the images")
    for row in rows[1:]:
        assert row.differences is not None
        pairs = zip(PairedDifferences._fields, row.differences, strict=True)
        lines.append(f"{row.name:>{width}}  " + "; ".join(_difference_text(key, one) for key, one in pairs))
    return "\n".join(lines)


def _difference_text(key: str, one: Difference | None) -> str:
    if one is None:
        return f"{key} -"
    doubt = "" if one.is_sure else " (could be chance)"
    return f"{key} {one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]{doubt}"


def _row(
    name: str, detector: OpenedDetector, report: EvaluationReport, differences: PairedDifferences | None, imgsz: int
) -> ComparedModel:
    coco, speed = report.coco, report.speed_ms
    model = detector.backend.model if isinstance(detector.backend, TorchBackend) else None
    summary = summarize(model, imgsz, imgsz) if model is not None else None
    return ComparedModel(
        name,
        summary.parameters if summary else None,
        summary.gflops if summary else None,
        *(coco.AP, coco.AP50, coco.AP_S, coco.AP_M, coco.AP_L),
        speed.inference + speed.nms,
        differences,
    )


def _plain(row: ComparedModel) -> dict[str, object]:
    """Plain values, the differences with the names of their parts, which ``asdict`` leaves out of named tuples."""
    named = row.differences._asdict() if row.differences is not None else None
    parts = {key: one._asdict() if one is not None else None for key, one in named.items()} if named else None
    return existing_figures(asdict(row)) | {"differences": parts}


def _csv(rows: Sequence[ComparedModel]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = [f"{key}_difference{end}" for key in PairedDifferences._fields for end in ("", "_low", "_high")]
    writer.writerow(["model", "parameters", "gflops", *HEADER[2:7], "milliseconds", *parts])
    for row in rows:
        differences = row.differences or (None, None)
        numbers = [value for one in differences for value in (one or ("", "", ""))]
        plain = _plain(row)
        own = [plain[key] for key in ("name", "parameters", "gflops", *HEADER[2:7], "milliseconds")]
        writer.writerow(["" if value is None else value for value in (*own, *numbers)])
    return text.getvalue()

"""``--task speed`` and ``--task study``: how long a model takes, and what it finds, over image sizes."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from utils.config.val_flags import ValConfig
from utils.evaluation.evaluation_report import EvaluationReport
from utils.evaluation.model_comparison import StudyRow
from utils.reporting.curve_plots import plot_study
from utils.reporting.evaluation_files import figure_text, format_table, speed_line, write_metrics
from utils.reporting.run_directory import new_run_directory
from utils.runtime.atomic_files import write_text
from utils.runtime.device import describe_device
from utils.verbs.evaluate import EvaluationSetup

LOGGER = logging.getLogger(__name__)

SPEED_CONF, SPEED_IOU = 0.25, 0.45  # detect.py's defaults: how long images take in use


def run_speed(config: ValConfig) -> None:
    """Times per image with detect.py's thresholds, of each file of ``--weights``."""
    setup = EvaluationSetup.of(replace(config, conf_thres=SPEED_CONF, iou_thres=SPEED_IOU))
    detectors = [setup.detector([name]) for name in config.weights]
    folder = new_run_directory(config.project, config.name, exist_ok=config.exist_ok)
    LOGGER.info("thresholds of --task speed: --conf-thres %g --iou-thres %g", SPEED_CONF, SPEED_IOU)
    for name, detector in zip(config.weights, detectors, strict=True):
        report = setup.evaluate(detector)
        LOGGER.info("%s at %d px on %s\n%s", name, config.imgsz, describe_device(setup.device), format_table(report))
        LOGGER.info("%s", speed_line(report))
        write_metrics(folder / f"speed_{_stem(name)}.json", report, name, asdict(setup.config))
    LOGGER.info("results in %s", folder)


def run_study(config: ValConfig) -> None:
    """Figures and times of each file of ``--weights`` at each of ``--study-sizes``: a table each, and one image."""
    setup = EvaluationSetup.of(config)
    detectors = [setup.detector([name]) for name in config.weights]
    folder = new_run_directory(config.project, config.name, exist_ok=config.exist_ok)
    studies: dict[str, list[StudyRow]] = {}
    for name, detector in zip(config.weights, detectors, strict=True):
        rows = studies.setdefault(name, [])
        for imgsz in config.study_sizes:
            rows.append(study_row(imgsz, setup.evaluate(detector, imgsz=imgsz)))
            row = rows[-1]
            figures = [f"{key} {figure_text(getattr(row, key))}" for key in ("map50_95", "AP", "AP_S", "AP_M", "AP_L")]
            LOGGER.info("%s at %d px: %s, %.1f ms", name, imgsz, ", ".join(figures), row.milliseconds)
            write_text(folder / f"study_{setup.dataset.file.stem}_{_stem(name)}.csv", _table(rows))
        plot_study(folder / "study.png", studies)
    LOGGER.info("results in %s", folder)


def study_row(imgsz: int, report: EvaluationReport) -> StudyRow:
    coco, speed = report.coco, report.speed_ms
    return StudyRow(
        imgsz,
        *(report.precision, report.recall, report.map50, report.map50_95),
        *(coco.AP, coco.AP50, coco.AP_S, coco.AP_M, coco.AP_L),
        *speed,
    )


def _table(rows: Sequence[StudyRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(StudyRow._fields)
    # Empty for objects of a size that does not exist.
    writer.writerows([f"{value:.6g}" if value >= 0 else "" for value in row] for row in rows)
    return text.getvalue()


def _stem(name: str) -> str:
    return Path(name).stem

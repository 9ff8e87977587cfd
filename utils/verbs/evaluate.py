"""``val.py``'s work: a model file evaluated on one part of a data set, its figures printed and written to a folder."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path

from utils.config.command_line import as_command
from utils.config.val_flags import ValConfig
from utils.evaluation.error_analysis import advice, analyse_errors
from utils.evaluation.evaluate import EvaluationObserver, EvaluationReport
from utils.inference.nms import labels_and_detections
from utils.reporting.evaluation_files import (
    BatchImages,
    CocoResults,
    HybridLabelFiles,
    LabelFiles,
    SampleImages,
    format_table,
    speed_line,
    write_evaluation_plots,
    write_metrics,
)
from utils.reporting.html_report import ReportSource, write_report
from utils.reporting.missed_objects import write_missed_objects
from utils.reporting.output_names import OutputNames
from utils.reporting.run_directory import new_run_directory, write_problems
from utils.runtime.device import describe_device
from utils.verbs.compare import run_comparison
from utils.verbs.evaluation_setup import EvaluationSetup
from utils.verbs.study import run_speed, run_study
from utils.verbs.submission import is_submission, run_submission

LOGGER = logging.getLogger(__name__)


def run_evaluation(config: ValConfig) -> None:
    """Do what ``--task`` and ``--compare`` say; figures go to the console and, with images, to the run's folder.

    Raises:
        UserError: anything missing or wrong in the files that the settings name, a model of other classes.
    """
    if config.task == "speed":
        run_speed(config)
    elif config.task == "study":
        run_study(config)
    elif config.compare:
        run_comparison(config)
    else:
        setup = EvaluationSetup.of(config)
        if is_submission(setup):
            run_submission(setup)
        else:
            evaluate_once(setup)


def evaluate_once(setup: EvaluationSetup) -> EvaluationReport:
    """One detector, or one ensemble, on one part of a data set."""
    config = setup.config
    backend = setup.detector(config.weights)
    folder = new_run_directory(config.project, config.name, exist_ok=config.exist_ok)
    weights = " ".join(config.weights)
    LOGGER.info(
        "evaluating %s on the %s part of %s, %s", weights, setup.part, setup.dataset.file, describe_device(setup.device)
    )
    LOGGER.info("%s: %s", setup.part, setup.images.index.summary())
    write_problems(folder, setup.images.index.problems)
    if setup.images.index.unlabelled == len(setup.images):
        LOGGER.warning("no image of the %s part has labels: there is nothing to hold the detections to", setup.part)

    observers: list[EvaluationObserver] = [SampleImages(folder, setup.images, setup.shown_names)]
    if config.slice is None:
        observers.append(BatchImages(folder, setup.shown_names))
    written = config.save_json or config.save_txt or config.save_hybrid
    names = OutputNames(dict.fromkeys(setup.images.index.paths, False) if written else {})
    results = CocoResults(setup.images.annotations, names.image_id) if config.save_json else None
    if results:
        observers.append(results)
    if config.save_hybrid:
        find = partial(labels_and_detections, settings=setup.settings.suppression)
        observers.append(HybridLabelFiles(folder / "labels", names.of, find, with_scores=config.save_conf))
    elif config.save_txt:
        observers.append(LabelFiles(folder / "labels", names.of, with_scores=config.save_conf))
    report = setup.judge(backend, observers)

    LOGGER.info("%s\n%s", format_table(report, verbose=config.verbose), speed_line(report))
    analysis = analyse_errors(report.coco_figures)
    for sentence in advice(analysis) if analysis else []:
        LOGGER.info("- %s", sentence)
    further = analysis.as_dict() if analysis else None
    write_metrics(folder / "metrics.json", report, weights, asdict(config), further)
    write_evaluation_plots(folder, report, analysis)
    if analysis:
        write_missed_objects(folder / "missed_objects.jpg", setup.images, report, analysis)
    if results:
        results.write(folder / f"{Path(config.weights[0]).stem}_predictions.json")
    source = ReportSource(as_command(config, "val.py"), weights, f"{setup.part} part of {setup.dataset.file.name}")
    write_report(folder / "report.html", source, report, analysis)
    LOGGER.info("report with images: %s", folder / "report.html")
    LOGGER.info("results in %s", folder)
    return report

"""``classify/val.py``'s work: a classifier's accuracy on one part of a data set, printed and written to a folder."""

from __future__ import annotations

import logging
from dataclasses import asdict

from utils.config.classify_flags import ClassifyValConfig
from utils.config.command_line import script_command
from utils.dataset.batch_loader import LoaderSettings
from utils.dataset.classification_dataset import open_part
from utils.dataset.classification_loaders import classification_evaluation_loader
from utils.evaluation.classification import ClassificationReport, ClassificationSettings, evaluate_classifier
from utils.inference.classifier_backends import open_classifier
from utils.loss.classification_loss import ClassificationLoss
from utils.reporting.classification_files import accuracy_table, write_accuracy
from utils.reporting.curve_plots import plot_confusion_matrix
from utils.reporting.run_directory import new_run_directory, write_problems
from utils.runtime.console_log import say_next
from utils.runtime.device import describe_device, measured_convolutions, select_device
from utils.runtime.failures import explained_failures
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)


def run_classification_evaluation(config: ClassifyValConfig) -> ClassificationReport:
    """Evaluate as ``config`` says: the table goes to the console, ``metrics.json`` and an image to a new folder.

    Raises:
        UserError: anything missing or wrong in the files that the settings name, a model of other classes.
    """
    device = select_device(config.device)
    backend, side = open_classifier(config, device)
    part = open_part(config.data, "evaluated")
    if backend.names != part.names:
        raise UserError(f"{config.weights}: its {len(backend.names)} classes are not the {len(part.names)} of the data")
    folder = new_run_directory(config.project, config.name, exist_ok=config.exist_ok)
    LOGGER.info(
        "evaluating %s on the %s part of %s, %s", config.weights, part.part, config.data, describe_device(device)
    )
    write_problems(folder, part.problems)
    settings = LoaderSettings(config.batch_size, workers=config.workers, pin_memory=device.type == "cuda")
    with explained_failures(config.batch_size, side), measured_convolutions(device, sizes_repeat=True):
        loader = classification_evaluation_loader(part, side, settings)
        scoring = ClassificationSettings(backend.names, ClassificationLoss())
        report = evaluate_classifier(backend.logits, loader, scoring, device)
    LOGGER.info("%s", accuracy_table(report, verbose=config.verbose == "True"))
    LOGGER.info("Speed: %.1f ms inference per image of %d px", report.milliseconds, side)
    write_accuracy(folder / "metrics.json", report, config.weights, asdict(config))
    plot_confusion_matrix(folder / "confusion_matrix.png", report.confusion, report.names)
    LOGGER.info("results in %s", folder)
    say_next(script_command("classify/predict.py", "--weights", config.weights, "--source", "IMAGES"))
    return report

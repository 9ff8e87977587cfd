"""What an evaluation leaves in its folder while it runs: label files, COCO results, pictures of batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from utils.evaluation.evaluate import EvaluationObserver
from utils.evaluation.evaluation_report import EvaluationReport
from utils.geometry.records import Batch, Detections, Labels, Predictions
from utils.reporting.box_drawing import batch_mosaic
from utils.reporting.curve_plots import plot_confusion_matrix, plot_curves
from utils.reporting.detection_files import (
    coco_results,
    image_id,
    write_coco_results,
    write_label_file,
    write_picture,
)

PICTURED_BATCHES = 3
DRAWN_SCORE = 0.25  # detections below are not drawn; an evaluation keeps many of next to no score


class LabelFiles(EvaluationObserver):
    """One YOLO label file for each picture in which something was found."""

    def __init__(self, folder: Path, *, with_scores: bool) -> None:
        self.folder = folder
        self.with_scores = with_scores
        folder.mkdir(exist_ok=True)

    def on_picture(self, index: int, path: Path, detections: Detections, labels: Labels) -> None:
        write_label_file(self.folder / f"{path.stem}.txt", detections, with_scores=self.with_scores)


class CocoResults(EvaluationObserver):
    """All detections, for a COCO results file."""

    def __init__(self) -> None:
        self.entries: list[dict[str, object]] = []

    def on_picture(self, index: int, path: Path, detections: Detections, labels: Labels) -> None:
        self.entries += coco_results(detections, image_id(path))

    def write(self, path: Path) -> None:
        write_coco_results(path, self.entries)


class BatchPictures(EvaluationObserver):
    """``val_batchN_labels.jpg`` and ``val_batchN_pred.jpg`` of the first batches."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = names

    def on_batch(self, number: int, batch: Batch, predictions: Predictions, detections: Sequence[Detections]) -> None:
        if number >= PICTURED_BATCHES:
            return
        sure = [found.above(DRAWN_SCORE) for found in detections]
        write_picture(self.folder / f"val_batch{number}_labels.jpg", batch_mosaic(batch, self.names))
        write_picture(self.folder / f"val_batch{number}_pred.jpg", batch_mosaic(batch, self.names, sure))


def write_evaluation_plots(folder: Path, report: EvaluationReport) -> None:
    """The P, R, F1 and PR curves and the confusion matrix."""
    plot_curves(folder, report)
    plot_confusion_matrix(folder / "confusion_matrix.png", report.confusion, report.names)

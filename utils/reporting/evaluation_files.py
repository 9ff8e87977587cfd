"""What an evaluation leaves in its folder: label files, COCO results and images while it runs, then its figures.

The figures are a table for the console too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.dataset.coco_annotations import NO_CLASS, ImageAnnotations
from utils.dataset.detection_dataset import DetectionDataset
from utils.evaluation.coco_average_precision import WITHOUT_END, AreaFigures, CocoSummary
from utils.evaluation.evaluate import EvaluationObserver
from utils.evaluation.evaluation_report import ClassReport, EvaluationReport
from utils.evaluation.match_detections import Confusion
from utils.geometry.boxes import xyxy_to_xywh
from utils.geometry.records import Batch, Detections, Labels, Predictions
from utils.reporting.box_drawing import marked_labels
from utils.reporting.curve_plots import (
    plot_confusion_matrix,
    plot_curves,
    plot_errors,
    plot_label_sizes,
    plot_recall_by_size,
)
from utils.reporting.detection_files import (
    coco_results,
    write_coco_results,
    write_image,
    write_label_file,
)
from utils.reporting.image_grid import image_grid
from utils.reporting.labelled_images import batch_mosaic, marked_images, marked_verdicts, reduced
from utils.runtime.atomic_files import write_text

if TYPE_CHECKING:  # a training run draws no analysis and need not load what makes one
    from utils.evaluation.error_analysis import ErrorAnalysis

DRAWN_BATCHES = 3
SAMPLES = 4  # images in sample*.jpg
SAMPLE_SIDE = 900  # pixels; of larger images a reduced copy is drawn on
AREA_HEADER = ("Instances", "AP", "AP50", "AR100")
YOLOV5_HEADER = ("Images", "Instances", "P", "R", "mAP50", "mAP50-95")
THRESHOLD_HEADER = ("best F1", "P >= 0.9", "R >= 0.9")
CONFUSION_HEADER = ("Instances", "share", "taken for")
LISTED_CONFUSIONS = 5  # on the console
LONGEST_NAME = 27  # characters of a class name in the tables of the console
MANY_CLASSES = 50  # without --verbose classes are listed up to this number


class LabelFiles(EvaluationObserver):
    """One YOLO label file for each image in which something was found."""

    def __init__(self, folder: Path, name_of: Callable[[Path], str], *, with_scores: bool) -> None:
        """``name_of``: the name of an image's files, without extension."""
        self.folder = folder
        self.name_of = name_of
        self.with_scores = with_scores
        folder.mkdir(exist_ok=True)

    def on_image(self, index: int, path: Path, detections: Detections, labels: Labels) -> None:
        write_label_file(self.folder / f"{self.name_of(path)}.txt", detections, with_scores=self.with_scores)


class HybridLabelFiles(EvaluationObserver):
    """Label files of the true objects and, where there are none of them, what was found: for labelling the rest."""

    def __init__(
        self,
        folder: Path,
        name_of: Callable[[Path], str],
        find: Callable[[Batch, Predictions], list[Detections]],
        *,
        with_scores: bool,
    ) -> None:
        """``find``: labels and detections of each image, in network pixels."""
        self.folder = folder
        self.name_of = name_of
        self.find = find
        self.with_scores = with_scores
        folder.mkdir(exist_ok=True)

    def on_batch(self, number: int, batch: Batch, predictions: Predictions, detections: Sequence[Detections]) -> None:
        for image, letterbox, found in zip(batch.paths, batch.letterboxes, self.find(batch, predictions), strict=True):
            if letterbox is not None:
                path = self.folder / f"{self.name_of(image)}.txt"
                write_label_file(path, found.cpu().to_source(letterbox), with_scores=self.with_scores)


class CocoResults(EvaluationObserver):
    """All detections, for a COCO results file, with the ids of the data set's annotation file if it has one."""

    def __init__(self, annotations: ImageAnnotations | None, id_of: Callable[[Path], int | str]) -> None:
        """``id_of``: the image id of a file, where there are no annotations."""
        self.annotations = annotations
        self.id_of = id_of
        self.entries: list[dict[str, object]] = []

    def on_image(self, index: int, path: Path, detections: Detections, labels: Labels) -> None:
        if self.annotations is None:
            self.entries += coco_results(detections, self.id_of(path))
        elif self.annotations.lists(index):
            rows = coco_results(detections, self.annotations.image_ids[index], self.annotations.category_ids)
            self.entries += [row for row in rows if row["category_id"] != NO_CLASS]

    def write(self, path: Path) -> None:
        write_coco_results(path, self.entries)


class BatchImages(EvaluationObserver):
    """``val_batchN_labels.jpg`` and ``val_batchN_pred.jpg`` of the first batches."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = names

    def on_batch(self, number: int, batch: Batch, predictions: Predictions, detections: Sequence[Detections]) -> None:
        if number >= DRAWN_BATCHES:
            return
        write_image(self.folder / f"val_batch{number}_labels.jpg", batch_mosaic(batch, self.names))
        write_image(self.folder / f"val_batch{number}_pred.jpg", batch_mosaic(batch, self.names, detections))


class SampleImages(EvaluationObserver):
    """``sampleN.jpg``: images spread over the data set, with labels on the left and verdicts on the right.

    A detection is right or wrong, a label without one missed; see `marked_verdicts`.
    """

    def __init__(self, folder: Path, images: DetectionDataset, names: Sequence[str]) -> None:
        self.folder = folder
        self.images = images
        self.names = names
        labelled = np.flatnonzero(np.diff(images.index.row_ends, prepend=0) > 0)
        chosen = labelled[np.linspace(0, len(labelled) - 1, min(SAMPLES, len(labelled))).astype(int)]
        self.number_of = {index: number for number, index in enumerate(dict.fromkeys(chosen.tolist()))}

    def on_image(self, index: int, path: Path, detections: Detections, labels: Labels) -> None:
        if index not in self.number_of:
            return
        image = self.images.source_image(index)
        scale = min(1.0, SAMPLE_SIDE / max(labels.size))
        own, found = labels.scaled(scale), detections.scaled(scale)
        sides = [
            marked_images([reduced(image, scale)], [marks], columns=1)
            for marks in (marked_labels(own, self.names), marked_verdicts(own, found, self.names))
        ]
        write_image(self.folder / f"sample{self.number_of[index]}.jpg", image_grid(sides, columns=2, gap=6))


def write_evaluation_plots(folder: Path, report: EvaluationReport, analysis: ErrorAnalysis | None = None) -> None:
    """The P, R, F1 and PR curves, the confusion matrix, and, with an analysis, sizes, recall by size and errors."""
    plot_curves(folder, report)
    plot_confusion_matrix(folder / "confusion_matrix.png", report.confusion, report.names)
    if analysis is not None:
        truth = report.truth
        own = (truth.classes < len(report.names)) & ~truth.crowd
        sizes = xyxy_to_xywh(truth.boxes[own])[:, 2:]
        plot_label_sizes(folder / "object_sizes.png", sizes, truth.classes[own], report.names)
        plot_recall_by_size(folder / "recall_by_size.png", analysis.recall)
        plot_errors(folder / "errors.png", analysis.by_size)


def format_table(report: EvaluationReport, *, verbose: bool = False) -> str:
    """Blocks of YOLOv5's figures, COCO's, the confidences worth working at, and the classes mixed up most often.

    Each has a row for the whole and, with ``verbose``, one for each class.
    Like YOLOv5, few classes are always listed. A dash stands where no object of that size exists.
    """
    shown = report.per_class if verbose or 1 < len(report.names) < MANY_CLASSES else ()
    names = ["all", *(row.name for row in shown)]
    reports: tuple[EvaluationReport | ClassReport, ...] = (report, *shown)
    yolov5 = [
        (str(row.images), str(row.objects), *map(figure_text, (row.precision, row.recall, row.map50, row.map50_95)))
        for row in reports
    ]
    coco = [tuple(map(narrow_text, row.coco)) for row in reports]
    blocks = [_block(names, YOLOV5_HEADER, yolov5), _block(names, CocoSummary._fields, coco)]
    if report.by_area:
        rows = [(str(one.objects), *map(figure_text, (one.AP, one.AP50, one.AR100))) for one in report.by_area]
        blocks.append(_block([_range_text(one) for one in report.by_area], AREA_HEADER, rows, title="Area, px^2"))
    points = [threshold_texts(row) for row in reports]
    header = (*THRESHOLD_HEADER, *(f"S {text}" for text in THRESHOLD_HEADER))
    blocks.append(_block(names, header, points, title="Confidence at"))
    if report.confusions:
        pairs = report.confusions[:LISTED_CONFUSIONS]
        rows = [(*confusion_texts(pair)[:-1], f"  {_cut(pair.predicted)}") for pair in pairs]
        blocks.append(_block([pair.true for pair in pairs], CONFUSION_HEADER, rows, title="Taken for another class"))
    return "\n\n".join("\n".join(block) for block in blocks)


def threshold_texts(row: EvaluationReport | ClassReport) -> tuple[str, ...]:
    """The confidences worth working at, of all objects and of small ones; a dash where a figure is not reached."""
    points = (*row.thresholds, *row.thresholds_small)
    return tuple("-" if value is None else f"{value:.3f}" for value in points)


def confusion_texts(pair: Confusion) -> tuple[str, ...]:
    """How many objects were taken for another class, their share of their own class, and that other class."""
    return (str(pair.objects), f"{pair.share:.0%}", pair.predicted)


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


def narrow_text(value: float) -> str:
    """The same in five characters at most."""
    text = figure_text(value)
    return text if len(text) <= 5 else f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _range_text(one: AreaFigures) -> str:
    return f"{one.name} {one.low:g}-{'' if one.high >= WITHOUT_END else format(one.high, 'g')}"


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}\u2026"


def _block(
    names: Sequence[str], header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "Class"
) -> list[str]:
    # COCO's twelve columns and the names fit a terminal of 100.
    names = [_cut(name) for name in (title, *names)]
    width = max(22, *(len(name) + 1 for name in names))
    cell = 11 if len(header) < 10 else 6
    return [
        f"{name:>{width}}" + "".join(f"{text:>{cell}}" for text in row)
        for name, row in zip(names, (header, *rows), strict=True)
    ]

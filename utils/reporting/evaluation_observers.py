"""What an evaluation leaves in its folder while it runs: label files, COCO results, images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.dataset.coco_annotations import NO_CLASS, ImageAnnotations
from utils.dataset.detection_dataset import DetectionDataset
from utils.evaluation.error_analysis import ErrorAnalysis
from utils.evaluation.evaluate import EvaluationObserver
from utils.evaluation.evaluation_report import EvaluationReport
from utils.geometry.boxes import xyxy_to_xywh
from utils.geometry.records import Batch, Detections, Labels, Predictions
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.reporting.box_drawing import batch_mosaic, draw_detections, draw_labels
from utils.reporting.curve_plots import (
    plot_confusion_matrix,
    plot_curves,
    plot_errors,
    plot_label_sizes,
    plot_recall_by_size,
)
from utils.reporting.detection_files import (
    coco_results,
    image_id,
    write_coco_results,
    write_image,
    write_label_file,
)
from utils.reporting.image_grid import image_grid

DRAWN_BATCHES = 3
SAMPLES = 4  # images in sample*.jpg
SAMPLE_SIDE = 900  # pixels; of larger images a reduced copy is drawn on
DRAWN_SCORE = 0.25  # detections below are not drawn; an evaluation keeps many of next to no score


class LabelFiles(EvaluationObserver):
    """One YOLO label file for each image in which something was found."""

    def __init__(self, folder: Path, *, with_scores: bool) -> None:
        self.folder = folder
        self.with_scores = with_scores
        folder.mkdir(exist_ok=True)

    def on_image(self, index: int, path: Path, detections: Detections, labels: Labels) -> None:
        write_label_file(self.folder / f"{path.stem}.txt", detections, with_scores=self.with_scores)


class HybridLabelFiles(EvaluationObserver):
    """Label files of the true objects and, where there are none of them, what was found: for labelling the rest.

    The labels enter suppression as certain detections. The figures of the evaluation are not touched by them.
    """

    def __init__(self, folder: Path, nms: NmsSettings, *, with_scores: bool) -> None:
        self.folder = folder
        self.nms = nms
        self.with_scores = with_scores
        folder.mkdir(exist_ok=True)

    def on_batch(self, number: int, batch: Batch, predictions: Predictions, detections: Sequence[Detections]) -> None:
        known = _with_labels(predictions, batch)
        for place, found in enumerate(non_max_suppression(known, self.nms, batch.size)):
            letterbox = batch.letterboxes[place]
            if letterbox is not None:
                path = self.folder / f"{batch.paths[place].stem}.txt"
                write_label_file(path, found.cpu().to_source(letterbox), with_scores=self.with_scores)


def _with_labels(predictions: Predictions, batch: Batch) -> Predictions:
    """The predictions (B, K) with the batch's labels in front (B, L + K), certain of their class."""
    images, _, class_count = predictions.class_probs.shape
    most = int(torch.bincount(batch.image_index, minlength=images).max()) if len(batch.classes) else 0
    boxes = predictions.boxes.new_zeros(images, most, 4)
    objectness = predictions.objectness.new_zeros(images, most)
    class_probs = predictions.class_probs.new_zeros(images, most, class_count)
    for place in range(images):
        own = batch.image_index == place
        count = int(own.sum())
        boxes[place, :count] = batch.boxes[own].to(boxes.dtype)
        objectness[place, :count] = 1
        class_probs[place, torch.arange(count, device=boxes.device), batch.classes[own]] = 1
    added = (boxes, objectness, class_probs)
    return Predictions(*(torch.cat(pair, dim=1) for pair in zip(added, predictions, strict=True)))


class CocoResults(EvaluationObserver):
    """All detections, for a COCO results file, with the ids of the data set's annotation file if it has one."""

    def __init__(self, annotations: ImageAnnotations | None) -> None:
        self.annotations = annotations
        self.entries: list[dict[str, object]] = []

    def on_image(self, index: int, path: Path, detections: Detections, labels: Labels) -> None:
        if self.annotations is None:
            self.entries += coco_results(detections, image_id(path))
        elif self.annotations.image_ids[index] >= 0:
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
        sure = [found.above(DRAWN_SCORE) for found in detections]
        write_image(self.folder / f"val_batch{number}_labels.jpg", batch_mosaic(batch, self.names))
        write_image(self.folder / f"val_batch{number}_pred.jpg", batch_mosaic(batch, self.names, sure))


class SampleImages(EvaluationObserver):
    """``sampleN.jpg``: images spread over the data set, what is there on the left and what was found on the right."""

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
        if scale < 1:
            size = (max(round(labels.size.width * scale), 1), max(round(labels.size.height * scale), 1))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        true = draw_labels(image, labels.scaled(scale), self.names)
        found = draw_detections(image, detections.above(DRAWN_SCORE).scaled(scale), self.names)
        write_image(self.folder / f"sample{self.number_of[index]}.jpg", image_grid([true, found], columns=2, gap=6))


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

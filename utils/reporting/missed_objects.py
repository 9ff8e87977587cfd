"""Images of objects that were missed: those missed worst, and those that one of two models found alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.dataset.detection_dataset import DetectionDataset
from utils.dataset.image_files import ImageReadError
from utils.evaluation.coco_average_precision import COCO_RANGES, scores_of_found
from utils.evaluation.error_analysis import IOU, SURE, ErrorAnalysis
from utils.evaluation.evaluation_report import EvaluationReport
from utils.evaluation.match_detections import match_detections
from utils.geometry.boxes import clip_boxes, pairwise_iou, xyxy_to_cxcywh
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections, Labels
from utils.reporting.box_drawing import LegendEntry, MarkedBoxes, legend_strip, marked_labels
from utils.reporting.detection_files import write_image
from utils.reporting.image_grid import image_grid
from utils.reporting.labelled_images import (
    MISSED,
    RIGHT,
    VERDICT_STROKES,
    VERDICTS,
    WRONG,
    captioned_cut,
    in_common_strokes,
    marked_images,
    reduced,
)

COLUMNS = 8  # objects of each range of sizes
CELL = 180  # pixels
CONTEXT = 3.0  # the cut is so many times the object's longer side ...
SMALLEST_CUT = 48  # ... and at least so many pixels
COMPARED = 6  # images of the objects that one of two models found alone
COMPARED_SIDE = 900  # pixels; of larger images a reduced copy is drawn on


def write_missed_objects(
    path: Path, images: DetectionDataset, report: EvaluationReport, analysis: ErrorAnalysis
) -> None:
    """Rows of small, medium and large objects that no detection of 0.25 or more found, the worst first.

    Worst is an object that detections of its class overlap least, whatever their score; of equals, the largest in its
    range. Its frame, and those of detections of 0.25 or more near it, right or wrong, are in the strokes of verdicts.
    """
    truth = report.truth
    best = _best_overlaps(report, analysis.missed)
    cells: list[np.ndarray | None] = []
    for area in COCO_RANGES[1:]:
        sizes = truth.areas[analysis.missed]
        own = np.flatnonzero((sizes > area.low) & (sizes <= area.high))
        order = own[np.lexsort((-sizes[own], best[own].round(1)))]
        shown = [_cell(images, report, int(analysis.missed[place])) for place in order[:COLUMNS]]
        cells += [*shown, *[None] * (-len(shown) % COLUMNS)]
    if cells:
        grid = image_grid(cells, COLUMNS)
        entries = [LegendEntry(VERDICT_STROKES[kind], name) for kind, name in VERDICTS.items()]
        write_image(path, np.concatenate((grid, legend_strip(entries, grid.shape[1]))))


def _best_overlaps(report: EvaluationReport, missed: np.ndarray) -> np.ndarray:
    """Highest IoU (K,) of each missed object with a detection of its class."""
    truth, findings = report.truth, report.findings
    order = np.argsort(findings.images, kind="stable")
    images = findings.images[order]
    best = np.zeros(len(missed))
    for place, row in enumerate(missed):
        start, end = np.searchsorted(images, (truth.images[row], truth.images[row] + 1))
        near = order[start:end]
        near = near[findings.classes[near] == truth.classes[row]]
        if len(near):
            best[place] = pairwise_iou(truth.boxes[[row]], findings.boxes[near]).max()
    return best


def _cell(images: DetectionDataset, report: EvaluationReport, row: int) -> np.ndarray:
    truth = report.truth
    index = int(truth.images[row])
    try:
        image = images.source_image(index)
    except ImageReadError:  # gone since it was evaluated
        return np.full((CELL, CELL, 3), 255, dtype=np.uint8)
    height, width = image.shape[:2]
    box = clip_boxes(truth.boxes[row], height, width)  # an annotation file's can reach far beyond its image
    cx, cy, w, h = xyxy_to_cxcywh(box)
    side = math.ceil(max(CONTEXT * max(w, h), SMALLEST_CUT))
    left, top = math.floor(cx - side / 2), math.floor(cy - side / 2)
    cut = np.full((side, side, 3), 114, dtype=np.uint8)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    cut[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
    scale = CELL / side
    cut = cv2.resize(cut, (CELL, CELL), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    frames = [(found - (left, top, left, top), VERDICT_STROKES[verdict]) for found, verdict in _verdicts(report, index)]
    frames.append((box - (left, top, left, top), VERDICT_STROKES[MISSED]))
    name = report.names[truth.classes[row]] if truth.classes[row] < len(report.names) else "no class of the model"
    caption = f"{name}, {math.sqrt(truth.areas[row]):.0f} px"
    return captioned_cut(cut, [(frame * scale, stroke) for frame, stroke in frames], caption)


def _verdicts(report: EvaluationReport, index: int) -> Iterator[tuple[np.ndarray, int]]:
    """Boxes (4,) of the detections of 0.25 or more in an image, and whether each is right or wrong."""
    truth, findings = report.truth, report.findings
    there = (truth.images == index) & ~truth.crowd
    near = np.flatnonzero((findings.images == index) & (findings.scores >= SURE))
    near = near[np.argsort(-findings.scores[near], kind="stable")]
    far = FrameSize(*(int(np.ceil(truth.boxes[there, side::2].max(initial=1))) for side in (1, 0)))
    labels = Labels(truth.boxes[there].astype(np.float32), truth.classes[there], (None,) * int(there.sum()), far)
    found = Detections(
        torch.from_numpy(findings.boxes[near]).float(),
        torch.from_numpy(findings.scores[near]).float(),
        torch.from_numpy(findings.classes[near]),
        far,
    )
    hits = match_detections(found, labels)[:, 0]
    yield from zip(findings.boxes[near], np.where(hits, RIGHT, WRONG).tolist(), strict=True)


def write_found_alone(folder: Path, images: DetectionDataset, first: EvaluationReport, second: EvaluationReport) -> int:
    """Images in which two models differ most, each beside itself, into the folder ``folder``; how many were written.

    On the left are the objects that only ``first`` found, at IoU 0.5 by a detection of 0.25 or more, on the right those
    that only ``second`` found. Both reports are of the same images. Without objects, or without hotcoco, there is none.
    """
    if first.coco_figures.evaluator is None or second.coco_figures.evaluator is None:
        return 0
    truth = first.truth
    found = [scores_of_found(report.coco_figures, IOU) >= SURE for report in (first, second)]
    own = ~truth.crowd & (truth.classes < len(first.names))
    alone = [own & found[0] & ~found[1], own & found[1] & ~found[0]]
    counts = np.bincount(truth.images[alone[0] | alone[1]], minlength=truth.image_count)
    written = 0
    for index in np.argsort(-counts, kind="stable")[:COMPARED].tolist():
        try:
            image = images.source_image(index) if counts[index] else None
        except ImageReadError:  # gone since it was evaluated
            image = None
        if image is None:
            continue
        scale = min(1.0, COMPARED_SIDE / max(image.shape[:2]))
        marks = [
            _marked_objects(first, np.flatnonzero(rows & (truth.images == index)), FrameSize(*image.shape[:2]), scale)
            for rows in alone
        ]
        folder.mkdir(exist_ok=True)
        drawn = marked_images([reduced(image, scale)] * 2, in_common_strokes(marks), columns=2, gap=6)
        write_image(folder / f"{written}.jpg", drawn)
        written += 1
    return written


def _marked_objects(report: EvaluationReport, rows: np.ndarray, size: FrameSize, scale: float) -> MarkedBoxes:
    """These rows of the truth, in an image of ``size`` that is reduced by ``scale``."""
    boxes = clip_boxes(report.truth.boxes[rows], *size).astype(np.float32)
    labels = Labels(boxes, report.truth.classes[rows], (None,) * len(rows), size)
    return marked_labels(labels.scaled(scale), report.names)

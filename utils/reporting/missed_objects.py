"""An image of the objects that were missed worst, cut out with their surroundings."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from utils.dataset.detection_dataset import DetectionDataset
from utils.dataset.image_files import ImageReadError
from utils.evaluation.coco_average_precision import COCO_RANGES
from utils.evaluation.error_analysis import SURE, ErrorAnalysis
from utils.evaluation.evaluation_report import EvaluationReport
from utils.reporting.box_drawing import captioned_cut
from utils.reporting.detection_files import write_image

COLUMNS = 8  # objects of each range of sizes
CELL = 180  # pixels
CONTEXT = 3.0  # the cut is so many times the object's longer side ...
SMALLEST_CUT = 48  # ... and at least so many pixels


def write_missed_objects(
    path: Path, images: DetectionDataset, report: EvaluationReport, analysis: ErrorAnalysis
) -> None:
    """Rows of small, medium and large objects that no detection of 0.25 or more found, the worst first.

    Worst is an object that detections of its class overlap least, whatever their score; of equals, the largest in its
    range. The object's frame is white, detections of 0.25 or more near it are coloured.
    """
    truth = report.truth
    best = _best_overlaps(report, analysis.missed)
    rows = []
    for area in COCO_RANGES[1:]:
        sizes = truth.areas[analysis.missed]
        own = np.flatnonzero((sizes > area.low) & (sizes <= area.high))
        order = own[np.lexsort((-sizes[own], best[own].round(1)))]
        cells = [_cell(images, report, int(analysis.missed[place])) for place in order[:COLUMNS]]
        if cells:
            cells += [np.full_like(cells[0], 255)] * (COLUMNS - len(cells))
            rows.append(np.concatenate(cells, axis=1))
    if rows:
        write_image(path, np.concatenate(rows))


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
            best[place] = _overlaps(truth.boxes[row], findings.boxes[near]).max()
    return best


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (N,) of a box (4,) with others (N, 4), x y w h."""
    corner = np.maximum(box[:2], others[:, :2])
    shared = (np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:]) - corner).clip(min=0).prod(axis=1)
    union = box[2:].prod() + others[:, 2:].prod(axis=1) - shared
    overlaps: np.ndarray = shared / np.maximum(union, 1e-9)
    return overlaps


def _cell(images: DetectionDataset, report: EvaluationReport, row: int) -> np.ndarray:
    truth, findings = report.truth, report.findings
    index = int(truth.images[row])
    try:
        image = images.source_image(index)
    except ImageReadError:  # gone since it was evaluated
        return np.full((CELL, CELL, 3), 255, dtype=np.uint8)
    x, y, w, h = truth.boxes[row]
    side = math.ceil(max(CONTEXT * max(w, h), SMALLEST_CUT))
    left, top = math.floor(x + w / 2 - side / 2), math.floor(y + h / 2 - side / 2)
    cut = np.full((side, side, 3), 114, dtype=np.uint8)
    height, width = image.shape[:2]
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    cut[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
    scale = CELL / side
    cut = cv2.resize(cut, (CELL, CELL), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    near = (findings.images == index) & (findings.scores >= SURE)
    frames = [(box, int(kind)) for box, kind in zip(findings.boxes[near], findings.classes[near], strict=True)]
    moved = [((box - (left, top, 0, 0)) * scale, kind) for box, kind in frames]
    name = report.names[truth.classes[row]] if truth.classes[row] < len(report.names) else "no class of the model"
    caption = f"{name}, {math.sqrt(truth.areas[row]):.0f} px"
    return captioned_cut(cut, (truth.boxes[row] - (left, top, 0, 0)) * scale, moved, caption)

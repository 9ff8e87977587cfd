"""COCO's twelve figures, whole and per class, for any data set.

The engine is ``hotcoco``; ``pycocotools``, which gives the same numbers more slowly, serves where it is missing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from utils.dataset.coco_annotations import CocoTruth
from utils.evaluation.area_ranges import COCO_RANGES, AreaRange
from utils.geometry.boxes import xyxy_to_xywh
from utils.geometry.records import Detections, Labels

ENGINES = ("hotcoco", "pycocotools")


class CocoSummary(NamedTuple):
    """COCO's figures, 0-1; -1 where no object of that size exists.

    AP is the mean over IoU 0.50:0.95 and classes. S, M, L: area in source pixels below 32^2, 96^2, and above.
    """

    AP: float
    AP50: float
    AP75: float
    AP_S: float
    AP_M: float
    AP_L: float
    AR1: float
    AR10: float
    AR100: float
    AR_S: float
    AR_M: float
    AR_L: float


class AreaFigures(NamedTuple):
    """Figures of the objects of one range of areas, means over classes, 0-1; -1 where there are none."""

    name: str
    low: float  # square source pixels
    high: float
    objects: int
    AP: float
    AP50: float
    AR100: float


@dataclass(frozen=True, slots=True)
class CocoFindings:
    """Detections in a data set as columns."""

    images: np.ndarray  # (N,) int64
    classes: np.ndarray  # (N,) int64
    boxes: np.ndarray  # (N, 4) float64 x y w h, source pixels
    scores: np.ndarray  # (N,) float64 0-1

    def above(self, score: float) -> CocoFindings:
        """Those of at least this score."""
        sure = self.scores >= score
        return CocoFindings(self.images[sure], self.classes[sure], self.boxes[sure], self.scores[sure])


@dataclass(frozen=True, slots=True)
class CocoFigures:
    """The summary, that of every class with ground truth, by class index, and the figures by area."""

    summary: CocoSummary
    per_class: dict[int, CocoSummary]
    by_area: tuple[AreaFigures, ...]


def truth_from_labels(images: Sequence[Labels]) -> CocoTruth:
    """Ground truth from box labels in source pixels: the area is width x height, repeated rows count once."""
    rows = []
    for image, labels in enumerate(images):
        boxes = xyxy_to_xywh(labels.boxes.astype(np.float64)).reshape(-1, 4)
        columns = np.column_stack((np.full(len(labels), image), labels.classes, boxes))
        rows.append(np.unique(columns, axis=0))
    table = np.concatenate(rows) if rows else np.zeros((0, 6))
    return CocoTruth(
        image_count=len(images),
        images=table[:, 0].astype(np.int64),
        classes=table[:, 1].astype(np.int64),
        boxes=table[:, 2:],
        areas=table[:, 4] * table[:, 5],
        crowd=np.zeros(len(table), dtype=bool),
    )


def findings_from_detections(images: Sequence[Detections]) -> CocoFindings:
    """Columns from the detections of every image, in source pixels on the CPU."""
    counts = [len(found) for found in images]
    boxes = [found.boxes.numpy().astype(np.float64) for found in images]
    return CocoFindings(
        images=np.repeat(np.arange(len(images)), counts),
        classes=np.concatenate([found.classes.numpy() for found in images] or [np.zeros(0, dtype=np.int64)]),
        boxes=xyxy_to_xywh(np.concatenate(boxes or [np.zeros((0, 4))])),
        scores=np.concatenate([found.scores.numpy().astype(np.float64) for found in images] or [np.zeros(0)]),
    )


def coco_figures(
    truth: CocoTruth, findings: CocoFindings, engine: str | None = None, areas: Sequence[AreaRange] = ()
) -> CocoFigures:
    """Evaluate with at most 100 detections per image and class, as COCO does.

    Args:
        truth: ground truth.
        findings: detections; those in classes without ground truth count nowhere.
        engine: one of :data:`ENGINES`; by default the first that is installed.
        areas: ranges to give figures for, besides COCO's own.
    """
    classes = np.unique(truth.classes)
    if not len(classes):
        none = tuple(AreaFigures(*one, 0, -1.0, -1.0, -1.0) for one in areas)
        return CocoFigures(CocoSummary(*[-1.0] * 12), {}, none)
    if engine is None:
        engine = next(name for name in ENGINES if importlib.util.find_spec(name) is not None)
    accumulate = _with_hotcoco if engine == "hotcoco" else _with_pycocotools
    precision, recall = accumulate(truth, findings, (*COCO_RANGES, *areas))
    per_class = {
        int(index): _summary(precision[:, :, [column]], recall[:, [column]]) for column, index in enumerate(classes)
    }
    counted = truth.areas[~truth.crowd]
    by_area = tuple(
        AreaFigures(
            *one,
            objects=int(((counted >= one.low) & (counted <= one.high)).sum()),
            AP=_mean(precision[..., place, 2]),
            AP50=_mean(precision[0, ..., place, 2]),
            AR100=_mean(recall[..., place, 2]),
        )
        for place, one in enumerate(areas, start=len(COCO_RANGES))
    )
    return CocoFigures(_summary(precision, recall), per_class, by_area)


def hotcoco_evaluator(truth: CocoTruth, findings: CocoFindings, areas: Sequence[AreaRange] = COCO_RANGES) -> Any:
    """A ``hotcoco.COCOeval`` that has evaluated; image ids and object ids count from 1 in the order of the columns."""
    import hotcoco  # here, as importing it takes time that a run without evaluation need not spend

    classes = np.unique(truth.classes)
    known = hotcoco.COCO.from_arrays(
        [{"id": image} for image in range(1, truth.image_count + 1)],
        [{"id": int(index), "name": str(index)} for index in classes],
        truth.images + 1,
        truth.classes,
        truth.boxes,
        ids=np.arange(1, len(truth.images) + 1),
        area=truth.areas,
        iscrowd=truth.crowd,
    )
    evaluator = hotcoco.COCOeval(known, known.load_res(_result_rows(findings, classes)), "bbox")
    if tuple(areas) != COCO_RANGES:
        evaluator.params.area_rng = [[one.low, one.high] for one in areas]
        evaluator.params.area_rng_lbl = [f"{place} {one.name}" for place, one in enumerate(areas)]
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator


def _summary(precision: np.ndarray, recall: np.ndarray) -> CocoSummary:
    """Summary of precision (10 IoU, 101 recalls, K, areas, 3 limits) and recall (10 IoU, K, areas, 3 limits).

    The first areas are all, small, medium, large; limits are 1, 10 and 100 detections per image and class.
    """
    return CocoSummary(
        AP=_mean(precision[..., 0, 2]),
        AP50=_mean(precision[0, ..., 0, 2]),
        AP75=_mean(precision[5, ..., 0, 2]),
        AP_S=_mean(precision[..., 1, 2]),
        AP_M=_mean(precision[..., 2, 2]),
        AP_L=_mean(precision[..., 3, 2]),
        AR1=_mean(recall[..., 0, 0]),
        AR10=_mean(recall[..., 0, 1]),
        AR100=_mean(recall[..., 0, 2]),
        AR_S=_mean(recall[..., 1, 2]),
        AR_M=_mean(recall[..., 2, 2]),
        AR_L=_mean(recall[..., 3, 2]),
    )


def _mean(cells: np.ndarray) -> float:
    """Mean of the cells that exist; COCO marks those of a class without objects with -1."""
    existing = cells[cells > -1]
    return float(existing.mean()) if existing.size else -1.0


def _with_hotcoco(
    truth: CocoTruth, findings: CocoFindings, areas: Sequence[AreaRange]
) -> tuple[np.ndarray, np.ndarray]:
    arrays = hotcoco_evaluator(truth, findings, areas).eval
    return arrays["precision"], arrays["recall"]


def _with_pycocotools(
    truth: CocoTruth, findings: CocoFindings, areas: Sequence[AreaRange]
) -> tuple[np.ndarray, np.ndarray]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    classes = np.unique(truth.classes)
    columns = (truth.images + 1, truth.classes, truth.boxes, truth.areas, truth.crowd)
    annotations = [
        {
            "id": i,
            "image_id": int(im),
            "category_id": int(c),
            "bbox": box.tolist(),
            "area": float(a),
            "iscrowd": int(cr),
        }
        for i, (im, c, box, a, cr) in enumerate(zip(*columns, strict=True), start=1)  # pycocotools takes id 0 for none
    ]
    rows = _result_rows(findings, classes)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        known = COCO()
        known.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(1, truth.image_count + 1)],
            "categories": [{"id": int(index), "name": str(index)} for index in classes],
            "annotations": annotations,
        }
        known.createIndex()
        found = known.loadRes(rows) if len(rows) else COCO()
        evaluator = COCOeval(known, found, "bbox")
        evaluator.params.areaRng = [[one.low, one.high] for one in areas]
        evaluator.params.areaRngLbl = [f"{place} {one.name}" for place, one in enumerate(areas)]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval["precision"], evaluator.eval["recall"]


def _result_rows(findings: CocoFindings, classes: np.ndarray) -> np.ndarray:
    """Rows (N', 7) ``image id, x, y, w, h, score, category`` of the detections whose class has ground truth."""
    rows = np.column_stack((findings.images + 1, findings.boxes, findings.scores, findings.classes))
    return rows[np.isin(findings.classes, classes)]

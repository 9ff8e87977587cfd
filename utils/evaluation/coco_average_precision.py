"""COCO's twelve figures, whole and per class, for any data set.

The engine is ``hotcoco``; ``pycocotools``, which gives the same numbers more slowly, serves where it is missing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from utils.dataset.coco_annotations import CocoTruth
from utils.geometry.boxes import box_area, xyxy_to_xywh
from utils.geometry.records import Detections, Labels
from utils.user_error import UsageError

ENGINES = ("hotcoco", "pycocotools")
WITHOUT_END = 1e5**2  # square pixels; what COCO writes for no upper limit


class AreaRange(NamedTuple):
    """Objects of ``low`` to ``high`` square pixels of the source image, both included, as COCO has it."""

    name: str
    low: float
    high: float


COCO_RANGES = (
    AreaRange("all", 0, WITHOUT_END),
    AreaRange("small", 0, 32**2),
    AreaRange("medium", 32**2, 96**2),
    AreaRange("large", 96**2, WITHOUT_END),
)
# Wang et al., "Tiny Object Detection in Aerial Images" (ICPR 2020): 2 to 8, 8 to 16, 16 to 32, 32 to 64 pixels;
# its evaluation leaves the outer ranges open.
AI_TOD = (
    AreaRange("very-tiny", 0, 8**2),
    AreaRange("tiny", 8**2, 16**2),
    AreaRange("small", 16**2, 32**2),
    AreaRange("medium", 32**2, WITHOUT_END),
)
PRESETS = {"ai-tod": AI_TOD}


def parse_area_ranges(texts: Sequence[str]) -> tuple[AreaRange, ...]:
    """Ranges out of words such as ``tiny:0-256`` (square pixels; ``huge:9216-`` has no end) and names of presets.

    Raises:
        UsageError: a word of another form, an empty range, or a name that occurs twice.
    """
    ranges: list[AreaRange] = []
    for text in texts:
        if text.lower() in PRESETS:
            ranges += PRESETS[text.lower()]
            continue
        match = re.fullmatch(r"([^:]+):(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)?", text)
        if match is None:
            presets = ", ".join(PRESETS)
            raise UsageError(f"--area-ranges {text}: write name:from-to in square pixels, or a preset ({presets})")
        one = AreaRange(match[1], float(match[2]), float(match[3]) if match[3] else WITHOUT_END)
        if one.low >= one.high:
            raise UsageError(f"--area-ranges {text}: ends where it begins, or before")
        ranges.append(one)
    names = [one.name for one in ranges]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--area-ranges {' '.join(texts)}: the name {twice} occurs twice")
    return tuple(ranges)


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


def existing_figures(row: Mapping[str, object]) -> dict[str, object]:
    """The row for a file: None for a figure of objects that do not exist."""
    return {key: None if isinstance(value, int | float) and not value >= 0 else value for key, value in row.items()}


NO_FIGURES = CocoSummary(*[-1.0] * 12)  # where there is no ground truth


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
    boxes: np.ndarray  # (N, 4) float64 xyxy, source pixels
    scores: np.ndarray  # (N,) float64 0-1


@dataclass(frozen=True, slots=True)
class CocoFigures:
    """What one evaluation gives, and what it was given."""

    summary: CocoSummary
    per_class: dict[int, CocoSummary]  # by class index, of every class with ground truth
    by_area: tuple[AreaFigures, ...]
    truth: CocoTruth = field(repr=False, compare=False)
    findings: CocoFindings = field(repr=False, compare=False)
    # The `hotcoco.COCOeval` that has evaluated; None with pycocotools and without ground truth.
    evaluator: Any = field(repr=False, compare=False)


def truth_from_labels(images: Sequence[Labels]) -> CocoTruth:
    """Ground truth from box labels in source pixels: the area is the box's, repeated rows count once."""
    rows = []
    for image, labels in enumerate(images):
        boxes = labels.boxes.astype(np.float64).reshape(-1, 4)
        columns = np.column_stack((np.full(len(labels), image), labels.classes, boxes))
        rows.append(np.unique(columns, axis=0))
    table = np.concatenate(rows) if rows else np.zeros((0, 6))
    return CocoTruth(
        image_count=len(images),
        images=table[:, 0].astype(np.int64),
        classes=table[:, 1].astype(np.int64),
        boxes=table[:, 2:],
        areas=box_area(table[:, 2:]),
        crowd=np.zeros(len(table), dtype=bool),
    )


def findings_from_detections(images: Sequence[Detections]) -> CocoFindings:
    """Columns from the detections of every image, in source pixels on the CPU."""
    counts = [len(found) for found in images]
    boxes = [found.boxes.numpy().astype(np.float64) for found in images]
    return CocoFindings(
        images=np.repeat(np.arange(len(images)), counts),
        classes=np.concatenate([found.classes.numpy() for found in images] or [np.zeros(0, dtype=np.int64)]),
        boxes=np.concatenate(boxes or [np.zeros((0, 4))]),
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
        return CocoFigures(NO_FIGURES, {}, none, truth, findings, evaluator=None)
    if engine is None:
        engine = next(name for name in ENGINES if importlib.util.find_spec(name) is not None)
    ranges = (*COCO_RANGES, *areas)
    evaluator = hotcoco_evaluator(truth, findings, ranges) if engine == "hotcoco" else None
    arrays = _pycocotools_arrays(truth, findings, ranges) if evaluator is None else evaluator.eval
    precision, recall = arrays["precision"], arrays["recall"]
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
    return CocoFigures(_summary(precision, recall), per_class, by_area, truth, findings, evaluator)


def hotcoco_evaluator(truth: CocoTruth, findings: CocoFindings, areas: Sequence[AreaRange] = COCO_RANGES) -> Any:
    """A ``hotcoco.COCOeval`` that has evaluated; image ids and object ids count from 1 in the order of the columns."""
    import hotcoco  # here, as importing it takes time that a run without evaluation need not spend

    classes = np.unique(truth.classes)
    known = hotcoco.COCO.from_arrays(
        [{"id": image} for image in range(1, truth.image_count + 1)],
        [{"id": int(index), "name": str(index)} for index in classes],
        truth.images + 1,
        truth.classes,
        xyxy_to_xywh(truth.boxes),
        ids=np.arange(1, len(truth.images) + 1),
        area=truth.areas,
        iscrowd=truth.crowd,
    )
    evaluator = hotcoco.COCOeval(known, known.load_res(_result_rows(findings, classes)), "bbox")
    _evaluate(evaluator, areas)
    evaluator.accumulate()
    return evaluator


def evaluator_of_area(evaluator: Any, area: AreaRange) -> Any:
    """The data of a ``hotcoco.COCOeval`` evaluated in one range alone, the only way it analyses errors within one."""
    import hotcoco

    one = hotcoco.COCOeval(evaluator.coco_gt, evaluator.coco_dt, "bbox")
    _evaluate(one, (area,))
    return one


def _evaluate(evaluator: Any, areas: Sequence[AreaRange]) -> None:
    if tuple(areas) != COCO_RANGES:
        evaluator.params.area_rng = [[one.low, one.high] for one in areas]
        evaluator.params.area_rng_lbl = [f"{place} {one.name}" for place, one in enumerate(areas)]
    evaluator.evaluate()


def scores_of_found(figures: CocoFigures, iou: float) -> np.ndarray:
    """Score (M,) of the detection of its class that each object was found by at this IoU; -1 for one not found.

    ``iou`` is one of COCO's ten; hotcoco has to have evaluated.
    """
    findings = figures.findings
    scores = findings.scores[np.isin(findings.classes, figures.truth.classes)]  # of the rows that were evaluated
    diagnosis = figures.evaluator.image_diagnostics(iou_thr=iou)
    status, match = diagnosis["gt_status"], diagnosis["gt_match"]
    return np.array(
        [
            scores[match[number] - 1] if status.get(number) == "matched" else -1.0
            for number in range(1, len(figures.truth.classes) + 1)
        ]
    )


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


def _pycocotools_arrays(
    truth: CocoTruth, findings: CocoFindings, areas: Sequence[AreaRange]
) -> Mapping[str, np.ndarray]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    classes = np.unique(truth.classes)
    columns = (truth.images + 1, truth.classes, xyxy_to_xywh(truth.boxes), truth.areas, truth.crowd)
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
    arrays: dict[str, np.ndarray] = evaluator.eval
    return arrays


def _result_rows(findings: CocoFindings, classes: np.ndarray) -> np.ndarray:
    """Rows (N', 7) ``image id, x, y, w, h, score, category`` of the detections whose class has ground truth."""
    rows = np.column_stack((findings.images + 1, xyxy_to_xywh(findings.boxes), findings.scores, findings.classes))
    return rows[np.isin(findings.classes, classes)]

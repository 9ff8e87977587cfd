"""What goes wrong, by kind of error and by object size: where a user's next hour is best spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from utils.evaluation.coco_average_precision import (
    COCO_RANGES,
    AreaRange,
    CocoFigures,
    evaluator_of_area,
    existing_figures,
    scores_of_found,
)

# hotcoco's names of the kinds of Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors"
# (ECCV 2020), in the paper's order.
KINDS = {
    "Cls": "classification",  # right place, wrong class
    "Loc": "localization",  # right class, overlap from 0.1 to 0.5
    "Both": "both",  # wrong class and such an overlap
    "Dupe": "duplicate",  # the object was found by a better-scored box already
    "Bkg": "background",  # nothing is there
    "Miss": "missed",  # an object that no detection comes near
}
IOU = 0.5
SURE = 0.25  # score from which a detection would be shown to a user
SMALLEST_SIDE, SIZE_STEPS_PER_OCTAVE = 2.0, 2


class ErrorKind(NamedTuple):
    """One kind of error among the objects of a range of sizes."""

    kind: str
    errors: int
    ap50_lost: float  # how much higher AP50 would be if these errors were mended, 0-1


@dataclass(frozen=True, slots=True)
class SizeErrors:
    """The errors of one range of object sizes."""

    area: AreaRange
    objects: int
    AP50: float  # -1 without objects
    kinds: tuple[ErrorKind, ...]


@dataclass(frozen=True, slots=True)
class RecallBySize:
    """Share of the objects found, over bins of the square root of their area."""

    sides: np.ndarray  # (B + 1,) borders of the bins, source pixels
    objects: np.ndarray  # (B,) int64
    found: np.ndarray  # (B,) int64, at IoU 0.5 by a detection of any score
    found_surely: np.ndarray  # (B,) int64, by one of at least ``sure``
    sure: float = SURE


@dataclass(frozen=True, slots=True)
class ErrorAnalysis:
    """Errors by size, recall by size, and which objects were missed."""

    by_size: tuple[SizeErrors, ...]
    recall: RecallBySize
    missed: np.ndarray  # rows of the truth that no detection of at least ``SURE`` found

    def as_dict(self) -> dict[str, object]:
        """Plain values for ``metrics.json``."""
        return {
            "errors": [
                existing_figures({"area": size.area.name, "objects": size.objects, "AP50": size.AP50})
                | {one.kind: {"count": one.errors, "ap50_lost": one.ap50_lost} for one in size.kinds}
                for size in self.by_size
            ],
            "recall_by_size": {
                "side_px": [round(float(side), 2) for side in self.recall.sides],
                "objects": self.recall.objects.tolist(),
                "found": self.recall.found.tolist(),
                f"found_at_{self.recall.sure}": self.recall.found_surely.tolist(),
            },
        }


def analyse_errors(figures: CocoFigures) -> ErrorAnalysis | None:
    """Errors at IoU 0.5 in each of COCO's ranges of sizes; None for a data set without objects, or without hotcoco."""
    if figures.evaluator is None:
        return None
    truth = figures.truth
    by_size = tuple(_errors_of(figures, area) for area in COCO_RANGES)
    scores, counted = scores_of_found(figures, IOU), ~truth.crowd
    # The matching goes by score: what finds an object surely finds it whatever lower scores there are.
    found, found_surely = scores >= 0, scores >= SURE
    recall = _recall_by_size(np.sqrt(truth.areas[counted]), found[counted], found_surely[counted])
    return ErrorAnalysis(by_size, recall, np.flatnonzero(counted & ~found_surely))


def _errors_of(figures: CocoFigures, area: AreaRange) -> SizeErrors:
    counted = figures.truth.areas[~figures.truth.crowd]
    objects = int(((counted >= area.low) & (counted <= area.high)).sum())
    if not objects:
        return SizeErrors(area, 0, -1.0, ())
    whole = area is COCO_RANGES[0]
    evaluator = figures.evaluator if whole else evaluator_of_area(figures.evaluator, area)
    errors = evaluator.tide_errors(pos_thr=IOU)
    kinds = tuple(
        ErrorKind(name, int(errors["counts"][key]), float(errors["delta_ap"][key])) for key, name in KINDS.items()
    )
    return SizeErrors(area, objects, float(errors["ap_base"]), kinds)


def _recall_by_size(sides: np.ndarray, found: np.ndarray, found_surely: np.ndarray) -> RecallBySize:
    largest = max(float(sides.max()), SMALLEST_SIDE * 2) if len(sides) else SMALLEST_SIDE * 2
    steps = int(np.ceil(np.log2(largest / SMALLEST_SIDE) * SIZE_STEPS_PER_OCTAVE)) + 1
    borders = SMALLEST_SIDE * 2.0 ** (np.arange(steps + 1) / SIZE_STEPS_PER_OCTAVE)
    borders[0] = 0
    place = np.clip(np.searchsorted(borders, sides, side="right") - 1, 0, steps - 1)
    return RecallBySize(
        sides=borders,
        objects=np.bincount(place, minlength=steps),
        found=np.bincount(place[found], minlength=steps),
        found_surely=np.bincount(place[found_surely], minlength=steps),
    )


def advice(analysis: ErrorAnalysis) -> list[str]:
    """Sentences on what the errors suggest to do, the costliest first."""
    whole = analysis.by_size[0]
    said = []
    for one in sorted(whole.kinds, key=lambda kind: -kind.ap50_lost):
        if one.ap50_lost >= WORTH_SAYING:
            said.append(f"{one.kind} errors cost {one.ap50_lost:.3f} AP50 ({one.errors} of them): {REMEDIES[one.kind]}")
    small = next((size for size in analysis.by_size if size.area.name == "small" and size.objects), None)
    if small is not None and whole.AP50 > 0 and small.AP50 < 0.6 * whole.AP50:
        share = small.objects / whole.objects
        said.append(
            f"small objects ({share:.0%} of all) reach AP50 {small.AP50:.3f} against {whole.AP50:.3f} over all sizes: "
            "try a larger --imgsz, --slice, or a model for them (train.py --cfg yolov5n-small.yaml)"
        )
    return said


WORTH_SAYING = 0.02  # AP50
REMEDIES = {
    "classification": "see the confusion matrix; merge or relabel classes that are mixed up, add images of both",
    "localization": "check how tightly the labels are drawn; train longer or at a larger --imgsz",
    "both": "these are mostly chance overlaps; mend the other kinds first",
    "duplicate": "lower --iou-thres",
    "background": "add images without objects, and check whether what was found is missing in the labels",
    "missed": "add examples like the missed objects; for small ones raise --imgsz or use --slice",
}

"""Errors by kind and size, recall by size, worked by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import hotcoco
import numpy as np
import pytest
from hotcoco import COCO, COCOeval

from tests.evaluation.small_cases import detections_of, labels_of
from tests.evaluation.test_coco_average_precision import random_set
from utils.evaluation.coco_average_precision import (
    COCO_RANGES,
    AreaRange,
    CocoFindings,
    coco_figures,
    findings_from_detections,
    hotcoco_evaluator,
    truth_from_labels,
)
from utils.evaluation.error_analysis import KINDS, REMEDIES, SURE, ErrorAnalysis, advice, analyse_errors


def analysed() -> ErrorAnalysis:
    """One image with one error of each kind, each beside objects that are found."""
    truth = truth_from_labels(
        [
            labels_of(
                [0, 0, 0, 20, 20],  # found, and found again
                [0, 40, 0, 60, 20],  # taken for class 1
                [0, 80, 0, 100, 20],  # found with an IoU of 1/3
                [1, 120, 0, 140, 20],  # missed
                [1, 0, 100, 50, 150],  # found; medium
            )
        ]
    )
    found = detections_of(
        [0, 0.95, 0, 0, 20, 20],
        [1, 0.9, 0, 100, 50, 150],
        [0, 0.85, 0, 1, 20, 21],
        [1, 0.8, 40, 0, 60, 20],
        [0, 0.7, 90, 0, 110, 20],
        [0, 0.6, 200, 150, 220, 170],
    )
    analysis = analyse_errors(coco_figures(truth, findings_from_detections([found])))
    assert analysis is not None
    return analysis


def test_one_error_of_each_kind() -> None:
    whole, small, medium, large = analysed().by_size
    counts = {one.kind: one.errors for one in whole.kinds}
    assert counts == {
        "classification": 1,
        "localization": 1,
        "both": 0,
        "duplicate": 1,
        "background": 1,
        "missed": 1,
    }
    assert (whole.objects, small.objects, medium.objects, large.objects) == (5, 4, 1, 0)
    assert {one.errors for one in medium.kinds} == {0} and pytest.approx(1) == medium.AP50
    assert large.kinds == () and large.AP50 == -1
    assert {one.kind: one.errors for one in small.kinds}["missed"] == 1


def test_recall_by_size_and_what_was_missed() -> None:
    analysis = analysed()
    # The truth's rows are sorted by class, then by place: of four 20 px objects only the first is found.
    assert analysis.missed.tolist() == [1, 2, 4]
    recall = analysis.recall
    assert recall.objects.sum() == 5 and recall.found.sum() == 2
    place = np.searchsorted(recall.sides, 20, side="right") - 1
    assert (recall.objects[place], recall.found[place], recall.found_surely[place]) == (4, 1, 1)


def test_a_low_score_finds_but_not_surely() -> None:
    truth = truth_from_labels([labels_of([0, 0, 0, 20, 20])])
    analysis = analyse_errors(coco_figures(truth, findings_from_detections([detections_of([0, 0.1, 0, 0, 20, 20])])))
    assert analysis is not None
    assert (analysis.recall.found.sum(), analysis.recall.found_surely.sum(), len(analysis.missed)) == (1, 0, 1)


def test_recall_is_that_of_the_evaluation() -> None:
    truth, findings = random_set(3)
    analysis = analyse_errors(coco_figures(truth, findings))
    assert analysis is not None
    matched = 0
    for one in hotcoco_evaluator(truth, findings).eval_imgs:
        if one is not None and list(one["aRng"]) == [COCO_RANGES[0].low, COCO_RANGES[0].high]:
            matched += int(np.asarray(one["gtMatched"])[0].sum())
    assert analysis.recall.found.sum() == matched
    assert pytest.approx(coco_figures(truth, findings).summary.AP50, abs=1e-9) == analysis.by_size[0].AP50


@pytest.mark.parametrize("seed", range(5))
def test_the_one_evaluation_gives_what_many_would(seed: int) -> None:
    """Errors of each range and what was surely found, each against an evaluation of its own."""
    truth, findings = random_set(seed)
    custom = AreaRange("custom", 100, 2000)
    analysis = analyse_errors(coco_figures(truth, findings, areas=(custom,)))
    assert analysis is not None
    for area, errors in zip(COCO_RANGES, analysis.by_size, strict=True):
        alone = hotcoco_evaluator(truth, findings, (area,)).tide_errors(pos_thr=0.5)
        if errors.objects:
            assert alone["ap_base"] == errors.AP50
            assert [one.errors for one in errors.kinds] == [alone["counts"][key] for key in KINDS]
            assert [one.ap50_lost for one in errors.kinds] == [alone["delta_ap"][key] for key in KINDS]
    sure = findings.scores >= SURE
    columns = (findings.images, findings.classes, findings.boxes, findings.scores)
    status = hotcoco_evaluator(truth, CocoFindings(*(column[sure] for column in columns))).image_diagnostics(
        iou_thr=0.5
    )["gt_status"]
    missed = [place for place in range(len(truth.classes)) if status.get(place + 1) != "matched"]
    assert analysis.missed.tolist() == missed


def test_how_often_the_engine_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data are handed over once and evaluated once in all ranges; error analysis adds each smaller range alone."""
    done: list[str] = []

    class Counting:
        def __init__(self, *data: Any) -> None:
            self.real = COCOeval(*data)

        def __getattr__(self, name: str) -> Any:
            if name in ("evaluate", "accumulate"):
                done.append(name)
            return getattr(self.real, name)

    def from_arrays(*columns: Any, **further: Any) -> Any:
        done.append("data")
        return COCO.from_arrays(*columns, **further)

    monkeypatch.setattr(hotcoco, "COCOeval", Counting)
    monkeypatch.setattr(hotcoco, "COCO", SimpleNamespace(from_arrays=from_arrays))
    truth, findings = random_set(0)
    figures = coco_figures(truth, findings, "hotcoco", (AreaRange("custom", 100, 2000),))
    assert done == ["data", "evaluate", "accumulate"]
    analysis = analyse_errors(figures)
    assert analysis is not None and all(size.objects for size in analysis.by_size)
    assert done[3:] == ["evaluate"] * 3


def test_without_hotcoco_there_is_no_analysis() -> None:
    assert analyse_errors(coco_figures(*random_set(0), engine="pycocotools")) is None


def test_advice_names_the_costliest_first() -> None:
    said = advice(analysed())
    costs = [float(sentence.split("cost ")[1].split()[0]) for sentence in said if " cost " in sentence]
    assert costs == sorted(costs, reverse=True) and len(costs) >= 2
    assert set(REMEDIES) == {one.kind for one in analysed().by_size[0].kinds}


def test_nothing_there_is_nothing_to_analyse() -> None:
    nothing = findings_from_detections([detections_of()])
    assert analyse_errors(coco_figures(truth_from_labels([labels_of()]), nothing)) is None
    all_missed = analyse_errors(coco_figures(truth_from_labels([labels_of([0, 0, 0, 20, 20])]), nothing))
    assert all_missed is not None and all_missed.missed.tolist() == [0]

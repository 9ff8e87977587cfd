"""Errors by kind and size, recall by size, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.small_cases import detections_of, labels_of
from tests.evaluation.test_coco_average_precision import random_set
from utils.evaluation.area_ranges import COCO_RANGES
from utils.evaluation.coco_average_precision import (
    coco_figures,
    findings_from_detections,
    hotcoco_evaluator,
    truth_from_labels,
)
from utils.evaluation.error_analysis import REMEDIES, ErrorAnalysis, advice, analyse_errors


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
    analysis = analyse_errors(truth, findings_from_detections([found]))
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
    analysis = analyse_errors(truth, findings_from_detections([detections_of([0, 0.1, 0, 0, 20, 20])]))
    assert analysis is not None
    assert (analysis.recall.found.sum(), analysis.recall.found_surely.sum(), len(analysis.missed)) == (1, 0, 1)


def test_recall_is_that_of_the_evaluation() -> None:
    truth, findings = random_set(3)
    analysis = analyse_errors(truth, findings)
    assert analysis is not None
    matched = 0
    for one in hotcoco_evaluator(truth, findings).eval_imgs:
        if one is not None and list(one["aRng"]) == [COCO_RANGES[0].low, COCO_RANGES[0].high]:
            matched += int(np.asarray(one["gtMatched"])[0].sum())
    assert analysis.recall.found.sum() == matched
    assert pytest.approx(coco_figures(truth, findings).summary.AP50, abs=1e-9) == analysis.by_size[0].AP50


def test_advice_names_the_costliest_first() -> None:
    said = advice(analysed())
    costs = [float(sentence.split("cost ")[1].split()[0]) for sentence in said if " cost " in sentence]
    assert costs == sorted(costs, reverse=True) and len(costs) >= 2
    assert set(REMEDIES) == {one.kind for one in analysed().by_size[0].kinds}


def test_nothing_there_is_nothing_to_analyse() -> None:
    assert analyse_errors(truth_from_labels([labels_of()]), findings_from_detections([detections_of()])) is None

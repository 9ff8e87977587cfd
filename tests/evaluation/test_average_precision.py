"""Precision, recall and AP worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from utils.evaluation.average_precision import PrecisionRecall, precision_recall


def figures(hits: list[bool], scores: list[float], classes: list[int], truth: list[int]) -> PrecisionRecall:
    correct = np.repeat(np.array(hits, dtype=bool).reshape(-1, 1), 10, axis=1)
    return precision_recall(correct, np.array(scores), np.array(classes, dtype=np.int64), np.array(truth))


def test_perfect_detections_have_the_area_that_the_integration_gives() -> None:
    result = figures([True] * 2, [0.9, 0.8], [0, 0], [0, 0])
    # Precision 1 up to recall 1, where the end point (1, 0) pulls the last sample to 0: half of 1/100 is lost.
    np.testing.assert_allclose(result.ap, 0.995)
    # F1 is 1 below 0.8; smoothing over 0.1 keeps it so up to 0.75.
    assert result.precision.tolist() == [1.0]
    assert result.recall.tolist() == [1.0]
    assert result.confidence[result.best] < 0.8


def test_a_false_positive_between_two_hits() -> None:
    result = figures([True, False, True], [0.9, 0.8, 0.7], [0] * 3, [0, 0])
    # Envelope: precision 1 up to recall 0.5, then 2/3 from there to 1 (linear between equal recalls).
    # Samples: 0.00 to 0.49 are 1 (50), from 0.50 on 2/3 with a fall to 0 at the very end. Where recall 0.5 repeats
    # (hit, then false positive), np.interp takes the later point: 2/3.
    samples = np.concatenate((np.full(50, 1.0), np.full(50, 2 / 3), [0.0]))
    np.testing.assert_allclose(result.ap[0, 0], np.trapezoid(samples, dx=0.01), atol=1e-9)
    assert result.recall.tolist() == [1.0]
    np.testing.assert_allclose(result.precision, [2 / 3])


def test_a_class_without_detections_counts_with_zero_and_one_without_objects_not_at_all() -> None:
    result = figures([True, False], [0.9, 0.8], [0, 7], [0, 3])
    assert result.classes.tolist() == [0, 3]
    assert result.objects.tolist() == [1, 1]
    np.testing.assert_allclose(result.ap.mean(axis=1), [0.995, 0.0])
    assert result.precision.tolist() == [1.0, 0.0]


def test_operating_points_worked_by_hand() -> None:
    result = figures([True, False, True, True], [0.9, 0.8, 0.7, 0.6], [0] * 4, [0, 0, 0])
    points = result.operating_points
    # Precision falls from 1 at 0.9 to 1/2 at 0.8: 0.9 at 0.88, where a third is found. Recall rises from 2/3 at 0.7 to
    # 1 at 0.6: 0.9 at 0.63. F1 is 6/7 up to 0.6, and its mean over a tenth of the axis stays so up to 0.55.
    assert points.precision_90 == pytest.approx(0.88, abs=0.0011)
    assert points.recall_90 == pytest.approx(0.63, abs=0.0011)
    assert points.best_f1 is not None and points.best_f1 < 0.6
    assert points.best_f1 == result.confidence[result.best]  # where the table's P and R are
    assert result.class_operating_points() == {0: points}


def test_operating_points_that_are_not_reached() -> None:
    result = figures([False, True, True], [0.9, 0.5, 0.4], [0, 0, 0], [0] * 20)
    assert result.operating_points.precision_90 is None  # above 0.9 precision is 1, as nothing is found there
    assert result.operating_points.recall_90 is None
    assert figures([False], [0.9], [0], [0]).operating_points == (None, None, None)
    assert figures([], [], [], []).operating_points == (None, None, None)


def test_the_order_of_images_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    hits, scores, classes = rng.random(60) < 0.5, rng.permutation(60) / 60, rng.integers(0, 3, 60)
    truth = np.repeat([0, 1, 2], 20)
    shuffle = rng.permutation(60)
    first = precision_recall(np.repeat(hits[:, None], 10, axis=1), scores, classes, truth)
    second = precision_recall(np.repeat(hits[shuffle, None], 10, axis=1), scores[shuffle], classes[shuffle], truth)
    np.testing.assert_array_equal(first.ap, second.ap)
    assert first.best == second.best


@pytest.mark.parametrize("truth", [[], [0, 1]])
def test_nothing_found(truth: list[int]) -> None:
    result = figures([], [], [], truth)
    assert result.ap.shape == (len(truth), 10)
    assert not result.ap.any()
    assert not result.precision.any()


def test_curves_fall_and_rise_as_they_should() -> None:
    result = figures([True, False, True, False], [0.9, 0.6, 0.4, 0.2], [0] * 4, [0, 0, 0])
    assert (np.diff(result.recall_curve[0]) <= 1e-12).all()
    at_half = np.searchsorted(result.confidence, 0.75)
    np.testing.assert_allclose(result.recall_curve[0, at_half], 1 / 3)
    assert (np.diff(result.precision_at_recall[0]) <= 1e-12).all()

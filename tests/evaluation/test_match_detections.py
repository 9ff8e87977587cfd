"""True positives and the confusion matrix worked by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.small_cases import detections_of, labels_of, random_scene
from utils.evaluation.match_detections import IOU_THRESHOLDS, ConfusionMatrix, largest_confusions, match_detections


def test_a_detection_is_right_up_to_its_overlap() -> None:
    # Intersection 80 x 100, union 100 x 100: IoU 0.8 passes 0.50 ... 0.80, the seventh threshold included.
    correct = match_detections(detections_of([0, 0.9, 0, 0, 80, 100]), labels_of([0, 0, 0, 100, 100]))
    assert correct.tolist() == [[True] * 7 + [False] * 3]


def test_the_class_has_to_agree() -> None:
    assert not match_detections(detections_of([1, 0.9, 0, 0, 100, 100]), labels_of([0, 0, 0, 100, 100])).any()


def test_the_best_scored_of_two_takes_the_object_where_both_overlap_enough() -> None:
    # The first overlaps by 0.6, the second by 1.0: the first wins up to 0.60, the second beyond.
    correct = match_detections(
        detections_of([0, 0.9, 0, 0, 61, 100], [0, 0.5, 0, 0, 100, 100]), labels_of([0, 0, 0, 100, 100])
    )
    assert correct[0].tolist() == [True] * 3 + [False] * 7
    assert correct[1].tolist() == [False] * 3 + [True] * 7


def test_a_detection_counts_for_the_object_it_overlaps_most() -> None:
    # Both objects overlap the detection (0.75 and 0.6); the second detection takes the one that is left.
    correct = match_detections(
        detections_of([0, 0.9, 0, 0, 80, 100], [0, 0.8, 0, 0, 48, 100]),
        labels_of([0, 0, 0, 60, 100], [0, 0, 0, 48, 100]),
    )
    assert correct[0].sum() == 6
    assert correct[1].all()


def test_labels_are_clipped_to_the_image() -> None:
    assert match_detections(detections_of([0, 0.9, 200, 0, 300, 50]), labels_of([0, 200, 0, 500, 50])).all()


def test_no_labels_or_no_detections() -> None:
    assert not match_detections(detections_of([0, 0.9, 0, 0, 9, 9]), labels_of()).any()
    assert match_detections(detections_of(), labels_of([0, 0, 0, 9, 9])).shape == (0, 10)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_never_more_hits_than_objects(seed: int) -> None:
    labels, detections = random_scene(np.random.default_rng(seed))
    correct = match_detections(detections, labels)
    assert correct.shape == (len(detections), len(IOU_THRESHOLDS))
    found = detections.classes.numpy()
    for index in range(3):
        hits = correct[found == index].sum(axis=0)
        assert (hits <= (labels.classes == index).sum()).all()
        # A pair that agrees at a strict threshold agrees at a loose one, so hits never rise with it.
        assert (np.diff(hits) <= 0).all()


def test_right_confused_missed_and_invented() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(
        detections_of(
            [0, 0.9, 0, 0, 50, 50],  # right
            [1, 0.8, 100, 0, 150, 50],  # a 0 taken for a 1
            [1, 0.7, 200, 100, 250, 150],  # invented
            [0, 0.2, 0, 100, 50, 150],  # not confident enough: its object is missed
        ),
        labels_of([0, 0, 0, 50, 50], [0, 100, 0, 150, 50], [1, 0, 100, 50, 150]),
    )
    assert matrix.counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_an_object_takes_the_detection_that_overlaps_it_most() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(
        detections_of([1, 0.9, 0, 0, 30, 50], [0, 0.5, 0, 0, 48, 50]),
        labels_of([0, 0, 0, 50, 50]),
    )
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_images_without_labels_or_without_detections() -> None:
    matrix = ConfusionMatrix(1)
    matrix.add(detections_of([0, 0.9, 0, 0, 30, 50]), labels_of())
    matrix.add(detections_of(), labels_of([0, 0, 0, 30, 50], [0, 0, 0, 40, 50]))
    assert matrix.counts.tolist() == [[0, 1], [2, 0]]


def test_the_largest_confusions_by_hand() -> None:
    # Columns are true: of 10 cats 6 are right, 3 are taken for dogs, 1 is missed; of 4 dogs 1 is a cat, 3 are cows; of
    # 20 cows 3 are dogs. What is invented (the last column) is no confusion.
    counts = np.array([[6, 1, 0, 9], [3, 0, 3, 0], [0, 3, 17, 0], [1, 0, 0, 0]])
    names = ("cat", "dog", "cow")
    pairs = largest_confusions(counts, names)
    assert pairs == [  # of equals the larger share is first: 3 of 4, 3 of 10, 3 of 20
        ("dog", "cow", 3, 0.75),
        ("cat", "dog", 3, 0.3),
        ("cow", "dog", 3, 0.15),
        ("dog", "cat", 1, 0.25),
    ]
    assert largest_confusions(counts, names, most=2) == pairs[:2]
    assert largest_confusions(np.diag([3, 4, 0]), names[:2]) == []

"""Counts worked by hand."""

from __future__ import annotations

from tests.evaluation.small_cases import detections_of, labels_of
from utils.evaluation.confusion_matrix import ConfusionMatrix


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

"""What was right, wrong or missed, as it is marked on images."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.batches import batch_of
from tests.evaluation.small_cases import detections_of, labels_of
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Batch, Detections, Labels
from utils.reporting.box_drawing import PALETTE, Stroke
from utils.reporting.labelled_images import (
    MISSED,
    RIGHT,
    VERDICT_STROKES,
    WRONG,
    batch_mosaic,
    captioned_cut,
    marked_verdicts,
    verdict_counts,
)

NAMES = ("cat", "dog")


def scene() -> tuple[Labels, Detections]:
    """Three cats and a dog; found are one cat twice, one with too low a score, one as a dog, and the dog."""
    labels = labels_of((0, 0, 0, 40, 40), (0, 50, 0, 90, 40), (0, 100, 0, 140, 40), (1, 0, 100, 40, 140))
    found = detections_of(
        (0, 0.9, 0, 0, 40, 40),
        (1, 0.8, 0, 100, 40, 139),
        (1, 0.7, 100, 0, 140, 40),  # a cat taken for a dog
        (0, 0.6, 1, 0, 41, 40),  # the first cat again
        (0, 0.2, 50, 0, 90, 40),  # not shown
    )
    return labels, found


def test_detections_are_right_or_wrong_and_objects_missed() -> None:
    marks = marked_verdicts(*scene(), NAMES)
    assert list(zip(marks.kinds, marks.captions, strict=True)) == [
        (WRONG, "dog 0.70"),
        (WRONG, "cat 0.60"),
        (MISSED, "cat"),  # found with a low score
        (MISSED, "cat"),  # found as a dog
        (RIGHT, "cat 0.90"),
        (RIGHT, "dog 0.80"),
    ]
    assert marks.boxes[2:4].tolist() == [[50, 0, 90, 40], [100, 0, 140, 40]]
    assert verdict_counts(marks) == "2 right, 2 wrong, 2 missed"


def test_without_objects_all_is_wrong_and_without_detections_all_is_missed() -> None:
    labels, found = scene()
    assert verdict_counts(marked_verdicts(labels_of(), found, NAMES)) == "0 right, 4 wrong, 0 missed"
    assert verdict_counts(marked_verdicts(labels, detections_of(), NAMES)) == "0 right, 0 wrong, 4 missed"
    assert verdict_counts(marked_verdicts(labels_of(), detections_of(), NAMES)) == "0 right, 0 wrong, 0 missed"


def test_verdicts_differ_in_colour_and_in_line() -> None:
    for first, second in itertools.combinations(VERDICT_STROKES.values(), 2):
        assert first.color != second.color and first.dashes != second.dashes


def as_loaded(batch: Batch) -> Batch:
    return replace(batch, images=batch.images.byte())


def test_a_mosaic_of_predictions_counts_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, found = scene()
    batch = as_loaded(batch_of([labels.boxes, np.zeros((0, 4))], [labels.classes.tolist(), []], height=200, width=300))
    said: list[list[str]] = []

    def written(images: list[np.ndarray], marks: object, columns: int, titles: list[str]) -> np.ndarray:
        said.append(titles)
        return images[0]

    monkeypatch.setattr("utils.reporting.labelled_images.marked_images", written)
    batch_mosaic(batch, NAMES, [found, found])
    batch_mosaic(batch, NAMES)
    names = [path.name for path in batch.paths]
    assert said == [[f"2 right, 2 wrong, 2 missed: {names[0]}", f"0 right, 4 wrong, 0 missed: {names[1]}"], names]


def test_below_a_mosaic_there_is_one_legend() -> None:
    small = np.array([[20.0, 20, 26, 26], [40, 40, 46, 46]])
    batch = as_loaded(batch_of([small, small], [[0, 1], [1, 1]], height=100, width=200))
    labelled = batch_mosaic(batch, NAMES)
    assert labelled.shape == (100 + 19, 400, 3)  # letters of 9 px
    strip = labelled[100:]
    assert [bool((strip == color).all(axis=2).any()) for color in PALETTE[:3]] == [True, True, False]
    size = FrameSize(100, 200)
    predicted = batch_mosaic(batch, NAMES, [detections_of(size=size)] * 2)
    shown = [stroke.color for stroke in VERDICT_STROKES.values()]  # all three, though two do not occur
    assert all((predicted[100:] == color).all(axis=2).any() for color in shown)


def test_frames_of_a_cut_run_around_what_they_show() -> None:
    cut = captioned_cut(np.full((60, 60, 3), 90, np.uint8), [(np.array([20.0, 10, 30, 22]), Stroke((9, 8, 7)))], "cat")
    assert (cut[10:22, 20:30] == 90).all()
    assert (cut[9, 20:30] == (9, 8, 7)).all() and (cut[22, 20:30] == (9, 8, 7)).all()
    assert torch.from_numpy(cut[59, 1:10]).float().mean() > 90  # the thin frame of the cut

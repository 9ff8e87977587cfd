"""Paired bootstrap: figures of a draw are those of the data set drawn, intervals cover what they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.test_coco_average_precision import random_set
from utils.dataset.coco_annotations import CocoTruth
from utils.evaluation.coco_average_precision import CocoFindings, coco_figures
from utils.evaluation.model_comparison import (
    Difference,
    paired_differences,
    paired_draws,
    resampled_figures,
)


def test_the_first_row_is_the_data_set_itself() -> None:
    truth, findings = random_set(1)
    rng = np.random.default_rng(0)
    truth = replace(truth, crowd=rng.random(len(truth.crowd)) < 0.1)
    figures = resampled_figures(truth, findings, paired_draws(truth.image_count, 3))
    summary = coco_figures(truth, findings).summary
    assert figures.AP[0] == pytest.approx(summary.AP, abs=1e-9)
    assert figures.AP_S[0] == pytest.approx(summary.AP_S, abs=1e-9)


def test_a_draw_counts_an_image_as_often_as_it_occurs() -> None:
    truth, findings = random_set(2)
    # Distinct scores, so that the order of an image's copies cannot matter.
    findings = replace(findings, scores=np.random.default_rng(0).permutation(len(findings.scores)) / 1e4)
    draws = paired_draws(truth.image_count, 4, seed=3)
    figures = resampled_figures(truth, findings, draws)
    for row, times in enumerate(draws):
        copied = coco_figures(*_copied(truth, findings, times)).summary
        assert figures.AP[row] == pytest.approx(copied.AP, abs=1e-9)
        assert figures.AP_S[row] == pytest.approx(copied.AP_S, abs=1e-9)


def _copied(truth: CocoTruth, findings: CocoFindings, times: np.ndarray) -> tuple[CocoTruth, CocoFindings]:
    """The data set in which image i is there ``times[i]`` times."""
    drawn = np.repeat(np.arange(len(times)), times)
    objects = [np.flatnonzero(truth.images == old) for old in drawn]
    found = [np.flatnonzero(findings.images == old) for old in drawn]
    rows, hits = np.concatenate(objects), np.concatenate(found)
    new_truth = CocoTruth(
        image_count=len(drawn),
        images=np.repeat(np.arange(len(drawn)), [len(part) for part in objects]),
        classes=truth.classes[rows],
        boxes=truth.boxes[rows],
        areas=truth.areas[rows],
        crowd=truth.crowd[rows],
    )
    new_images = np.repeat(np.arange(len(drawn)), [len(part) for part in found])
    return new_truth, CocoFindings(new_images, findings.classes[hits], findings.boxes[hits], findings.scores[hits])


def test_no_objects_of_a_size_is_no_difference() -> None:
    truth, findings = random_set(4)
    large = replace(truth, areas=np.full(len(truth.areas), 1e5))
    figures = resampled_figures(large, findings, paired_draws(large.image_count, 5))
    assert np.isnan(figures.AP_S).all()
    differences = paired_differences(figures, figures)
    assert differences.AP_S is None
    assert Difference(0, 0, 0) == differences.AP and not differences.AP.is_sure


def synthetic_pair(seed: int, count: int) -> tuple[CocoTruth, CocoFindings, CocoFindings]:
    """Objects of 8 to 30 pixels that two models find with probabilities 0.7 and 0.8, fewer in hard images."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(3, count)
    images = np.repeat(np.arange(count), counts)
    place = np.concatenate([np.arange(count) for count in counts])
    sides = rng.uniform(8, 30, len(images))
    boxes = np.column_stack((place * 100.0, np.zeros(len(images)), place * 100.0 + sides, sides))
    truth = CocoTruth(
        count, images, np.zeros(len(images), dtype=np.int64), boxes, sides**2, np.zeros(len(images), dtype=bool)
    )
    ease = 1 - 0.5 * rng.random(count)[images]
    models = []
    for rate in (0.7, 0.8):
        hit = rng.random(len(images)) < rate * ease
        found = boxes[hit].copy()
        found += np.tile(rng.normal(0, 0.06, (len(found), 2)) * sides[hit, None], 2)
        false = np.repeat(np.arange(count), rng.poisson(1.0, count))
        left = rng.uniform(0, 400, len(false))
        inventions = np.column_stack((left, np.full(len(false), 200), left + 20, np.full(len(false), 220)))
        scores = np.concatenate((rng.beta(4, 2, len(found)), rng.beta(2, 4, len(false))))
        where = np.concatenate((images[hit], false))
        kinds = np.zeros(len(where), dtype=np.int64)
        models.append(CocoFindings(where, kinds, np.concatenate((found, inventions)), scores))
    return truth, models[0], models[1]


@pytest.mark.slow
def test_intervals_cover_a_known_difference() -> None:
    truth, first, second = synthetic_pair(seed=1, count=20_000)
    known = coco_figures(truth, second).summary.AP - coco_figures(truth, first).summary.AP
    assert 0.03 < known < 0.06
    covered, trials = 0, 200
    for trial in range(trials):
        truth, first, second = synthetic_pair(seed=100 + trial, count=100)
        draws = paired_draws(truth.image_count, 200, seed=trial)
        difference = paired_differences(*(resampled_figures(truth, one, draws) for one in (first, second))).AP
        assert difference is not None
        covered += difference.low <= known <= difference.high
    assert 0.88 <= covered / trials <= 0.99

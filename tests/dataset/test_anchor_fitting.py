"""Anchors against object sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.dataset.images import small_dataset
from utils.dataset.anchor_fitting import FitSettings, anchor_fit, object_sizes, refit_anchors


def test_fit_by_hand() -> None:
    sizes = np.array([[10.0, 10], [39, 39], [41, 10], [100, 9]])
    anchors = np.array([[10.0, 10], [20, 20]])
    # Ratios to (10, 10): 1, 3.9, 4.1, 10; to (20, 20): 2, 1.95, 2.05 (10 : 20 = 2), 5.
    fit = anchor_fit(sizes, anchors, 4.0)
    assert fit.best_possible_recall == 0.75
    assert fit.anchors_per_object == 5 / 4


def test_no_objects_fit_all() -> None:
    assert anchor_fit(np.zeros((0, 2)), np.ones((9, 2)), 4.0).best_possible_recall == 1


def test_object_sizes_are_those_at_the_training_size(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path, count=1)  # 40 x 72
    np.testing.assert_allclose(
        object_sizes(dataset.index, 144), [[0.4 * 144, 0.3 * 80], [0.4 * 144, 0.4 * 80]], rtol=1e-5
    )
    zoomed = object_sizes(dataset.index, 144, np.random.default_rng(0)) / object_sizes(dataset.index, 144)
    assert np.ptp(zoomed) < 1e-6  # one zoom per image
    assert 0.9 <= zoomed[0, 0] <= 1.1


def test_refit_finds_the_clusters_and_repeats() -> None:
    rng = np.random.default_rng(1)
    centres = np.array([[8.0, 6], [30, 60], [120, 50]])
    sizes = np.concatenate([centre * rng.uniform(0.95, 1.05, (60, 2)) for centre in centres])
    found = refit_anchors(sizes, 3, FitSettings(seed=4))
    np.testing.assert_allclose(found, centres, rtol=0.06)
    np.testing.assert_array_equal(found, refit_anchors(sizes, 3, FitSettings(seed=4)))
    assert found.dtype == np.float32


def test_refit_is_better_than_anchors_for_other_objects() -> None:
    sizes = np.random.default_rng(0).uniform(3, 12, (200, 2))
    large = np.array([[60.0, 60], [120, 90], [300, 300]])
    assert anchor_fit(sizes, large, 4.0).best_possible_recall == 0
    assert anchor_fit(sizes, refit_anchors(sizes, 3, FitSettings()), 4.0).best_possible_recall > 0.99


def test_too_few_sizes() -> None:
    with pytest.raises(ValueError, match="1 object sizes are too few for 3"):
        refit_anchors(np.array([[4.0, 4], [4, 4], [1, 1]]), 3, FitSettings())

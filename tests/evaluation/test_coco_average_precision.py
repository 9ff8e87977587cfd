"""COCO's figures: both engines equal, areas and crowds as COCO has them, ranges of size as users write them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.own_side import synthetic_set
from tests.evaluation.small_cases import detections_of, labels_of, random_scene
from utils.dataset.coco_annotations import CocoTruth
from utils.evaluation.coco_average_precision import (
    AI_TOD,
    WITHOUT_END,
    AreaRange,
    CocoFindings,
    CocoSummary,
    coco_figures,
    findings_from_detections,
    parse_area_ranges,
    truth_from_labels,
)
from utils.user_error import UsageError


def random_set(seed: int, images: int = 12) -> tuple[CocoTruth, CocoFindings]:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(images)]
    return truth_from_labels([labels for labels, _ in scenes]), findings_from_detections([d for _, d in scenes])


@pytest.mark.parametrize("seed", range(3))
def test_engines_give_the_same_figures(seed: int) -> None:
    truth, findings = random_set(seed)
    rng = np.random.default_rng(seed)
    truth = replace(
        truth, areas=truth.areas * rng.uniform(0.3, 1, len(truth.areas)), crowd=rng.random(len(truth.areas)) < 0.1
    )
    fast, reference = (coco_figures(truth, findings, engine) for engine in ("hotcoco", "pycocotools"))
    np.testing.assert_allclose(fast.summary, reference.summary, rtol=0, atol=1e-9)
    assert 0 < fast.summary.AP < 1
    assert fast.per_class.keys() == reference.per_class.keys()
    for index, summary in fast.per_class.items():
        np.testing.assert_allclose(summary, reference.per_class[index], rtol=0, atol=1e-9)


def test_per_class_figures_average_to_the_whole() -> None:
    figures = coco_figures(*random_set(5))
    assert sorted(figures.per_class) == [0, 1, 2]
    np.testing.assert_allclose(figures.summary.AP, np.mean([one.AP for one in figures.per_class.values()]))


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_sizes_count_in_source_pixels(engine: str) -> None:
    # 30 x 34 = 1020 is small, 32 x 33 = 1056 medium; the medium one is missed.
    truth = truth_from_labels([labels_of([0, 0, 0, 30, 34], [0, 100, 100, 132, 133])])
    findings = findings_from_detections([detections_of([0, 0.9, 0, 0, 30, 34])])
    summary = coco_figures(truth, findings, engine).summary
    # One of two objects found without error: precision 1 at the 51 recalls 0.00 ... 0.50 out of 101.
    expected = [51 / 101] * 3 + [1, 0, -1, 0.5, 0.5, 0.5, 1, 0, -1]
    np.testing.assert_allclose(summary, expected, atol=1e-9)


def test_repeated_rows_count_once() -> None:
    truth = truth_from_labels([labels_of([1, 0, 0, 30, 30], [1, 0, 0, 30, 30], [0, 0, 0, 30, 30]), labels_of()])
    assert truth.image_count == 2
    assert truth.classes.tolist() == [0, 1]
    assert truth.areas.tolist() == [900, 900]


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_nothing_found_and_nothing_there(engine: str) -> None:
    truth = truth_from_labels([labels_of([0, 0, 0, 30, 30])])
    nothing = findings_from_detections([detections_of()])
    assert coco_figures(truth, nothing, engine).summary.AP == 0
    empty = coco_figures(truth_from_labels([labels_of()]), nothing, engine)
    assert empty.summary == CocoSummary(*[-1.0] * 12)
    assert empty.per_class == {}


def test_a_crowd_region_forgives_detections_inside_it() -> None:
    truth = truth_from_labels([labels_of([0, 0, 0, 40, 40], [0, 100, 0, 200, 100])])
    found = findings_from_detections([detections_of([0, 0.9, 120, 20, 150, 50], [0, 0.8, 0, 0, 40, 40])])
    assert coco_figures(truth, found).summary.AP < 0.6
    crowd = replace(truth, crowd=np.array([False, True]))
    np.testing.assert_allclose(coco_figures(crowd, found).summary.AP, 1)


def test_a_set_like_val2017_in_small() -> None:
    """The benchmark's set, a hundredth of its size: eighty classes, crowds, a hundred detections per image."""
    truth, findings = synthetic_set(50)
    assert (truth.image_count, len(truth.images), len(findings.images)) == (50, 360, 5000)
    fast, reference = (coco_figures(truth, findings, engine) for engine in ("hotcoco", "pycocotools"))
    assert 0.05 < fast.summary.AP < 0.9
    np.testing.assert_allclose(fast.summary, reference.summary, rtol=0, atol=1e-9)


def test_ranges_are_read() -> None:
    assert parse_area_ranges(["tiny:0-256", "huge:9216-", "odd name:1.5-2"]) == (
        AreaRange("tiny", 0, 256),
        AreaRange("huge", 9216, WITHOUT_END),
        AreaRange("odd name", 1.5, 2),
    )
    assert parse_area_ranges(["AI-TOD", "big:4096-"]) == (*AI_TOD, AreaRange("big", 4096, WITHOUT_END))
    assert parse_area_ranges([]) == ()


@pytest.mark.parametrize("words", [["tiny"], ["tiny:5-5"], ["tiny:9-3"], [":0-3"], ["a:0-1", "a:2-3"], ["a:-1-3"]])
def test_wrong_ranges_are_refused_in_one_line(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--area-ranges") as caught:
        parse_area_ranges(words)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_figures_by_area_worked_by_hand(engine: str) -> None:
    # Objects of 6 x 6, 10 x 10 and 20 x 20 pixels; the first is missed, the last is found with an IoU of 0.9.
    truth = truth_from_labels([labels_of([0, 0, 0, 6, 6], [0, 50, 50, 60, 60], [0, 100, 100, 120, 120])])
    found = findings_from_detections([detections_of([0, 0.9, 50, 50, 60, 60], [0, 0.8, 100, 100, 118, 120])])
    very_tiny, tiny, small, medium = coco_figures(truth, found, engine, AI_TOD).by_area
    assert [one.objects for one in (very_tiny, tiny, small, medium)] == [1, 1, 1, 0]
    assert (very_tiny.AP, very_tiny.AR100) == (0, 0)
    np.testing.assert_allclose((tiny.AP, tiny.AP50, tiny.AR100), 1)
    # Right at IoU 0.50 to 0.90, nine thresholds of ten.
    np.testing.assert_allclose((small.AP, small.AP50, small.AR100), (0.9, 1, 0.9))
    assert (medium.AP, medium.AP50, medium.AR100) == (-1, -1, -1)

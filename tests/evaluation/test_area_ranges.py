"""Ranges of object size: how they are written, and figures by them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.small_cases import detections_of, labels_of
from utils.evaluation.area_ranges import AI_TOD, WITHOUT_END, AreaRange, parse_area_ranges
from utils.evaluation.coco_average_precision import coco_figures, findings_from_detections, truth_from_labels
from utils.user_error import UsageError


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

"""Objects followed from frame to frame: ids, low scores, several videos, and time."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.small_cases import detections_of
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections
from utils.inference.counting import CountLine, Crossing, Moment
from utils.inference.frames import Frame, VideoFacts
from utils.inference.nms import NmsSettings
from utils.inference.tracking import TrackedFrame, Tracking, check_tracker
from utils.user_error import UserError

SIZE = FrameSize(height=100, width=200)
SHOWN = NmsSettings(0.25, 0.45, 100)
TEN = VideoFacts(10.0, 0)
needs_trackers = pytest.mark.skipif(
    importlib.util.find_spec("trackers") is None, reason="trackers is not installed (pip install trackers)"
)


def frame(path: str, index: int, video: VideoFacts | None = TEN, seconds: float | None = None) -> Frame:
    return Frame(np.zeros((*SIZE, 3), np.uint8), Path(path), index, video, seconds)


def at(*objects: Sequence[float]) -> Detections:
    """Boxes of 20 x 20 pixels from rows ``class score x y`` of their centres."""
    return detections_of(*([kind, score, x - 10, y - 10, x + 10, y + 10] for kind, score, x, y in objects), size=SIZE)


def ids(tracked: TrackedFrame) -> dict[int, float]:
    """Id -> x of the centre, of what is shown."""
    found = tracked.detections
    assert found.ids is not None
    centres = (found.boxes[:, 0] + found.boxes[:, 2]) / 2
    return dict(zip(found.ids.tolist(), centres.tolist(), strict=True))


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(UserError, match=r"^following objects needs trackers \(pip install trackers\): import of"):
        check_tracker()


def test_boxes_of_low_score_are_asked_for() -> None:
    assert Tracking(SHOWN).candidates == NmsSettings(0.1, 0.45, 100)
    assert Tracking(NmsSettings(0.05, 0.45, 100)).candidates.conf_thres == 0.05
    assert Tracking(NmsSettings(0.3, 0.45, 100, class_thres=(0.3, 0.6))).candidates.class_thres == ()


@needs_trackers
def test_an_object_keeps_its_id_through_low_scores_which_are_not_shown() -> None:
    tracking = Tracking(SHOWN)
    seen = []
    for index, score in enumerate((0.9, 0.8, 0.15, 0.2, 0.7)):
        tracked = tracking.follow(frame("v.mp4", index), at((0, score, 20 + 5 * index, 50), (0, 0.9, 150, 20)))
        seen.append(ids(tracked))
    still, moving = (next(key for key, x in seen[1].items() if round(x) == where) for where in (150, 25))
    assert {still, moving} == {1, 2}
    assert [{key: round(x) for key, x in shown.items()} for shown in seen] == [
        {},  # an object is one from its second frame on
        {moving: 25, still: 150},
        {still: 150},
        {still: 150},
        {moving: 40, still: 150},
    ]


@needs_trackers
def test_low_scores_alone_are_no_object() -> None:
    tracking = Tracking(SHOWN)
    assert [ids(tracking.follow(frame("v.mp4", index), at((0, 0.2, 50, 50)))) for index in range(4)] == [{}] * 4


@needs_trackers
def test_thresholds_of_classes_say_what_is_sure() -> None:
    tracking = Tracking(NmsSettings(0.3, 0.45, 100, class_thres=(0.3, 0.6)))
    for index in range(3):
        tracked = tracking.follow(frame("v.mp4", index), at((0, 0.5, 50, 50), (1, 0.5, 150, 50)))
    assert list(ids(tracked).values()) == [50]


@needs_trackers
def test_every_video_counts_its_ids_from_one() -> None:
    tracking = Tracking(SHOWN)
    for name in ("a.mp4", "b.mp4"):
        for index in range(3):
            tracked = tracking.follow(frame(name, index), at((0, 0.9, 50, 50)))
        assert ids(tracked) == {1: 50}
        assert tracked.video == Path(name)
    tracked = tracking.follow(frame("b.mp4", 0), at((0, 0.9, 50, 50)))  # named twice: it begins anew
    assert ids(tracked) == {}


@needs_trackers
def test_streams_that_come_by_turns_are_told_apart() -> None:
    tracking = Tracking(SHOWN, [CountLine.parse("100,0,100,100", "line 1")])  # downwards: its left is where x is large
    for index in range(12):
        x = 50 + 10 * index
        one = tracking.follow(frame("one", 3 * index, TEN, 7.0 + index), at((0, 0.9, x, 50)))
        other = tracking.follow(frame("other", index, TEN, 9.0 + index), at((1, 0.9, 200 - x, 50)))
    assert set(ids(one)) == set(ids(other)) == {1}
    assert one.moment == Moment(33, 11.0)
    assert dict(one.counts[0].of) == {(0, "out"): 1}
    assert dict(other.counts[0].of) == {(1, "in"): 1}
    assert dict(tracking.counts[0].of) == {(0, "out"): 1, (1, "in"): 1}


@needs_trackers
def test_the_images_of_a_folder_are_one_video(tmp_path: Path) -> None:
    tracking = Tracking(SHOWN)
    for number in range(3):
        tracked = tracking.follow(frame(f"{tmp_path}/{number:03d}.jpg", 0, None), at((0, 0.9, 50 + number, 50)))
        tracking.follow(frame(f"{tmp_path}/video.mp4", number), at())  # among them
    assert ids(tracked) == {1: 52}
    assert (tracked.video, tracked.moment) == (tmp_path.resolve(), Moment(2, None))


@needs_trackers
@pytest.mark.parametrize("stride", [1, 5, 40])  # 40 frames are 4 seconds, longer than an object is remembered
def test_time_is_the_source_s_whatever_frames_are_left_out(stride: int) -> None:
    tracking = Tracking(SHOWN, [CountLine.parse("0,50,200,50", "line 1")])
    crossings: list[Crossing] = []
    for step in range(10):
        tracked = tracking.follow(frame("v.mp4", step * stride), at((0, 0.9, 100, 25 + 6 * step)))
        crossings += tracked.crossings
    (crossing,) = crossings  # 49 in step 4, 55 in step 5
    assert (crossing.direction, crossing.moment) == ("in", Moment(5 * stride, 5 * stride / 10.0))
    assert len(tracked.trails[0].points) == 9


@needs_trackers
def test_frames_of_an_irregular_rate_keep_their_times() -> None:
    tracking = Tracking(SHOWN, [CountLine.parse("0,50,200,50", "line 1")])
    crossings: list[Crossing] = []
    for index, seconds in enumerate((0.0, 0.1, 0.2, 0.3, 0.4, 2.5, 2.6)):  # ten in a second by the header
        shown = replace(frame("v.mp4", index), shown_at=seconds)
        crossings += tracking.follow(shown, at((0, 0.9, 100, 42 + 4 * seconds))).crossings
    assert [one.moment for one in crossings] == [Moment(5, 2.5)]


@needs_trackers
def test_who_is_lost_before_a_line_and_found_behind_it_has_crossed_it() -> None:
    tracking = Tracking(SHOWN, [CountLine.parse("0,50,200,50", "line 1")])
    crossings: list[Crossing] = []
    for index in range(12):
        hidden = 4 <= index <= 6
        found = at() if hidden else at((0, 0.9, 100, 25 + 5 * index))
        crossings += tracking.follow(frame("v.mp4", index), found).crossings
    assert [(one.direction, one.moment.number) for one in crossings] == [("in", 7)]


@needs_trackers
def test_a_line_is_checked_against_each_video() -> None:
    tracking = Tracking(SHOWN, [CountLine.parse("0,50,300,50", "line 1")])
    with pytest.raises(UserError, match=r"the point 300,50 lies outside of v.mp4, which is 200 x 100 pixels"):
        tracking.follow(frame("v.mp4", 0), at())

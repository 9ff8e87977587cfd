"""Objects followed through a video: ByteTrack, which the package trackers has, and what was counted on the way.

ByteTrack (Zhang et al., ECCV 2022) links boxes of consecutive frames by where they overlap, and takes boxes of low
score where they go on with an object that was surely seen before. Classes play no part in it, as a detector may waver
between a car and a truck.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections
from utils.inference.counting import Boundary, BoundaryCounts, Crossing, Moment, Point, VideoCounter, Walk, check_inside
from utils.inference.frames import Frame
from utils.inference.nms import NmsSettings, passing_scores
from utils.user_error import UserError

LOWEST_SCORE = 0.1  # of a box that an object may be followed by
USUAL_RATE = 30.0  # frames per second, for what does not say
MEMORY = 1.0  # seconds for which an object that is not seen is remembered
LONGEST_STEP = 0.5  # seconds: frames may be farther apart, and objects are remembered from one to the next all the same


@dataclass(frozen=True, slots=True)
class Trail:
    """Where the centre of an object has been, the last place at the end."""

    kind: int  # its class
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """A frame with the objects that are followed through its video, in pixels of the frame."""

    video: Path  # or stream, or folder of images
    moment: Moment
    detections: Detections  # those that are sure, with ids
    trails: tuple[Trail, ...]  # of these
    crossings: tuple[Crossing, ...]  # that count from this frame on
    counts: tuple[BoundaryCounts, ...]  # until now


def check_tracker() -> None:
    """UserError where the package, or what it needs, is missing."""
    try:
        importlib.import_module("trackers")
    except ImportError as error:
        raise UserError(f"following objects needs trackers (pip install trackers): {error}") from None


class Tracking:
    """Every video of a run followed by itself: its ids count from 1.

    A video is a video file, a stream, or the images of one folder, in the order in which they come.
    """

    def __init__(self, shown: NmsSettings, boundaries: Sequence[Boundary] = ()) -> None:
        """``shown``: which detections are sure, and shown."""
        self._shown = shown
        self._boundaries = boundaries
        self._videos: dict[Path, _Video] = {}
        self._counters: dict[Path, VideoCounter] = {}
        self._last: Path | None = None

    @property
    def candidates(self) -> NmsSettings:
        """What ``follow`` wants to know: those of low score too."""
        return replace(self._shown, conf_thres=min(self._shown.conf_thres, LOWEST_SCORE), class_thres=())

    @property
    def counts(self) -> tuple[BoundaryCounts, ...]:
        """How many have crossed each boundary, of all videos together."""
        sums = VideoCounter(self._boundaries).counts
        for counter in self._counters.values():
            for total, own in zip(sums, counter.counts, strict=True):
                total.of.update(own.of)
        return sums

    def follow(self, frame: Frame, found: Detections) -> TrackedFrame:
        """The next frame of its video, in which ``found`` was found with the settings ``candidates``.

        Raises:
            UserError: a line or zone to count at lies outside of it.
        """
        path = frame.path.parent.resolve() if frame.video is None else frame.path
        sure = passing_scores(found.scores, found.classes, self._shown)
        return self._video(path, frame).follow(frame, found, sure)

    def _video(self, path: Path, frame: Frame) -> _Video:
        last, self._last = self._last, path
        if last is not None and last != path and self._videos[last].is_file:
            del self._videos[last]  # files come one after the other
        video = self._videos.get(path)
        if video is None or video.is_over(frame):
            counter = self._counters.setdefault(path, VideoCounter(self._boundaries))
            video = self._videos[path] = _Video(path, frame, counter)
        return video


class _Video:
    """One video on its way."""

    def __init__(self, path: Path, frame: Frame, counter: VideoCounter) -> None:
        """``frame``: its first."""
        self._path = path
        self._counter = counter
        self._start = frame.seconds
        self.is_file = frame.video is not None and frame.seconds is None
        self._rate = frame.video.frames_per_second if frame.video else 0.0
        self._tracker = _ByteTrack(self._rate or USUAL_RATE)
        self._walks: dict[int, Walk] = {}
        self._size: FrameSize | None = None
        self._number = -1

    def is_over(self, frame: Frame) -> bool:
        """Whether the frame begins it anew: a list may name a video twice."""
        return frame.video is not None and frame.index <= self._number

    def follow(self, frame: Frame, found: Detections, sure: torch.Tensor) -> TrackedFrame:
        if found.size != self._size:
            boundaries = [boundary for boundary, _ in self._counter.counts]
            check_inside(boundaries, found.size, str(frame.path))
            self._size = found.size
        moment = self._moment(frame)
        self._number = moment.number
        rate = self._rate or USUAL_RATE
        ids = self._tracker.update(found, sure, moment.number / rate if moment.seconds is None else moment.seconds)
        crossings = self._count(replace(found, ids=ids).keep(ids > 0), moment)
        shown = replace(found, ids=ids).keep((ids > 0) & sure)
        assert shown.ids is not None
        own = [self._walks[number] for number in shown.ids.tolist()]
        trails = tuple(Trail(walk.kind, tuple(walk.points)) for walk in own)
        counts = tuple(BoundaryCounts(boundary, Counter(of)) for boundary, of in self._counter.counts)
        return TrackedFrame(self._path, moment, shown, trails, tuple(crossings), counts)

    def _moment(self, frame: Frame) -> Moment:
        if frame.video is None:
            return Moment(self._number + 1, None)
        if frame.seconds is not None and self._start is not None:
            return Moment(frame.index, frame.seconds - self._start)
        if frame.shown_at is not None:
            return Moment(frame.index, frame.shown_at)
        return Moment(frame.index, frame.index / self._rate if self._rate else None)

    def _count(self, tracked: Detections, moment: Moment) -> list[Crossing]:
        """Every object taken to its new place; those that the tracker has given up are forgotten."""
        alive = self._tracker.alive
        self._walks = {number: walk for number, walk in self._walks.items() if number in alive}
        crossings: list[Crossing] = []
        assert tracked.ids is not None
        rows = (tracked.ids.tolist(), tracked.classes.tolist(), tracked.scores.tolist(), tracked.boxes.tolist())
        for number, kind, score, box in zip(*rows, strict=True):
            walk = self._walks.setdefault(number, Walk())
            walk.scores[kind] += score
            crossings += self._counter.step(walk, number, box, moment)
        return crossings


class _ByteTrack:
    """The tracker of the package for one video."""

    def __init__(self, rate: float) -> None:
        trackers = importlib.import_module("trackers")
        self._records: Any = importlib.import_module("supervision").Detections
        # An object counts from its second frame on, as in the paper: boxes that flicker up once are none.
        self._tracker: Any = trackers.ByteTrackTracker(
            lost_track_buffer=round(30 * MEMORY),  # by its own definition at 30 frames per second
            frame_rate=rate,
            track_activation_threshold=0.5,
            high_conf_det_threshold=0.5,
            minimum_consecutive_frames=2,
        )
        self._clock = self._last = 0.0

    @property
    def alive(self) -> set[int]:
        """Ids of the objects that are remembered."""
        return {int(number) + 1 for number in self._tracker.tracked_objects.tracker_id}

    def update(self, found: Detections, sure: torch.Tensor, seconds: float) -> torch.Tensor:
        """Ids (N,) int64 from 1 of what was found so many seconds after the start; 0: of no object yet."""
        self._clock += min(max(seconds - self._last, 1e-6), LONGEST_STEP)
        self._last = seconds
        detections = self._records(
            xyxy=found.boxes.numpy(),
            confidence=sure.numpy().astype(np.float32),  # the tracker only asks which are sure
            data={"row": np.arange(len(found))},
        )
        tracked = self._tracker.update(detections, timestamp=self._clock)
        ids = torch.zeros(len(found), dtype=torch.int64)
        if len(tracked):
            ids[torch.from_numpy(tracked.data["row"])] = torch.from_numpy(tracked.tracker_id.astype(np.int64)) + 1
        return ids

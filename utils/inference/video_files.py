"""Frames of a video file; a damaged frame costs that frame only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from utils.inference.frames import Frame, VideoFacts

VIDEO_SUFFIXES = frozenset(
    {".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
MOST_LOST = 30  # frames in a row that cannot be read, after which the rest of the file is given up


def is_video(path: Path) -> bool:
    """Whether the name of the file is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def video_length(path: Path) -> int:
    """Number of frames by the header, 0 if it does not say or is not readable."""
    capture = cv2.VideoCapture(str(path))
    facts = video_facts(capture)
    capture.release()
    return facts.frames


def video_facts(capture: cv2.VideoCapture) -> VideoFacts:
    """What an open video's header says."""
    rate, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return VideoFacts(rate if 0 < rate < 1000 else 0.0, max(int(frames), 0))


def read_video(path: Path, vid_stride: int, skip: Callable[[str], None]) -> Iterator[Frame]:
    """Every ``vid_stride``-th frame of the video; ``skip`` gets one line for each that cannot be read."""
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            skip(f"{path}: not a readable video")
            return
        facts = video_facts(capture)
        given, index = 0, -1
        lost: list[int] = []  # frames since the last good one
        while len(lost) <= MOST_LOST and (not lost or index + 1 < facts.frames):
            index += 1
            readable, image = capture.grab(), None
            if readable and index % vid_stride == 0:
                readable, image = capture.retrieve()
            if not readable:
                lost.append(index)
                continue
            for number in lost:
                skip(f"{path}: frame {number} is not readable")
            lost.clear()
            if image is not None:
                given += 1
                yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), path, index, facts)
        if not given:
            skip(f"{path}: the video has no readable frame")
        elif len(lost) > MOST_LOST:
            skip(f"{path}: no readable frame after number {lost[0] - 1} of {facts.frames}")
    finally:
        capture.release()

"""Annotated videos: how fast they play, and how frames of a stream keep time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.inference.frames import Frame, VideoFacts
from utils.reporting import video_output
from utils.reporting.video_output import VideoOutput, describe_codec
from utils.user_error import UserError


class Recorder:
    """Stands in for OpenCV's writer: the rate it was opened with, and the first pixel of each frame."""

    opens = True

    def __init__(self, path: str, backend: int, code: int, rate: float, size: tuple[int, int]) -> None:
        self.rate, self.size = rate, size
        self.pixels: list[list[int]] = []

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def write(self, image: np.ndarray) -> None:
        self.pixels.append(image[0, 0].tolist())

    def release(self) -> None: ...

    @staticmethod
    def fourcc(*letters: str) -> int:
        return 0


@pytest.fixture(autouse=True)
def _recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoWriter", Recorder)
    monkeypatch.setattr(video_output, "h264_available", lambda: True)


def grey(value: int) -> np.ndarray:
    return np.full((48, 64, 3), value, np.uint8)


def opened(rate: float, seconds: float | None = None, vid_stride: int = 1) -> tuple[VideoOutput, Recorder]:
    output = VideoOutput(Path("v.mp4"), Frame(grey(0), Path("v"), 0, VideoFacts(rate, 0), seconds), vid_stride)
    writer: object = output._writer
    assert isinstance(writer, Recorder)
    return output, writer


@pytest.mark.parametrize(
    ("rate", "stride", "expected"), [(25.0, 1, 25.0), (24.0, 3, 8.0), (0.0, 1, 30.0), (0.0, 2, 15.0)]
)
def test_a_video_plays_as_long_as_its_source(rate: float, stride: int, expected: float) -> None:
    _, writer = opened(rate, vid_stride=stride)
    assert (writer.rate, writer.size) == (expected, (64, 48))


def test_a_stream_keeps_its_rate_whatever_the_stride() -> None:
    assert opened(24.0, seconds=100.0, vid_stride=3)[1].rate == 24.0


def test_frames_of_a_file_are_written_once_each_in_bgr() -> None:
    output, writer = opened(25.0)
    image = grey(0)
    image[..., 0] = 200  # red
    for _ in range(3):
        output.write(image, None)
    assert writer.pixels == [[0, 0, 200]] * 3


def test_a_late_frame_of_a_stream_stands_in_for_those_that_are_missing() -> None:
    output, writer = opened(10.0, seconds=50.0)
    # At 10 frames a second: the one after 0.35 s is the fourth, for the second to fourth; that after 0.38 s comes too
    # early for a fifth and is left out, as is one of a clock put back; after 0.5 s the fifth and sixth are due.
    for value, seconds in ((1, 50.0), (2, 50.35), (3, 50.38), (9, 50.2), (4, 50.5)):
        output.write(grey(value), seconds)
    assert [pixel[0] for pixel in writer.pixels] == [1, 2, 2, 2, 4, 4]


def test_after_a_long_gap_the_image_stands_still_for_a_minute_at_most() -> None:
    output, writer = opened(10.0, seconds=0.0)
    output.write(grey(1), 0.0)
    output.write(grey(2), 3600.0)
    assert [pixel[0] for pixel in writer.pixels] == [1] + [2] * 600


def test_a_video_that_cannot_be_opened_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorder, "opens", False)
    with pytest.raises(UserError, match=r"v\.mp4: this OpenCV cannot write MP4"):
        opened(25.0)


def test_the_codec_is_named_with_what_to_do_where_browsers_refuse_it() -> None:
    assert describe_codec("avc1") == "written as H.264"
    assert "mp4v" in describe_codec("mp4v") and "ffmpeg -i" in describe_codec("mp4v")

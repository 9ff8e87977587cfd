"""Annotated video: H.264 where this OpenCV can write it, otherwise MPEG-4."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from utils.inference.frames import Frame
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

USUAL_FRAME_RATE = 30.0  # frames per second, for a video or stream that does not say
LONGEST_GAP = 60.0  # seconds for which the last image of a stream stands still


class VideoOutput:
    """One ``.mp4`` of frames of one size.

    A video's frames are written one by one at its rate over ``vid_stride``, so that it plays as long as its source.
    Frames of a stream are written when they came: a late one stands in for those that are missing.
    """

    def __init__(self, path: Path, frame: Frame, vid_stride: int) -> None:
        """For frames like ``frame``. UserError: it cannot be written."""
        assert frame.video is not None
        self.size = frame.image.shape[:2]
        self._rate = frame.video.frames_per_second or USUAL_FRAME_RATE
        if frame.seconds is None:
            self._rate /= vid_stride
        self._start = frame.seconds
        self._written = 0
        code = "avc1" if h264_available() else "mp4v"
        LOGGER.info("%s: %s", path, describe_codec(code))
        self._writer = cv2.VideoWriter(
            str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), self._rate, (self.size[1], self.size[0])
        )
        if not self._writer.isOpened():
            raise UserError(f"{path}: this OpenCV cannot write MP4 video there")

    def write(self, image: np.ndarray, seconds: float | None) -> None:
        """Append an image (H, W, 3) uint8 RGB; ``seconds`` when it came, None if it is not live."""
        copies = 1
        if seconds is not None and self._start is not None:
            due = int((seconds - self._start) * self._rate) + 1
            copies = min(due - self._written, int(LONGEST_GAP * self._rate))
        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        for _ in range(copies):
            self._writer.write(pixels)
        self._written += max(copies, 0)

    def close(self) -> None:
        """Finish the file."""
        self._writer.release()


def describe_codec(code: str) -> str:
    """The line that says what a video is written as."""
    if code == "avc1":
        return "written as H.264"
    return "written as MPEG-4 (mp4v), as this OpenCV has no H.264 encoder; browsers may want `ffmpeg -i IN.mp4 OUT.mp4`"


@lru_cache(maxsize=1)
def h264_available() -> bool:
    """Whether this OpenCV writes H.264: found by opening a small file, as builds name encoders that they lack."""
    with tempfile.TemporaryDirectory() as folder, _silent_errors():
        writer = cv2.VideoWriter(
            str(Path(folder) / "probe.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"avc1"), 25, (64, 64)
        )
        opened = writer.isOpened()
        writer.release()
    return opened


@contextlib.contextmanager
def _silent_errors() -> Iterator[None]:
    """Nothing on standard error: FFmpeg writes there past OpenCV's log level."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

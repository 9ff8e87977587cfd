"""What every source of images gives: frames, in groups that may go through the network together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What is known of the video or stream that a frame belongs to."""

    frames_per_second: float  # 0 if unknown
    frames: int  # by the header, 0 if it does not say

    @classmethod
    def of(cls, capture: cv2.VideoCapture) -> VideoFacts:
        """What an open video's header says."""
        rate, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        return cls(rate if 0 < rate < 1000 else 0.0, max(int(frames), 0))


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a source."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    path: Path  # of its file; for a stream its name, as a file may be called
    index: int  # 0 for an image; the frame's number in its video or stream
    video: VideoFacts | None  # None for an image
    seconds: float | None = None  # when it arrived, by a clock of any start; None for what is not live
    shown_at: float | None = None  # seconds in its video file; None for anything else, and where the file does not say

    @property
    def number(self) -> int | None:
        """Its number in its video or stream; None for an image."""
        return None if self.video is None else self.index

    @property
    def title(self) -> str:
        """What lines of the log call it: its file, and which frame of it."""
        return str(self.path) if self.video is None else f"{self.path} frame {self.index}"


class FrameSource(Protocol):
    """The images behind one ``--source``."""

    skipped: list[str]  # one line for each unreadable file or frame and each lost stream, as they are met

    @property
    def live(self) -> bool:
        """Whether frames come by themselves, so that a late one is worth less than the next one."""

    @property
    def known(self) -> Mapping[Path, bool]:
        """The paths that frames will have, as far as they are known beforehand, in order; whether each is a video."""

    def expected_frames(self) -> int | None:
        """How many frames there will be, as far as headers tell the truth; None if nobody knows."""

    def groups(self, size: int, stopped: Callable[[], bool]) -> Iterator[list[Frame]]:
        """Frames in groups: ``size`` of files in order, or one of each stream that has a new one.

        A live source asks ``stopped`` while it waits. To be gone through once.
        """

    def close(self) -> None:
        """Let go of what the source holds."""

"""What is on the screen, through mss where it is installed."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.inference.frames import Frame, VideoFacts
from utils.user_error import UserError

FORM = "screen [number] [left top width height]"
FRAMES_PER_SECOND = 30.0  # of a video made of it


@dataclass(frozen=True, slots=True)
class ScreenPart:
    """Which screen, and which window of it in pixels."""

    number: int = 0  # 0 is all screens as one, 1 the first
    window: tuple[int, int, int, int] | None = None  # left, top, width, height from the screen's corner

    @classmethod
    def parse(cls, source: str) -> ScreenPart:
        """``screen``, ``screen 1``, ``screen 0 0 640 480`` or ``screen 1 0 0 640 480``.

        Raises:
            UserError: any other form.
        """
        words = source.split()[1:]
        if len(words) not in (0, 1, 4, 5) or not all(word.isdecimal() for word in words):
            raise UserError(f"{source}: not of the form {FORM}")
        numbers = [int(word) for word in words]
        window = tuple(numbers[-4:]) if len(numbers) >= 4 else None
        if window is not None and 0 in window[2:]:
            raise UserError(f"{source}: width and height must be at least 1")
        number = numbers[0] if len(numbers) in (1, 5) else 0
        return cls(number, (window[0], window[1], window[2], window[3]) if window else None)


class ScreenSource:
    """Images of a screen, as fast as they are asked for, until the run is stopped."""

    live = True

    def __init__(self, source: str) -> None:
        part = ScreenPart.parse(source)
        try:
            mss = importlib.import_module("mss")
        except ImportError:
            raise UserError(f"{source}: needs mss (pip install mss)") from None
        self.skipped: list[str] = []
        self._path = Path(f"screen{part.number}")
        self._error: type[Exception] = importlib.import_module("mss.exception").ScreenShotError
        try:
            self._capture: Any = (getattr(mss, "MSS", None) or mss.mss)()  # mss until 10.1
            screens = self._capture.monitors
        except self._error as error:
            raise UserError(f"{source}: {error}") from None
        if part.number >= len(screens):
            raise UserError(f"{source}: there are screens 0 (all) to {len(screens) - 1}")
        self._window = _window(screens[part.number], part)

    @property
    def known(self) -> Mapping[Path, bool]:
        """See ``FrameSource``."""
        return {self._path: True}

    def expected_frames(self) -> int | None:
        """Nobody knows."""
        return None

    def groups(self, size: int, stopped: Callable[[], bool]) -> Iterator[list[Frame]]:
        """See ``FrameSource``; one image at a time."""
        index = 0
        while not stopped():
            try:
                pixels = np.asarray(self._capture.grab(self._window))  # BGRA
            except self._error as error:
                raise UserError(f"{self._path}: {error}") from None
            image = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB)
            yield [Frame(image, self._path, index, VideoFacts(FRAMES_PER_SECOND, 0), time.monotonic())]
            index += 1

    def close(self) -> None:
        """Let go of the screen."""
        self._capture.close()


def _window(screen: dict[str, int], part: ScreenPart) -> dict[str, int]:
    left, top, width, height = part.window or (0, 0, screen["width"], screen["height"])
    return {"left": screen["left"] + left, "top": screen["top"] + top, "width": width, "height": height}

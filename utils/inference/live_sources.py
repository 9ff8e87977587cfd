"""What comes by itself: cameras and network streams, and the screen, through mss where it is installed.

Each stream is read in a thread of its own: the newest frame wins, a lost connection is sought again.
"""

from __future__ import annotations

import importlib
import logging
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.inference.frames import Frame, VideoFacts
from utils.runtime.console_log import EACH_TIME, counted
from utils.runtime.threads import POLL
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

TIMEOUT = 10_000  # milliseconds that a server may keep silent, when connecting and between frames
GRABS = 3  # a broken frame is no lost stream: so many have to fail in a row
SCREEN_FORM = "screen [number] [left top width height]"
SCREEN_RATE = 30.0  # frames per second of a video made of the screen


@dataclass(frozen=True, slots=True)
class StreamPatience:
    """How a stream that does not answer is sought again: waits double from the first to the longest."""

    tries: int = 6  # in a row without a frame; then the stream has ended
    first_wait: float = 0.5  # seconds
    longest_wait: float = 30.0

    def wait(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row, at least one."""
        return min(self.first_wait * 2.0 ** (failures - 1), self.longest_wait)


class Stream:
    """One address, read in its own thread from ``start`` until ``stop`` or the stream's end."""

    def __init__(
        self, address: str, path: Path, vid_stride: int, patience: StreamPatience, arrival: threading.Condition
    ) -> None:
        self.path = path  # that its frames have
        self.shown = shown_address(address)
        self.ended = False
        self.frames = 0  # that have arrived
        self._address = address
        self._vid_stride = vid_stride
        self._patience = patience
        self._arrival = arrival  # guards _newest and ended, and tells of changes
        self._newest: Frame | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"stream {self.shown}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, without waiting."""
        self._stopping.set()

    def join(self, seconds: float) -> None:
        """Wait for the thread; one that waits for a silent server is left to end by itself."""
        self._thread.join(seconds)

    def take(self) -> Frame | None:
        """The newest frame, once; call with ``arrival`` held."""
        frame, self._newest = self._newest, None
        return frame

    @property
    def waiting(self) -> bool:
        """Whether there is a frame to take."""
        return self._newest is not None

    def _run(self) -> None:
        failures = 0
        try:
            while not self._stopping.is_set():
                before = self.frames
                self._read_connection()
                failures = 1 if self.frames > before else failures + 1
                if self._stopping.is_set() or self._gives_up(failures):
                    return
                wait = self._patience.wait(failures)
                state = "the connection ended" if self.frames > before else "no connection"
                LOGGER.warning("%s: %s, trying again in %g s", self.shown, state, wait, extra=EACH_TIME)
                self._stopping.wait(wait)
        finally:
            with self._arrival:
                self.ended = True
                self._arrival.notify_all()

    def _gives_up(self, failures: int) -> bool:
        camera_missing = self._address.isdigit() and not self.frames  # it does not come by being waited for
        return failures >= self._patience.tries or camera_missing

    def _read_connection(self) -> None:
        """Read until the connection ends."""
        capture = self._open()
        try:
            facts = VideoFacts(VideoFacts.of(capture).frames_per_second, 0)
            failed = 0
            while capture.isOpened() and not self._stopping.is_set() and failed < GRABS:
                if not capture.grab():
                    failed += 1
                    continue
                failed = 0
                if self.frames % self._vid_stride == 0:
                    self._hand_over(capture, facts)
                self.frames += 1
        finally:
            capture.release()

    def _hand_over(self, capture: cv2.VideoCapture, facts: VideoFacts) -> None:
        readable, image = capture.retrieve()
        if not readable or image is None:
            return
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        with self._arrival:
            self._newest = Frame(rgb, self.path, self.frames, facts, time.monotonic())
            self._arrival.notify_all()

    def _open(self) -> cv2.VideoCapture:
        if self._address.isdigit():
            return cv2.VideoCapture(int(self._address))
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT]
        return cv2.VideoCapture(self._address, cv2.CAP_FFMPEG, limits)


class LiveSource:
    """Streams read at the same time; a group of frames is the newest of each that has a new one."""

    live = True

    def __init__(self, addresses: Sequence[str], vid_stride: int = 1, patience: StreamPatience | None = None) -> None:
        self.skipped: list[str] = []
        self._arrival = threading.Condition()
        paths = [Path(name) for name in file_names_of(addresses)]
        self.streams = [
            Stream(address, path, vid_stride, patience or StreamPatience(), self._arrival)
            for address, path in zip(addresses, paths, strict=True)
        ]

    @property
    def known(self) -> Mapping[Path, bool]:
        """See ``FrameSource``."""
        return {stream.path: True for stream in self.streams}

    def expected_frames(self) -> int | None:
        """Nobody knows."""
        return None

    def groups(self, size: int, stopped: Callable[[], bool]) -> Iterator[list[Frame]]:
        """See ``FrameSource``. Ends when all streams have ended.

        Raises:
            UserError: none of the streams ever gave a frame.
        """
        for stream in self.streams:
            stream.start()
        running = set(self.streams)
        while running and not stopped():
            with self._arrival:
                if not any(stream.waiting or stream.ended for stream in running):
                    self._arrival.wait(POLL)
                frames = [frame for stream in self.streams if (frame := stream.take())]
                over = {stream for stream in running if stream.ended}
            running -= over
            for stream in sorted(over, key=self.streams.index):
                self._tell_end(stream)
            if frames:
                yield frames
        if not stopped() and not any(stream.frames for stream in self.streams):
            raise UserError(f"{', '.join(stream.shown for stream in self.streams)}: cannot be opened or gives no frame")

    def close(self) -> None:
        """End all threads; those that wait for a silent server are not waited for."""
        for stream in self.streams:
            stream.stop()
        for stream in self.streams:
            stream.join(1.0)

    def _tell_end(self, stream: Stream) -> None:
        line = (
            f"{stream.shown}: ended after {counted(stream.frames, 'frame')}"
            if stream.frames
            else f"{stream.shown}: no frame"
        )
        LOGGER.warning("%s", line)
        self.skipped += [] if stream.frames else [line]


def listed_streams(path: Path) -> list[str]:
    """Addresses and camera numbers in a ``.streams`` file, one per line; ``#`` begins a comment line.

    Raises:
        UserError: an empty list, or a line that is neither.
    """
    addresses = []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        if not is_stream_address(line):
            raise UserError(f"{path}, line {number}: {line}: neither a stream's address nor a camera's number")
        addresses.append(line)
    if not addresses:
        raise UserError(f"{path}: lists no stream")
    return addresses


def is_stream_address(text: str) -> bool:
    """Whether the text is the number of a camera or the address of a stream."""
    return text.isdigit() or re.match(r"(?:rtsps?|rtmps?|https?|tcp|udp)://.", text, re.IGNORECASE) is not None


def shown_address(address: str) -> str:
    """The address without a user's name and password, for the log."""
    parts = urllib.parse.urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else address


def file_names_of(addresses: Sequence[str]) -> list[str]:
    """A name for each stream; channels of one camera, which differ in the query alone, are numbered."""
    names = [file_name_of(address) for address in addresses]
    before = [names[:place].count(name) for place, name in enumerate(names)]
    return [f"{name}-{count + 1}" if count else name for name, count in zip(names, before, strict=True)]


def file_name_of(address: str) -> str:
    """A name for the stream's files: its address without scheme, password and query, other signs as ``_``."""
    parts = urllib.parse.urlsplit(shown_address(address))
    return re.sub(r"\W+", "_", f"{parts.netloc}{parts.path}").strip("_") or "stream"


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
            raise UserError(f"{source}: not of the form {SCREEN_FORM}")
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
        self._window = _screen_window(screens[part.number], part)

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
            yield [Frame(image, self._path, index, VideoFacts(SCREEN_RATE, 0), time.monotonic())]
            index += 1

    def close(self) -> None:
        """Let go of the screen."""
        self._capture.close()


def _screen_window(screen: dict[str, int], part: ScreenPart) -> dict[str, int]:
    left, top, width, height = part.window or (0, 0, screen["width"], screen["height"])
    return {"left": screen["left"] + left, "top": screen["top"] + top, "width": width, "height": height}

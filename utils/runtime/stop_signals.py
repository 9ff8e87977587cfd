"""SIGINT and SIGTERM as a polite request that long work heeds between steps."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from utils.user_error import UserError

POLL = 0.02  # seconds between two looks


class Stopped(UserError):
    """The run was asked to stop; exit code 128 + signal number, as shells expect."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class StopRequest:
    """Which signal has asked to stop, if any."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def receive(self, signal_number: int, frame: FrameType | None) -> None:
        """Signal handler: the first signal asks, a second one interrupts at once."""
        if self.signal_number is not None:
            raise KeyboardInterrupt
        self.signal_number = signal_number

    def arrives_within(self, seconds: float) -> bool:
        """Wait for a signal that long; whether one has asked."""
        end = time.monotonic() + seconds
        while self.signal_number is None and time.monotonic() < end:
            time.sleep(POLL)
        return self.signal_number is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a :class:`StopRequest` while the block runs."""
    request = StopRequest()
    previous = {number: signal.signal(number, request.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

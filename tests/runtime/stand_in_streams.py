"""Streams of a GPU that is not there: what was ordered on each, and what each is known to have waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class StandInStream:
    """In place of ``torch.cuda.Stream``: ``ordered`` is what was put on it, ``reached`` what has happened before that.

    Of another stream's work only that has happened which was ordered there before this one was told to wait for it.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.ordered: list[object] = []
        self.reached: list[object] = []

    def wait_stream(self, other: StandInStream) -> None:
        self.reached = [*other.reached, *other.ordered]


class StandInEvent:
    """In place of ``torch.cuda.Event``, on a GPU that is as fast as its host."""

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing
        self.time = 0.0

    def record(self, stream: StandInStream | None = None) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        assert self.time

    def elapsed_time(self, end: StandInEvent) -> float:
        """Milliseconds."""
        return 1e3 * (end.time - self.time)


class StandInStreams:
    """What ``torch.cuda`` offers of them; the current one is ``computing`` where no other was made current."""

    def __init__(self) -> None:
        self.computing = StandInStream()
        self.current = self.computing
        self.made: list[StandInStream] = []

    def make(self, device: torch.device) -> StandInStream:
        self.made.append(StandInStream())
        return self.made[-1]

    @contextmanager
    def stream(self, stream: StandInStream) -> Iterator[None]:
        self.current, before = stream, self.current
        try:
            yield
        finally:
            self.current = before

    def install(self, replace: Callable[[Any, str, object], object]) -> None:
        """``replace`` is ``setattr`` or a monkeypatch's."""
        replace(torch, "Stream", StandInStream)
        replace(torch.cuda, "Event", StandInEvent)
        replace(torch.cuda, "Stream", self.make)
        replace(torch.cuda, "stream", self.stream)
        replace(torch.cuda, "current_stream", lambda device=None: self.current)

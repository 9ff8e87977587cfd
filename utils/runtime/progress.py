"""How far a long run is: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from tqdm import tqdm

LOGGER = logging.getLogger(__name__)

EVERY = 15.0  # seconds between two lines


class Progress:
    """Counts steps of ``unit`` up to ``total`` (None if nobody knows) and tells how long the rest will take."""

    def __init__(self, total: int | None, unit: str, title: str) -> None:
        self.total = total
        self.done = 0
        self._unit = unit
        self._bar = tqdm(total=total, unit=unit, desc=title, disable=None, leave=False)
        self._start = self._told = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, steps: int) -> None:
        """So many more are done."""
        self.done += steps
        self._bar.update(steps)
        now = time.monotonic()
        if self._bar.disable and now - self._told >= EVERY:
            self._told = now
            LOGGER.info("%s", progress_line(self.done, self.total, self._unit, now - self._start))


def progress_line(done: int, total: int | None, unit: str, seconds: float) -> str:
    """``120 of 900 frames, 8.0 per second, 1:37 left``, after ``seconds`` of work."""
    rate = done / max(seconds, 1e-9)
    if total is None or not done:
        return f"{done} {unit}s, {rate:.1f} per second"
    minutes, rest = divmod(round(max(total - done, 0) / rate), 60)
    return f"{done} of {total} {unit}s, {rate:.1f} per second, {minutes}:{rest:02d} left"

"""How far a run is."""

from __future__ import annotations

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.runtime.progress import EVERY, Progress, progress_line


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (120, 900, 15.0, "120 of 900 frames, 8.0 per second, 1:38 left"),  # 780 / 8 = 97.5
        (900, 900, 10.0, "900 of 900 frames, 90.0 per second, 0:00 left"),
        (100, 90, 10.0, "100 of 90 frames, 10.0 per second, 0:00 left"),  # a header that lied
        (1, 7201, 1.0, "1 of 7201 frames, 1.0 per second, 120:00 left"),
        (120, None, 15.0, "120 frames, 8.0 per second"),
        (0, 900, 15.0, "0 frames, 0.0 per second"),
    ],
)
def test_the_line(done: int, total: int | None, seconds: float, line: str) -> None:
    assert progress_line(done, total, "frame", seconds) == line


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0, 10**5))
def test_seconds_never_reach_sixty_and_what_is_left_fits_the_rate(done: int, total: int, seconds: float) -> None:
    found = re.search(r"(\d+):(\d\d) left$", progress_line(done, total, "image", seconds))
    assert found is not None
    minutes, rest = int(found[1]), int(found[2])
    assert rest < 60
    assert 60 * minutes + rest == pytest.approx(max(total - done, 0) * seconds / done, abs=0.51, rel=1e-6)


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = iter((100.0, 100.0 + EVERY - 1, 100.0 + EVERY, 100.0 + EVERY + 1, 100.0 + 2 * EVERY))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("tqdm.std.time", lambda: 0.0)
    with Progress(60, "frame", "reading") as told:
        for _ in range(4):
            told.advance(15)
    assert told.done == 60
    # After 14, 15, 16 and 30 seconds: the second and the fourth are due.
    assert [record.getMessage() for record in caplog.records] == [
        "30 of 60 frames, 2.0 per second, 0:15 left",
        "60 of 60 frames, 2.0 per second, 0:00 left",
    ]

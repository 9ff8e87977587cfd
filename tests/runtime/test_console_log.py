"""What a verb says, how far it is, and the exit code that it ends with."""

from __future__ import annotations

import atexit
import errno
import gc
import io
import itertools
import logging
import re
import signal
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.runtime.console_log import (
    EACH_TIME,
    EVERY,
    OWN_PACKAGES,
    Progress,
    counted,
    progress_line,
    run_verb,
    start_console_log,
    with_progress,
)
from utils.runtime.stop_signals import Stopped
from utils.user_error import UsageError, UserError


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Loggers, the collector and the handler of SIGINT belong to the process."""
    loggers = [logging.getLogger(name) for name in OWN_PACKAGES]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    thresholds, handler = gc.get_threshold(), signal.getsignal(signal.SIGINT)
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
    gc.set_threshold(*thresholds)
    signal.signal(signal.SIGINT, handler)
    atexit.unregister(gc.freeze)


def failing(error: BaseException) -> Callable[[], None]:
    def verb() -> None:
        raise error

    return verb


def test_lines_go_to_standard_output_once_and_warnings_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    start_console_log()
    start_console_log()  # a second verb of the process does not double the lines
    for package in OWN_PACKAGES:
        logging.getLogger(f"{package}.some.module").info("from %s", package)
    logging.getLogger("utils.x").warning("look out")
    logging.getLogger("utils.x").debug("too much")
    assert capsys.readouterr() == ("from models\nfrom utils\nfrom classify\nWARNING: look out\n", "")


def test_libraries_keep_their_own_log(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    start_console_log()
    logging.getLogger("some.library").info("chatter")
    assert capsys.readouterr() == ("", "") and (root.level, root.handlers) == before


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a.yaml: no such file"), 1, "error: a.yaml: no such file"),
        (UsageError("--img 7: must be 32 to 8192"), 2, "error: --img 7: must be 32 to 8192"),
        (Stopped(signal.SIGTERM, "stopped"), 143, "error: stopped"),
        (UserError("odd\nname.jpg: damaged"), 1, "error: odd name.jpg: damaged"),
        (OSError(errno.ENOSPC, "No space left on device", "a\nb.pt"), 1, "error: a b.pt: No space left on device"),
        (OSError("whatever"), 1, "error: whatever"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_failure_is_one_line_on_standard_error(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    assert run_verb(failing(error)) == code
    assert capsys.readouterr() == ("", f"{line}\n")


def test_a_verb_that_ends_well_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


def test_a_fault_of_the_program_is_no_user_error() -> None:
    with pytest.raises(ZeroDivisionError):
        run_verb(failing(ZeroDivisionError()))


@pytest.mark.parametrize(("rank", "said"), [(None, "told\n"), ("0", "told\n"), ("1", "")])
def test_of_several_processes_the_first_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str | None, said: str
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)

    def verb() -> None:
        logging.getLogger("utils.x").info("told")
        logging.getLogger("utils.x").warning("beware")

    assert run_verb(verb) == 0
    assert capsys.readouterr().out == f"{said}WARNING: beware\n"


@pytest.mark.case("Words on the terminal", "one warning twice, as of a file read for two parts", "said once")
def test_a_warning_is_said_once_and_an_event_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> None:
        for _ in range(2):
            logging.getLogger("utils.x").warning("%s: odd", "a.yaml")
            logging.getLogger("utils.y").warning("connection lost", extra=EACH_TIME)
            logging.getLogger("utils.x").info("told")

    for _ in range(2):  # each script begins anew
        assert run_verb(verb) == 0
        lines = capsys.readouterr().out.splitlines()
        lost = "WARNING: connection lost"
        assert lines == ["WARNING: a.yaml: odd", lost, "told", lost, "told"]


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (120, 900, 15.0, "120 of 900 frames, 8.0 per second, 1:38 left"),  # 780 / 8 = 97.5
        (900, 900, 10.0, "900 of 900 frames, 90.0 per second, 0:00 left"),
        (100, 90, 10.0, "100 of 90 frames, 10.0 per second, 0:00 left"),  # a header that lied
        (1, 7201, 1.0, "1 of 7201 frames, 1.0 per second, 120:00 left"),
        (120, None, 15.0, "120 frames, 8.0 per second"),
        (0, 900, 15.0, "0 of 900 frames"),
        (0, None, 15.0, "0 frames, 0.0 per second"),
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


def set_clock(times: Iterator[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The module's own clock tells these times; threads of other tests may look at the real one meanwhile."""
    monkeypatch.setattr("utils.runtime.console_log.time", SimpleNamespace(monotonic=lambda: next(times)))


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = iter((100.0, 100.0 + EVERY - 1, 100.0 + EVERY, 100.0 + EVERY + 1, 100.0 + 2 * EVERY))
    set_clock(clock, monkeypatch)
    monkeypatch.setattr("tqdm.std.time", lambda: 0.0)
    with Progress(60, "frame", "reading") as told:
        for _ in range(4):
            told.advance(15)
    assert told.done == 60
    # After 9, 10, 11 and 20 seconds: the second and the fourth are due.
    assert [record.getMessage() for record in caplog.records] == [
        "reading: 30 of 60 frames, 3.0 per second, 0:10 left",
        "reading: 60 of 60 frames, 3.0 per second, 0:00 left",
    ]


def told_by(
    steps: int, seconds: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, **settings: bool
) -> list[str]:
    """What is logged of so many steps of so many seconds each."""
    caplog.set_level(logging.INFO)
    set_clock(itertools.count(0.0, seconds), monkeypatch)
    for _ in with_progress(range(steps), steps, "batch", "epoch 0/9", **settings):
        pass
    return caplog.messages


@pytest.mark.case(
    "Words on the terminal", "progress where there is no terminal", "a line every ten seconds or tenth, no bar"
)
@pytest.mark.parametrize(
    ("steps", "seconds", "lines"),
    [
        (1000, 0.005, 0),  # 5 s
        (1000, 0.05, 4),  # 50 s, of which the first line comes after 10.05
        (1000, 0.2, 10),  # 200 s: every tenth
        (1000, 2.0, 33),  # 2000 s: every minute, long before a tenth
    ],
)
def test_lines_are_few(
    steps: int,
    seconds: float,
    lines: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = told_by(steps, seconds, monkeypatch, caplog)
    assert len(told) == lines
    assert all(re.match(r"epoch 0/9: \d+ of 1000 batches, \d+\.\d per second, \d+:\d\d left$", line) for line in told)
    assert capsys.readouterr() == ("", "")


def test_nothing_is_told_of_what_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert told_by(1000, 2.0, monkeypatch, caplog, shown=False) == []


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with Progress(30, "batch", "epoch 0/9") as progress:
        progress.advance(10, "box 0.1")
    assert "\repoch 0/9:   0%|" in screen.getvalue()
    assert told_by(1000, 2.0, monkeypatch, caplog) == []


def test_a_download_is_told_in_megabytes_and_goes_on_from_what_is_there() -> None:
    assert progress_line(6_000_000, 12_000_000, "B", 2.0, 4_000_000) == "6.0 of 12.0 MB, 1.0 MB per second"
    assert progress_line(6_000_000, None, "B", 2.0) == "6.0 MB, 3.0 MB per second"


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "row", "1 row"),
        (0, "row", "0 rows"),
        (2, "batch", "2 batches"),
        (2, "epoch", "2 epochs"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
    ],
)
def test_counts_and_nouns_agree(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text

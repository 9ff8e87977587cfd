"""What a verb says on the console: plain lines, how far it is, and errors as one line with an exit code."""

from __future__ import annotations

import atexit
import gc
import io
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO, TypeVar

from tqdm import tqdm

from utils.runtime.threads import share_processors
from utils.user_error import UserError

OWN_PACKAGES = ("models", "utils", "classify")
COLLECT_AFTER = 100_000  # new objects, of those that can be in a cycle; few of them hold more than some bytes
LOGGER = logging.getLogger(__name__)
SAID: set[str] = set()  # what need not be said again
_SAYING = threading.Lock()
EVERY = 10.0  # seconds at least between two lines of a progress, of which each tells a tenth more,
SELDOM = 60.0  # or these seconds, where a tenth takes longer
EACH_TIME = {"each_time": True}  # ``extra`` of a warning of an event, said whenever it happens
Item = TypeVar("Item")


def start_console_log(level: int = logging.INFO) -> None:
    """Send the program's log lines to standard output, warnings with their level in front.

    Only the loggers of this program's packages are touched; those of libraries stay as they are.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files and classes need not fit the console
    handler = _LinesAboveBars(sys.stdout)
    handler.setFormatter(_LineFormatter())
    handler.addFilter(_SaidOnce())
    SAID.clear()
    for package in OWN_PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


class _LinesAboveBars(logging.StreamHandler[TextIO]):
    """Writes lines; a bar that is on the terminal makes room for each."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(self.stream, nolock=True):
            super().emit(record)


class _SaidOnce(logging.Filter):
    """Lets a warning through the first time: what is wrong with a file that serves twice is said once."""

    def filter(self, record: logging.LogRecord) -> bool:
        repeats = record.levelno < logging.WARNING or record.__dict__.keys() & EACH_TIME
        return bool(repeats) or is_first(record.getMessage())


def is_first(subject: str) -> bool:
    """Whether this is the first call with ``subject`` since the log was started."""
    with _SAYING:
        said_before = len(SAID)
        SAID.add(subject)
        return len(SAID) > said_before


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return text if record.levelno < logging.WARNING else f"{record.levelname}: {text}"


def run_verb(verb: Callable[[], None]) -> int:
    """Run a script's work; the exit code it should end with. A user's mistake becomes one line, no traceback."""
    share_processors()
    # torch and matplotlib are half a million objects that stay, and by default Python looks through all of them each
    # time that some ten thousand were added: a twentieth of the time of val.py.
    gc.set_threshold(COLLECT_AFTER)
    # The interpreter would end with a garbage collection over every object of torch: 0.3 to 0.6 s for nothing.
    atexit.register(gc.freeze)
    # Of several processes (torchrun) the first speaks; the others only warn.
    start_console_log(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    try:
        verb()
    except UserError as error:
        if str(error):  # otherwise a program that was called has said why
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a full disk, no permission, a name too long: whatever the system refuses, in its words
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {' '.join(f'{where}{error.strerror or error}'.split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all that is left to do is to end
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def say_next(*lines: str, title: str = "next") -> None:
    """What goes on from a verb's results, a command a line, under one another."""
    for number, line in enumerate(lines):
        LOGGER.info("%s%s", " " * (len(title) + 2) if number else f"{title}: ", line)


class Progress:
    """Counts steps of ``unit`` up to ``total`` (None if nobody knows) and tells how long the rest will take.

    A terminal has a bar. In a file, where each state of a bar would stay, there is a line now and then.
    """

    def __init__(self, total: int | None, unit: str, title: str, *, done: int = 0, shown: bool = True) -> None:
        """``done``: steps taken before. With ``shown`` false nothing is told."""
        self.total, self.done, self.title, self.unit = total, done, title, unit
        # tqdm looks for a terminal by itself.
        disable = None if shown else True
        size = unit == "B"
        self._bar = tqdm(
            total=total, initial=done, unit=unit, unit_scale=size, desc=title, disable=disable, leave=False
        )
        self._lines = shown and self._bar.disable
        self._before, self._told_done = done, done
        self._start = self._told = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """So many more are done, none if only the ``note`` beside the bar is new."""
        self.done += steps
        if not self._lines:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(steps)
            if not steps:
                self._bar.refresh()  # or the note would not be seen
            return
        now = time.monotonic()
        tenth = self.total is not None and 10 * (self.done - self._told_done) >= self.total
        if now - self._told >= (EVERY if tenth else SELDOM):
            self._told, self._told_done = now, self.done
            line = progress_line(self.done, self.total, self.unit, now - self._start, self._before)
            LOGGER.info("%s: %s%s", self.title, line, f"; {note}" if note else "")


def with_progress(
    items: Iterable[Item], total: int | None, unit: str, title: str, *, shown: bool = True
) -> Iterator[Item]:
    """The items, each counted once it has been dealt with."""
    with Progress(total, unit, title, shown=shown) as progress:
        for item in items:
            yield item
            progress.advance()


def progress_line(done: int, total: int | None, unit: str, seconds: float, before: int = 0) -> str:
    """``120 of 900 frames, 8.0 per second, 1:37 left``, after ``seconds`` of work beyond what was done ``before``."""
    rate = (done - before) / max(seconds, 1e-9)
    if unit == "B":
        of = "" if total is None else f" of {total / 1e6:.1f}"
        return f"{done / 1e6:.1f}{of} MB, {rate / 1e6:.1f} MB per second"
    if total is None or not rate:
        return f"{done} of {counted(total, unit)}" if total else f"{counted(done, unit)}, {rate:.1f} per second"
    minutes, rest = divmod(round(max(total - done, 0) / rate), 60)
    return f"{done} of {counted(total, unit)}, {rate:.1f} per second, {minutes}:{rest:02d} left"


def counted(number: int, noun: str) -> str:
    """``1 row``, ``2 rows``; ``2 batches``, ``2 epochs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith(('s', 'tch')) else 's'}"


@contextmanager
def unheard() -> Iterator[None]:
    """Keep off the console what a library says there, past Python too: greetings and advice at every start."""
    with tempfile.TemporaryFile() as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)

"""What a verb says on the console: plain lines, how far it is, and errors as one line with an exit code."""

from __future__ import annotations

import atexit
import gc
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

from utils.user_error import UserError

OWN_PACKAGES = ("models", "utils", "classify")
COLLECT_AFTER = 100_000  # new objects, of those that can be in a cycle; few of them hold more than some bytes
LOGGER = logging.getLogger(__name__)
SAID: set[str] = set()  # what need not be said again
_SAYING = threading.Lock()
EVERY = 15.0  # seconds between two lines


def start_console_log(level: int = logging.INFO) -> None:
    """Send the program's log lines to standard output, warnings with their level in front.

    Only the loggers of this program's packages are touched; those of libraries stay as they are.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files and classes need not fit the console
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_LineFormatter())
    handler.addFilter(_SaidOnce())
    SAID.clear()
    for package in OWN_PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


class _SaidOnce(logging.Filter):
    """Lets a warning through the first time: what is wrong with a file that serves twice is said once."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno != logging.WARNING or is_first(record.getMessage())


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

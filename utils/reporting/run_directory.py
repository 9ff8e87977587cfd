"""The folder of one run: ``runs/train/exp``, ``exp2``, ... held by a lock while the run writes to it.

What a run leaves out of its data set is listed there.
"""

from __future__ import annotations

import fcntl
import glob
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from utils.runtime.atomic_files import write_text
from utils.runtime.console_log import counted
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)
SHOWN_PROBLEMS = 5  # on the console


def new_run_directory(project: str, name: str, *, exist_ok: bool, set_aside: Sequence[str] = ()) -> Path:
    """Make the folder of a new run and give its path.

    An existing ``name`` is followed by ``name2``, ``name3``, ... unless ``exist_ok``. Two runs that start at once get
    two folders, as making a folder succeeds only once. What an earlier run left there under the names ``set_aside``
    (patterns) is renamed to ``*.older``, so that nothing of it passes for what this run found.
    """
    first = Path(project) / name  # a name may hold folders
    try:
        if exist_ok:
            first.mkdir(parents=True, exist_ok=True)
            set_aside_older(first, set_aside)
            return first
        first.parent.mkdir(parents=True, exist_ok=True)
        number = _highest_number(first) + 1
        while True:
            folder = first if number == 1 else first.parent / f"{first.name}{number}"
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1
    except OSError as error:
        raise UserError(f"{error.filename}: cannot make the run's folder: {error.strerror}") from error


def set_aside_older(folder: Path, patterns: Sequence[str]) -> None:
    """Rename what an earlier run left in ``folder`` under names of these patterns to ``*.older``, and say so."""
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    for path in found:
        older = path.with_name(f"{path.name}.older")
        if older.is_dir():  # a folder takes the place of none that has something in it
            shutil.rmtree(older)
        path.replace(older)
    if found:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        LOGGER.warning("%s: %s of an earlier run kept as *.older", folder, names)


def _highest_number(first: Path) -> int:
    numbers = [0]
    for folder in first.parent.glob(f"{glob.escape(first.name)}*"):
        match = re.fullmatch(re.escape(first.name) + r"(\d*)", folder.name)
        if match:
            numbers.append(int(match[1] or 1))
    return max(numbers)


@contextmanager
def hold_run_directory(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock ends with the process, however it ends, its file with the run.

    Raises:
        UserError: another process holds it (its id is named).
    """
    path = folder / ".lock"
    with path.open("a+", encoding="utf-8") as lock:
        try:
            # A record lock is the process's own. flock would pass to the loading workers, who outlive a killed run
            # by some seconds.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(lock.fileno()).st_nlink:  # a run that ended in this moment has removed the file
                raise BlockingIOError
        except (BlockingIOError, PermissionError):
            lock.seek(0)
            raise UserError(
                f"{folder}: another run (process {lock.read().strip() or 'unknown'}) writes there"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def write_problems(folder: Path, problems: Iterable[object]) -> None:
    """List files and rows of the data set that a run leaves out in ``problems.txt``, one a line, if there are any.

    The console has the first of them too.
    """
    lines = list(dict.fromkeys(" ".join(str(problem).split()) for problem in problems))
    if lines:
        write_text(folder / "problems.txt", "".join(f"{line}\n" for line in lines))
        verb, shown = "is" if len(lines) == 1 else "are", lines[:SHOWN_PROBLEMS]
        rest = [f"and {len(lines) - len(shown)} more"] if len(lines) > len(shown) else []
        listed = "".join(f"\n  {line}" for line in [*shown, *rest])
        count, file = counted(len(lines), "problem"), folder / "problems.txt"
        LOGGER.warning("%s in the data set %s listed in %s:%s", count, verb, file, listed)

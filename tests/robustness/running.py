"""The scripts run as a user runs them, but in this process: hundreds of cases in the time of a few program starts."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from utils.runtime.console_log import run_verb

Preparation = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a script ended and what it said."""

    code: int
    output: str
    errors: str

    @property
    def error_lines(self) -> list[str]:
        """Standard error without progress bars."""
        parts = [part.strip() for part in re.split(r"[\r\n]+", self.errors)]
        return [part for part in parts if part and not re.search(r"\|\s+\d+/\d+ \[|\d+\w* \[\d\d:", part)]


def run(script: object, *arguments: object, folder: Path) -> Outcome:
    """``python SCRIPT.py ARGUMENTS`` in ``folder``; an exception that is no user's mistake comes out as it is."""
    verb = importlib.import_module(str(script)).main
    output, errors = io.StringIO(), io.StringIO()
    argv, here = sys.argv, Path.cwd()
    sys.argv = [f"{script}.py", *map(str, arguments)]
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = run_verb(verb)
    finally:
        sys.argv = argv
        os.chdir(here)
    return Outcome(code, output.getvalue(), errors.getvalue())


def succeeds(script: str, *arguments: object, folder: Path) -> Outcome:
    """Like `run`, for a command that has to work."""
    outcome = run(script, *arguments, folder=folder)
    assert outcome.code == 0, outcome.errors[-2000:]
    return outcome


@dataclass(frozen=True, slots=True)
class Refusal:
    """A command that ends in one line before any work starts."""

    area: str  # heading in docs/robustness.md
    case: str
    command: str  # script and flags; {weights}, {data}, ... stand for files that are in order
    line: str  # is part of the one line
    code: int = 1
    files: Preparation | None = None  # writes what is wrong into the working folder

    def param(self) -> object:
        """The case as a parameter of a test, with its row of the table."""
        outcome = f"exit {self.code}: “{self.line}”"
        return pytest.param(self, id=slug(self.case), marks=pytest.mark.case(self.area, self.case, outcome))

    def check(self, folder: Path, **places: object) -> None:
        """Run the command in ``folder``: the exit code, the one line, and no run folder."""
        if self.files is not None:
            self.files(folder)
        script, *arguments = (word.format(**places) for word in shlex.split(self.command))
        outcome = run(script, *arguments, folder=folder)
        assert outcome.code == self.code, (outcome.code, outcome.errors, outcome.output[-500:])
        assert len(outcome.error_lines) == 1, outcome.errors
        (line,) = outcome.error_lines
        assert line.startswith("error: ") and self.line in line, line
        assert len(line) < 500, line
        assert not (folder / "runs").exists(), "a run folder was made before the mistake was seen"


def slug(text: str) -> str:
    """A case's name as a test id."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def write(name: str, content: str | bytes) -> Preparation:
    """Writes one file into the working folder."""

    def prepare(folder: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)

    return prepare

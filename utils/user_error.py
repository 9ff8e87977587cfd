"""The one exception that stands for a user's mistake, and the program's name as its messages give it.

The message of the exception is the whole line that the user sees.
"""

from __future__ import annotations

import sys
from pathlib import Path

CONSOLE_COMMAND = "yolov5-spd"


class UserError(Exception):
    """A mistake in the user's files or a failed run: one line naming file, line and value. Exit code 1.

    The line is empty where a program that was called has said it already.
    """

    exit_code = 1

    def __str__(self) -> str:
        """One line, whatever a file name or a value of the user's holds."""
        return " ".join(super().__str__().splitlines())


class UsageError(UserError):
    """A mistake on the command line. Exit code 2."""

    exit_code = 2


def typed(script: str) -> str:
    """What the user types to run ``train.py``, ``python classify/val.py`` or ``python -m utils.dataset.split``.

    That is the text itself, or ``yolov5-spd train``, ``yolov5-spd classify val`` and ``yolov5-spd split`` where the
    program was called by its console command, which puts its words into ``sys.argv[0]``, or is an installed copy,
    whose scripts lie among packages.
    """
    installed = not {"site-packages", "dist-packages"}.isdisjoint(Path(__file__).parts)
    if not installed and not sys.argv[0].startswith(f"{CONSOLE_COMMAND} "):
        return script
    words = script.removeprefix("python ").removeprefix("-m utils.dataset.").removesuffix(".py")
    return f"{CONSOLE_COMMAND} {words.replace('/', ' ')}"

"""The one exception that stands for a user's mistake: its message is the whole line that the user sees."""

from __future__ import annotations


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

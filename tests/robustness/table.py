"""Writes docs/robustness.md out of the marks of the tests: ``python -m tests.robustness.table``.

Every test that carries ``@pytest.mark.case(area, case, outcome)`` is a row; the page cannot name a case without a test.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import pytest

from tests.shared_data import REPOSITORY

PAGE = REPOSITORY / "docs" / "robustness.md"
HEADING = """\
# What happens when something is wrong

Written by `python -m tests.robustness.table` out of the tests; do not edit. Each case is tried through the scripts as a
user would try it, or on the reader that every script uses. In no case is there a traceback, a wrong result without a
word, a payload that runs, or an end that does not come.

{count} cases. “...” is part of the one line that the script prints.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A case, what happens, and the test that shows it."""

    area: str
    case: str
    outcome: str
    test: str


class _Collector:
    """A pytest plugin that keeps the marked tests instead of running them."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("case"):
                area, case, outcome = mark.args
                self.rows.append(Row(area, case, outcome, item.nodeid))


def collected_rows() -> list[Row]:
    """The rows of all tests of the repository, in the order of their files."""
    collector = _Collector()
    with contextlib.redirect_stdout(io.StringIO()) as output:
        arguments = ["--collect-only", "-q", "-p", "no:cacheprovider", "--rootdir", str(REPOSITORY)]
        code = pytest.main([*arguments, str(REPOSITORY / "tests")], plugins=[collector])
    if code != pytest.ExitCode.OK:
        raise RuntimeError(output.getvalue()[-2000:])
    return collector.rows


def page(rows: list[Row]) -> str:
    """The page as text."""
    parts = [HEADING.format(count=len(rows))]
    for area in dict.fromkeys(row.area for row in rows):
        parts.append(f"\n## {area}\n\n| case | what happens | test |\n|---|---|---|\n")
        parts += [
            f"| {_cell(row.case)} | {_cell(row.outcome)} | `{_cell(row.test)}` |\n" for row in rows if row.area == area
        ]
    return "".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(collected_rows()), encoding="utf-8")

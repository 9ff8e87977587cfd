"""Writes the cases of docs/robustness.md out of the marks of the tests: ``python -m tests.robustness.table``.

Every test that carries ``@pytest.mark.case(area, case, outcome)`` is a row; the page cannot name a case without a test.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import pytest

from tests.shared_data import REPOSITORY

PAGE = REPOSITORY / "docs" / "robustness.md"
BEGIN = "<!-- cases: begin -->\n"
HEADING = """
{count} cases. “...” is part of the one line that the script prints. This part of the page is written by
`python -m tests.robustness.table`.

{areas}
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


def cases(rows: list[Row]) -> str:
    """What stands behind ``BEGIN``: a table for each area, in which a test with several parameters is one row."""
    areas = dict.fromkeys(row.area for row in rows)
    tables = {area: [row for row in rows if row.area == area] for area in areas}
    links = ",\n".join(f"[{area}](#{_anchor(area)}) {len(own)}" for area, own in tables.items())
    parts = [HEADING.format(count=len(rows), areas=links)]
    for area, own in tables.items():
        parts.append(f"\n### {area}\n\n| case | what happens | test |\n|---|---|---|\n")
        same: dict[tuple[str, str, str], list[Row]] = {}
        for row in own:
            same.setdefault((row.case, row.outcome, row.test.partition("[")[0]), []).append(row)
        for (case, outcome, function), alike in same.items():
            test = alike[0].test if len(alike) == 1 else function
            parts.append(f"| {_cell(case)} | {_cell(outcome)} | `{_cell(test)}` |\n")
    return "".join(parts)


def page(text: str, rows: list[Row]) -> str:
    """The page with its table written anew; what people wrote before ``BEGIN`` stays."""
    return text.partition(BEGIN)[0] + BEGIN + cases(rows)


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), collected_rows()), encoding="utf-8")

"""docs/robustness.md is what the tests say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.robustness.table import PAGE, Row, page
from tests.shared_data import REPOSITORY

PROGRAM = "from tests.robustness.table import collected_rows, page; print(page(collected_rows()), end='')"


@pytest.mark.slow
def test_the_page_is_current_and_long_enough() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout == PAGE.read_text(encoding="utf-8"), "run python -m tests.robustness.table"
    assert result.stdout.count("::test_") >= 150


def test_a_row_names_case_outcome_and_test() -> None:
    text = page([Row("Images", "a | b", "skipped", "tests/x.py::test_y")])
    assert "## Images" in text and "| a \\| b | skipped | `tests/x.py::test_y` |" in text

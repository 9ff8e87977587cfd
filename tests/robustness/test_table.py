"""The cases of docs/robustness.md are what the tests say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.robustness.table import BEGIN, PAGE, Row, cases, page
from tests.shared_data import REPOSITORY

PROGRAM = "from tests.robustness.table import collected_rows, cases; print(cases(collected_rows()), end='')"


@pytest.mark.slow
def test_the_page_is_current_and_long_enough() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout == PAGE.read_text(encoding="utf-8").partition(BEGIN)[2], "run python -m tests.robustness.table"
    assert result.stdout.count("::test_") >= 150


def test_a_row_names_case_outcome_and_test() -> None:
    text = cases([Row("Images", "a | b", "skipped", "tests/x.py::test_y")])
    assert "### Images" in text and "| a \\| b | skipped | `tests/x.py::test_y` |" in text


def test_parameters_of_one_test_are_one_row() -> None:
    rows = [Row("Hostile files", "a", "refused", f"tests/x.py::test_y[{each}]") for each in (1, 2)]
    text = cases([*rows, Row("Hostile files", "b", "refused", "tests/x.py::test_y[3]")])
    assert text.count("\n| a |") == 1 and "| a | refused | `tests/x.py::test_y` |" in text
    assert "| b | refused | `tests/x.py::test_y[3]` |" in text
    assert "\n3 cases." in text and "[Hostile files](#hostile-files) 3" in text


def test_what_people_wrote_stays() -> None:
    text = page(f"# Promise\n\n{BEGIN}old rows", [Row("Images", "a", "skipped", "tests/x.py::test_y")])
    assert text.startswith(f"# Promise\n\n{BEGIN}\n1 cases.") and "old rows" not in text

"""Label rows: what is used, what is not, and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.dataset.label_files import parse_labels, read_label_file


def test_boxes_and_outlines_in_one_file() -> None:
    found = parse_labels("2 0.5 0.5 0.2 0.4\n\n1 0.1 0.2 0.5 0.2 0.5 0.8\n", "f")
    np.testing.assert_allclose(found.rows, [[2, 0.5, 0.5, 0.2, 0.4], [1, 0.3, 0.5, 0.4, 0.6]], rtol=1e-6)
    assert found.lines.tolist() == [1, 3]
    assert found.polygons[0] is None
    np.testing.assert_allclose(found.polygons[1], [[0.1, 0.2], [0.5, 0.2], [0.5, 0.8]], rtol=1e-6)  # type: ignore[arg-type]
    assert found.problems == ()


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("0 0.5 0.5 0.2", "4 columns"),
        ("0 0.5 0.5 0.2 0.2 0.9", "6 columns"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "8 columns"),
        ("cat 0.5 0.5 0.2 0.2", "'cat' is not a number"),
        ("0 nan 0.5 0.2 0.2", "'nan' is not a finite number"),
        ("0 0.5 inf 0.2 0.2", "'inf' is not a finite number"),
        ("-1 0.5 0.5 0.2 0.2", "class -1"),
        ("1.5 0.5 0.5 0.2 0.2", "class 1.5"),
        ("1e99 0.5 0.5 0.2 0.2", "class 1e99"),
        ("0 -0.1 0.5 0.2 0.2", "-0.1 is outside"),
        ("0 0.5 1.01 0.2 0.2", "1.01 is outside"),
        ("0 0.5 0.5 0 0.2", "no area"),
        ("0 0.5 0.5 0.2 1e-60", "no area"),
        ("0 0.1 0.1 0.2 0.1 0.3 0.1", "no area"),
    ],
)
def test_a_bad_row_is_a_problem_and_costs_no_other(row: str, text: str) -> None:
    found = parse_labels(f"1 0.5 0.5 0.2 0.2\n{row}\n2 0.4 0.4 0.1 0.1\n", "some.txt")
    assert found.rows[:, 0].tolist() == [1, 2]
    assert found.lines.tolist() == [1, 3]
    (problem,) = found.problems
    assert str(problem).startswith("some.txt:2: ")
    assert text in problem.text


def test_repeated_rows_are_dropped_in_order() -> None:
    found = parse_labels("2 .5 .5 .2 .2\n0 .5 .5 .2 .2\n2 0.5 0.50 0.2 0.2\n", "f")
    assert found.rows[:, 0].tolist() == [2, 0]
    assert found.duplicates == 1


def test_byte_order_mark_windows_line_ends_and_tabs(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf0\t0.5 0.5 0.2 0.2\r\n\r\n1 0.5 0.5 0.2 0.3\r\n")
    found = read_label_file(path)
    assert found.rows[:, 0].tolist() == [0, 1]
    assert found.lines.tolist() == [1, 3]
    assert found.problems == ()


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe\0\0")
    assert [str(problem) for problem in read_label_file(path).problems] == [f"{path}: not a text file"]
    assert read_label_file(tmp_path).problems[0].line == 0


def test_empty_file_is_no_problem() -> None:
    found = parse_labels(" \n\n", "f")
    assert found.rows.shape == (0, 5)
    assert found.problems == ()


NUMBER = st.one_of(st.floats(0, 1), st.floats(), st.integers(-3, 99)).map(str)
ROW = st.lists(st.one_of(NUMBER, st.text(max_size=3)), max_size=9).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, max_size=6))
def test_any_text_gives_sound_rows_and_accounts_for_every_line(rows: list[str]) -> None:
    text = "\n".join(rows)
    found = parse_labels(text, "f")
    filled = sum(1 for line in text.split("\n") if line.split())
    assert len(found.rows) + found.duplicates + len(found.problems) == filled
    assert np.isfinite(found.rows).all()
    assert (found.rows[:, 3:] > 0).all()
    assert ((found.rows[:, 1:] >= 0) & (found.rows[:, 1:] <= 1)).all()
    assert len(found.polygons) == len(found.lines) == len(found.rows)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 90), *[st.floats(0.01, 1)] * 4), min_size=1, max_size=8))
def test_the_fast_path_and_the_slow_one_agree(rows: list[tuple[float, ...]]) -> None:
    text = "\n".join(" ".join(map(str, row)) for row in rows)
    fast, slow = parse_labels(text, "f"), parse_labels(text + "\nbad", "f")
    np.testing.assert_array_equal(fast.rows, slow.rows)
    np.testing.assert_array_equal(fast.lines, slow.lines)

"""What a run says about files and rows that it leaves out."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utils.dataset.label_files import LabelProblem
from utils.dataset.label_index import LabelIndex, PathList
from utils.reporting.dataset_problems import report_problems


def index_with(*problems: LabelProblem) -> LabelIndex:
    """Two images without objects."""
    none = np.zeros(2, np.int64)
    return LabelIndex(
        paths=PathList(["a.jpg", "b.jpg"]),
        sizes=np.full((2, 2), 10, np.int32),
        rows=np.zeros((0, 5), np.float32),
        row_ends=none,
        points=np.zeros((0, 2), np.float32),
        point_ends=none[:0],
        ignored=np.zeros((0, 5), np.float32),
        ignored_ends=none,
        unlabelled=1,
        duplicates=0,
        problems=problems,
    )


def test_a_set_without_problems_leaves_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    report_problems(tmp_path, {"train": index_with(), "val": replace(index_with(), duplicates=3)})
    assert [record.getMessage() for record in caplog.records] == [
        "train: 2 images, 0 objects, 1 without labels",
        "val: 2 images, 0 objects, 1 without labels, 3 repeated rows dropped",
    ]
    assert list(tmp_path.iterdir()) == []


def test_each_problem_is_one_line_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad_row = LabelProblem("a.txt", 3, "1.5 is outside 0 to 1")
    bad_file = LabelProblem("odd\nname.jpg", 0, "not an image")
    parts = {"train": index_with(bad_row, bad_file), "val": index_with(bad_row)}  # the same folder for both
    report_problems(tmp_path, parts)
    assert (tmp_path / "problems.txt").read_text().splitlines() == [
        "a.txt:3: 1.5 is outside 0 to 1",
        "odd name.jpg: not an image",
    ]
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage() == f"2 problems in the data set are listed in {tmp_path / 'problems.txt'}"

"""Numbering and holding of run folders, and what a run says about files and rows that it leaves out."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared_data import REPOSITORY
from utils.dataset.label_files import LabelProblem
from utils.reporting.run_directory import hold_run_directory, new_run_directory, write_problems
from utils.user_error import UserError


def test_runs_are_numbered(tmp_path: Path) -> None:
    made = [new_run_directory(str(tmp_path), "exp", exist_ok=False).name for _ in range(3)]
    assert made == ["exp", "exp2", "exp3"]
    (tmp_path / "exp10").mkdir()
    assert new_run_directory(str(tmp_path), "exp", exist_ok=False).name == "exp11"
    assert new_run_directory(str(tmp_path), "exp", exist_ok=True).name == "exp"


def test_other_names_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "experiment7").mkdir()
    (tmp_path / "exp_2").mkdir()
    assert new_run_directory(str(tmp_path), "exp", exist_ok=False).name == "exp"


@pytest.mark.parametrize("name", ["my-exp", "v1.0", "two words", "group/exp", "odd[1]", "odd*?"])
def test_numbers_go_on_whatever_the_name(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}10").mkdir(parents=True)
    made = [new_run_directory(str(tmp_path), name, exist_ok=False) for _ in range(2)]
    assert made == [tmp_path / f"{name}11", tmp_path / f"{name}12"]
    assert new_run_directory(str(tmp_path), name, exist_ok=True) == tmp_path / name


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="cannot make the run's folder"):
        new_run_directory(str(tmp_path / "runs"), "exp", exist_ok=False)


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from utils.reporting.run_directory import hold_run_directory\n"
        "with hold_run_directory(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {other.pid}"), hold_run_directory(tmp_path):
            pass
        other.kill()
    with hold_run_directory(tmp_path):  # the lock ended with its process
        pass


def test_nothing_left_out_leaves_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write_problems(tmp_path, ())
    assert caplog.records == [] and list(tmp_path.iterdir()) == []


@pytest.mark.case(
    "Words on the terminal", "more than five problems in a data set", "five on the terminal, all in problems.txt"
)
def test_the_first_problems_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "problems.txt"
    problems = [LabelProblem("a.txt", line, "bad") for line in range(1, 8)]
    for count, head, last in (
        (1, "1 problem in the data set is listed", "  a.txt:1: bad"),
        (5, "5 problems in the data set are listed", "  a.txt:5: bad"),
        (7, "7 problems in the data set are listed", "  and 2 more"),
    ):
        write_problems(tmp_path, problems[:count])
        lines = caplog.messages[-1].splitlines()
        assert (lines[0], lines[-1], len(lines)) == (f"{head} in {file}:", last, 2 + min(count - 1, 5))
        assert len(file.read_text().splitlines()) == count


def test_each_problem_is_one_line_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad_row = LabelProblem("a.txt", 3, "1.5 is outside 0 to 1")
    bad_file = LabelProblem("odd\nname.jpg", 0, "not an image")
    write_problems(tmp_path, (bad_row, bad_file, bad_row))  # one folder for two parts of the set
    assert (tmp_path / "problems.txt").read_text().splitlines() == [
        "a.txt:3: 1.5 is outside 0 to 1",
        "odd name.jpg: not an image",
    ]
    (warning,) = caplog.records
    assert (warning.levelname, warning.getMessage()) == (
        "WARNING",
        f"2 problems in the data set are listed in {tmp_path / 'problems.txt'}:\n"
        "  a.txt:3: 1.5 is outside 0 to 1\n  odd name.jpg: not an image",
    )

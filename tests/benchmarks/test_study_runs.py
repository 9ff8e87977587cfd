"""The runs of a study: order, budget, what a killed study finds again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.study_runs import (
    FIGURES,
    HELD_BACK,
    RANDOM,
    CpuBudget,
    RunResult,
    StudyFolder,
    StudyRun,
    expected_seconds,
    ordered_runs,
)
from tests.end_to_end.scripts import environment
from utils.user_error import UsageError, UserError

RUN = StudyRun("cells-160", RANDOM, "small", 0)


def result(run: StudyRun, cpu_seconds: float = 60.0) -> RunResult:
    return RunResult(run, dict.fromkeys(HELD_BACK, dict.fromkeys(FIGURES, 0.25)), cpu_seconds)


def test_whole_seeds_come_first() -> None:
    runs = ordered_runs(["a", "b"], [RANDOM, "x.pt"], ["m", "n"], [0, 1])
    assert len(runs) == len(set(runs)) == 2 * 2 * 2 * 2
    assert [run.seed for run in runs] == [0] * 8 + [1] * 8
    assert [(run.data, run.start, run.model) for run in runs[:4]] == [
        ("a", RANDOM, "m"),
        ("a", RANDOM, "n"),
        ("a", "x.pt", "m"),
        ("a", "x.pt", "n"),
    ]


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("2.5h", 9000), ("1h", 3600)])
def test_a_budget_is_written_in_minutes_or_hours(text: str, seconds: float) -> None:
    assert CpuBudget.parse(text).seconds == seconds


@pytest.mark.parametrize("text", ["90", "2 h", "-1h", "0m", "1d", ""])
def test_any_other_budget_is_a_line(text: str) -> None:
    with pytest.raises(UsageError, match="--cpu-budget"):
        CpuBudget.parse(text)


def test_a_run_is_expected_to_take_as_long_as_the_longest_like_it() -> None:
    finished = [
        result(StudyRun("a", RANDOM, "m", 0), 100),
        result(StudyRun("a", RANDOM, "m", 1), 120),
        result(StudyRun("a", RANDOM, "n", 0), 300),
        result(StudyRun("b", RANDOM, "m", 0), 900),
    ]
    assert expected_seconds(StudyRun("a", RANDOM, "m", 2), finished) == 120
    assert expected_seconds(StudyRun("a", RANDOM, "new", 0), finished) == 300  # the longest on the same data
    assert expected_seconds(StudyRun("c", RANDOM, "m", 0), finished) == 0
    run = StudyRun("a", RANDOM, "m", 2)
    assert CpuBudget(1420 + 120).admits(run, finished)
    assert not CpuBudget(1420 + 119).admits(run, finished)


def test_a_finished_run_is_found_again_and_not_done_twice(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    with folder.claimed(RUN) as mine:
        assert mine
        folder.keep(result(RUN, 12.5))
    again = StudyFolder(tmp_path)
    assert again.results() == [result(RUN, 12.5)]
    with again.claimed(RUN) as mine:
        assert not mine
    with again.claimed(StudyRun("cells-160", RANDOM, "small", 1)) as mine:
        assert mine


def test_weights_of_the_same_file_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.keep(result(StudyRun("cells-160", "exp/best.pt", "small", 0)))
    other = StudyRun("cells-160", "exp2/best.pt", "small", 0)
    with pytest.raises(UserError, match=r"exp/best\.pt, not exp2/best\.pt"), folder.claimed(other):
        pass


def test_a_run_in_another_process_is_left_to_it_and_taken_over_when_it_dies(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from benchmarks.study_runs import StudyFolder, StudyRun\n"
        f"with StudyFolder(Path({str(tmp_path)!r})).claimed(StudyRun('cells-160', 'random', 'small', 0)) as mine:\n"
        "    print(mine, flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    with StudyFolder(tmp_path).claimed(RUN) as mine:
        assert not mine
    other.kill()
    other.wait()
    with StudyFolder(tmp_path).claimed(RUN) as mine:
        assert mine
    other.communicate()


def test_other_settings_do_not_mix_with_a_study(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.settle({"epochs": 40, "seeds": (0, 1)})
    folder.settle({"epochs": 40, "seeds": (0, 1)})
    with pytest.raises(UserError, match="epochs 40, not 50"):
        StudyFolder(tmp_path).settle({"epochs": 50, "seeds": (0, 1)})


def test_a_damaged_result_is_one_line(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    (folder.results_folder / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json: not a run of a study"):
        folder.results()

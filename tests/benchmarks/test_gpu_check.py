"""The check of a GPU: its comparisons, and how a table is made; ``tests/cuda`` runs it whole on a pretended GPU."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check import NotRun, Outcome, boxes_of, check, difference, same_figures, unmatched
from benchmarks.gpu_runs import Bench, Sizes, as_flags
from tests.end_to_end.scripts import environment


def test_losses_are_compared_by_the_largest_part() -> None:
    assert difference({"box": 1.02, "obj": 2.0}, {"box": 1.0, "obj": 1.9}) == pytest.approx(0.1 / 1.9)
    assert difference({"box": math.nan, "obj": 2.0}, {"box": 1.0, "obj": 2.0}) == math.inf


def test_boxes_without_a_partner_are_counted_on_both_sides(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.2 0.9\n1 0.25 0.25 0.1 0.1 0.8\n")
    first = boxes_of(tmp_path / "a.txt")
    torch.testing.assert_close(first[0], torch.tensor([0, 0.4, 0.4, 0.6, 0.6, 0.9]))
    assert len(boxes_of(tmp_path / "nothing-found.txt")) == 0
    assert unmatched(first, first, 0.95) == 0
    moved = first.clone()
    moved[0, 1:5:2] += 0.1  # IoU 1/3
    moved[1, 0] = 2  # another class
    assert unmatched(moved, first, 0.95) == 4
    assert unmatched(moved, first, 0.3) == 2
    assert unmatched(first[:0], first, 0.5) == 2


def test_figures_may_differ_by_what_the_precision_allows() -> None:
    cpu = {"map50_95": 0.5}
    gpu = {"map50_95": 0.503, "speed_ms": {"inference": 2.0}}
    assert same_figures(gpu, cpu, "fp32") == (False, "mAP 0.5030, on the CPU 0.5000", 2.0)
    assert same_figures(gpu, cpu, "fp16").passed


def test_settings_become_flags() -> None:
    given = {"weights": "", "imgsz": 64, "noval": True, "rect": False, "loggers": ("none",), "tile": None, "workers": 0}
    assert as_flags(given) == ["--weights", "", "--imgsz", "64", "--noval", "--loggers", "none", "--workers", "0"]


def test_a_check_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: Bench) -> Outcome:
        raise RuntimeError("val.py failed:\nTraceback\nValueError: a | b")

    def lacks(_: Bench) -> Outcome:
        raise NotRun("one GPU here")

    found = {"good": lambda _: Outcome(True, "AP 0.5", 1.234), "off": lambda _: Outcome(False, "AP 0.1")}
    monkeypatch.setattr(gpu_check, "CHECKS", {**found, "broken": fails, "lacking": lacks})
    monkeypatch.setattr(Bench, "fill", lambda _: None)
    rows = check(Bench("cpu", tmp_path, Sizes()), list(gpu_check.CHECKS), tmp_path / "page.md")
    assert rows == [
        ("good", "passed", "AP 0.5", "1.23"),
        ("off", "FAILED", "AP 0.1", ""),
        ("broken", "FAILED", "ValueError: a / b", ""),
        ("lacking", "not run", "one GPU here", ""),
    ]
    page = (tmp_path / "page.md").read_text()
    assert page == capsys.readouterr().out and page.endswith("| lacking | not run | one GPU here |  |\n")
    late = check(Bench("cpu", tmp_path, Sizes(seconds=-1)), ["good"], tmp_path / "page.md")
    assert late == [("good", "not run", "out of time", "")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check"], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1 and not done.stdout and not list(tmp_path.iterdir())
    assert done.stderr == f"error: gpu_check: torch {torch.__version__} sees no CUDA GPU here\n"

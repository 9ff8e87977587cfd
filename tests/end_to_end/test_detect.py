"""detect.py as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.scripts import command, environment, run_script
from tests.exporting.small_model import write_small_checkpoint
from tests.shared_data import REPOSITORY

pytestmark = pytest.mark.slow


def test_without_a_source_it_takes_the_images_of_the_repository(tmp_path: Path) -> None:
    weights = write_small_checkpoint(tmp_path / "small.pt")
    result = run_script("detect.py", "--weights", weights, "--project", tmp_path / "runs", folder=REPOSITORY)
    frames, last = result.stdout.splitlines()[-2:]
    assert re.match(r"2 images, [\d.]+ ms per image: \d+ ", frames)
    assert last == f"results in {tmp_path}/runs/exp"
    assert len(list((tmp_path / "runs" / "exp").glob("*.jpg"))) == 2


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    result = run_script("detect.py", "--source", "nowhere", folder=tmp_path, expect=1)
    assert result.stderr.splitlines() == ["error: nowhere: no such file or folder"]
    result = run_script("detect.py", "--sorce", "nowhere", folder=tmp_path, expect=2)
    assert result.stderr.splitlines() == ["error: detect.py: unknown flag --sorce (did you mean --source?)"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to processors here")
def test_the_first_line_says_how_many_threads_the_processors_allow(tmp_path: Path) -> None:
    weights = write_small_checkpoint(tmp_path / "small.pt")
    words = command("detect.py", "--weights", weights, "--device", "cpu", "--project", tmp_path / "runs")
    one = min(os.sched_getaffinity(0))
    result = subprocess.run(
        ["taskset", "-c", str(one), *words],
        cwd=REPOSITORY,
        env={name: value for name, value in environment().items() if name != "OMP_NUM_THREADS"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[0] == f"detecting with {weights} on cpu (1 thread)"

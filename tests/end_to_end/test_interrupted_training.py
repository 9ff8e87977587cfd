"""Runs that are killed at any moment or meet a full disk, and resumed: they end where the undisturbed run ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.end_to_end.scripts import command, environment, run_script
from tests.small_dataset import write_small_dataset

pytestmark = pytest.mark.slow
FLAGS = ("--weights", "", "--cfg", "yolov5n-spd.yaml", "--img", 64, "--batch-size", 4, "--epochs", 4, "--noplots")
KILLS = 5
# train.py in a process that is killed while it writes its n-th checkpoint, after the bytes and before the renaming.
KILLED_IN_A_WRITE = """
import os, signal, sys
from utils.runtime import atomic_files
wait = int(sys.argv.pop(1))
sync = os.fsync
def fsync(number):
    global wait
    if ".last.pt." in os.readlink(f"/proc/self/fd/{number}"):
        wait -= 1
        if wait == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    sync(number)
atomic_files.os.fsync = fsync
import train
train.main()
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("small"), train=20, val=4)


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a run that nothing disturbed, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    start = time.monotonic()
    run_script("train.py", *FLAGS, "--data", dataset, "--workers", 0, folder=folder)
    return folder / "runs" / "train" / "exp", time.monotonic() - start


def assert_same_run(run: Path, expected: Path) -> None:
    for name in ("last.pt", "best.pt"):
        own, other = (torch.load(folder / "weights" / name, weights_only=True)["model"] for folder in (run, expected))
        assert own.keys() == other.keys() and len(own) > 100
        assert [key for key in own if not torch.equal(own[key], other[key])] == []
    assert (run / "results.csv").read_text() == (expected / "results.csv").read_text()


def test_killed_at_random_moments(dataset: Path, undisturbed: tuple[Path, float], tmp_path: Path) -> None:
    expected, duration = undisturbed
    seed = int(os.environ.get("KILL_SEED", time.time_ns() % 1_000_000))
    print(f"KILL_SEED={seed}")
    draw = random.Random(seed)
    run, killed = tmp_path / "runs" / "train" / "exp", 0
    while killed < KILLS:
        begun = (run / "weights" / "last.pt").is_file()
        flags = ("--resume", run / "weights" / "last.pt") if begun else (*FLAGS, "--data", dataset, "--exist-ok")
        with subprocess.Popen(
            command("train.py", *flags, "--workers", killed % 3),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                # A resumed run has less to do; its end is not of interest.
                _, errors = process.communicate(timeout=draw.uniform(0.2, 0.8) * duration)
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
                continue
        if process.returncode == 0:  # faster than the draw: a new run for the kills that are left
            assert_same_run(run, expected)
            run.rename(tmp_path / f"finished{killed}")
        else:  # killed after its last epoch, between its last evaluation's end and its exit
            assert "that run is finished" in errors, f"KILL_SEED={seed}\n{errors}"
            run.rename(tmp_path / f"finished{killed}")
    if (run / "weights" / "last.pt").is_file():
        if not torch.load(run / "weights" / "last.pt", weights_only=True)["finished"]:
            run_script("train.py", "--resume", run, "--workers", 1, folder=tmp_path)
        assert_same_run(run, expected)


@pytest.mark.parametrize("write", [1, 3])
def test_killed_while_a_checkpoint_is_written(
    write: int, dataset: Path, undisturbed: tuple[Path, float], tmp_path: Path
) -> None:
    words = [sys.executable, "-c", KILLED_IN_A_WRITE, str(write), *map(str, FLAGS), "--data", str(dataset)]
    killed = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = tmp_path / "runs" / "train" / "exp"
    assert len(list((run / "weights").glob(".last.pt.*"))) == 1  # half of a checkpoint, under another name
    if write == 1:  # before the first checkpoint there is nothing to resume
        result = run_script("train.py", "--resume", run, folder=tmp_path, expect=1)
        assert "no such checkpoint" in result.stderr
        run_script("train.py", *FLAGS, "--data", dataset, "--exist-ok", folder=tmp_path)
    else:
        run_script("train.py", "--resume", run, folder=tmp_path)
    assert_same_run(run, undisturbed[0])
    assert not list((run / "weights").glob(".last.pt.*"))


def test_a_full_disk(dataset: Path, undisturbed: tuple[Path, float], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=55m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        result = run_script(
            "train.py", *FLAGS, "--data", dataset, "--workers", 0, "--project", disk / "runs", folder=tmp_path, expect=1
        )
        assert len(result.stderr.splitlines()[-1:]) == 1 and "cannot write the checkpoint" in result.stderr
        run = disk / "runs" / "exp"
        assert not list((run / "weights").glob(".last.pt.*"))
        saved = torch.load(run / "weights" / "last.pt", weights_only=True)
        assert not saved["finished"]
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        run_script("train.py", "--resume", run, "--workers", 0, folder=tmp_path)
        assert_same_run(run, undisturbed[0])
    finally:
        subprocess.run(["umount", str(disk)], check=True)

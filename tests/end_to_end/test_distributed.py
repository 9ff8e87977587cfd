"""Training in two processes, as torchrun starts them, against training in one."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.end_to_end.scripts import environment, run_script
from tests.shared_data import REPOSITORY
from tests.small_dataset import write_small_dataset

pytestmark = pytest.mark.slow
FLAGS = ("--weights", "", "--cfg", "yolov5n-spd.yaml", "--imgsz", 64, "--batch-size", 4, "--noplots", "--workers", 0)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("small"), train=20, val=5)


def two_processes(*arguments: object, folder: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    words = [*TORCHRUN, *map(str, arguments)]
    result = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
    assert result.returncode == expect, f"{result.stdout[-3000:]}\n{result.stderr[-5000:]}"
    return result


def test_losses_and_gradients_of_the_first_steps_are_those_of_one_process(dataset: Path, tmp_path: Path) -> None:
    flags = [str(word) for word in (*FLAGS, "--data", dataset, "--device", "cpu", "--project", tmp_path / "runs")]
    one = [sys.executable, "-m", "tests.training.five_steps", str(tmp_path / "one"), *flags]
    subprocess.run(one, cwd=REPOSITORY, env=environment(), check=True, capture_output=True, timeout=300)
    two_processes("-m", "tests.training.five_steps", tmp_path / "two", *flags, folder=REPOSITORY)
    alone = torch.load(tmp_path / "one0", weights_only=True)
    assert alone["losses"].shape == (5, 3) and bool((alone["losses"] > 0).all())
    for rank in (0, 1):
        shared = torch.load(tmp_path / f"two{rank}", weights_only=True)
        torch.testing.assert_close(shared["losses"], alone["losses"], rtol=1e-4, atol=0)
        assert len(shared["gradients"]) == len(alone["gradients"]) == 5
        for own, expected in zip(shared["gradients"], alone["gradients"], strict=True):
            assert own.keys() == expected.keys() and len(own) > 100
            for name, gradient in expected.items():
                difference = (own[name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
                assert difference < 1e-4, f"rank {rank}, {name}: {difference:.2e}"


def test_a_run_in_two_processes(dataset: Path, tmp_path: Path) -> None:
    result = two_processes(
        REPOSITORY / "train.py", *FLAGS, "--data", dataset, "--epochs", 2, "--device", "cpu", folder=tmp_path
    )
    assert result.stdout.count("results in runs/train/exp") == 2  # one process speaks, at the beginning and the end
    assert [path.name for path in (tmp_path / "runs" / "train").iterdir()] == ["exp"]
    run = tmp_path / "runs" / "train" / "exp"
    with (run / "results.csv").open() as file:
        rows = [{key.strip(): float(cell or "nan") for key, cell in row.items()} for row in csv.DictReader(file)]
    assert [row["epoch"] for row in rows] == [0, 1]
    # The evaluation of the two, gathered, is that of one process over all images.
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["images"] == 5
    flags = ("--weights", run / "weights" / "best.pt", "--data", dataset, "--img", 64, "--batch-size", 2)
    run_script("val.py", *flags, "--workers", 0, "--device", "cpu", folder=tmp_path)
    alone = json.loads((tmp_path / "runs" / "val" / "exp" / "metrics.json").read_text())
    for name in ("map50", "map50_95", "precision", "recall"):
        assert metrics[name] == pytest.approx(alone[name], abs=1e-9), name
    refused = two_processes(REPOSITORY / "train.py", "--resume", folder=tmp_path, expect=1)
    assert "that run is finished" in refused.stderr


def test_both_processes_stop_together_and_go_on_together(dataset: Path, tmp_path: Path) -> None:
    words = [str(REPOSITORY / "train.py"), *map(str, FLAGS), "--data", str(dataset), "--epochs", "300", "--noval"]
    with subprocess.Popen(
        [*TORCHRUN, *words], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        results = tmp_path / "runs" / "train" / "exp" / "results.csv"
        while not results.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert re.search(r"error: stopped in epoch \d+; go on with", errors), errors
    last = results.parent / "weights" / "last.pt"
    content = torch.load(last, weights_only=True)
    done = len(content["records"])
    assert done == len(results.read_text().splitlines()) - 1 >= 1
    content["config"]["epochs"] = done + 1  # let the end be near
    torch.save(content, last)
    two_processes(REPOSITORY / "train.py", "--resume", "--device", "cpu", folder=tmp_path)
    assert len(results.read_text().splitlines()) == done + 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--sync-bn",), "--sync-bn: needs several processes on CUDA"),
        (("--batch-size", 5), "--batch-size 5: must divide among 2 processes"),
        (("--batch-size", -1), "--batch-size -1: measures one process"),
        (("--local-rank", 7), "--local-rank 7: the launcher says LOCAL_RANK="),
    ],
)
def test_what_two_processes_refuse(flags: tuple[object, ...], message: str, dataset: Path, tmp_path: Path) -> None:
    arguments = (*FLAGS, "--data", dataset, "--device", "cpu", *flags)
    result = two_processes(REPOSITORY / "train.py", *arguments, folder=tmp_path, expect=1)
    assert message in result.stderr
    assert not (tmp_path / "runs").exists()

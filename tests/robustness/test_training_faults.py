"""Faults in the middle of a training run: nothing that was finished is lost, and one line says what to do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from models.weights import load_model
from tests.end_to_end.scripts import command, environment
from tests.robustness.running import Outcome, run, succeeds
from tests.shared_data import REPOSITORY
from tests.small_dataset import write_small_dataset
from utils.training import one_epoch

pytestmark = pytest.mark.slow
AREA = "Faults in training"
CFG = REPOSITORY / "tests" / "exporting" / "small-detector.yaml"
FLAGS = ("--weights", "", "--cfg", CFG, "--img", 64, "--batch-size", 2, "--noautoanchor", "--noplots")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_small_dataset(tmp_path / "small", train=4, val=2)


def start(folder: Path, dataset: Path, *flags: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("train.py", *FLAGS, "--data", dataset, *flags),
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


def interrupted(folder: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> Outcome:
    """A run of three epochs that ``error`` ends in its third."""
    real = one_epoch.train_one_epoch

    def failing(learner: object, batches: object, epoch: int, *rest: object) -> object:
        if epoch == 2:
            raise error
        return real(learner, batches, epoch, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("utils.training.session.train_one_epoch", failing)
        return run("train", *FLAGS, "--data", dataset, "--workers", 0, "--epochs", 3, folder=folder)


def epochs_in(checkpoint: Path) -> int:
    return len(torch.load(checkpoint, weights_only=True)["records"])


MEMORY = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory: you tried to"),
    "Python": MemoryError(),
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.case(AREA, f"out of memory ({kind})", "one line names batch and size"))
        for kind in MEMORY
    ],
)
def test_out_of_memory(kind: str, tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = interrupted(tmp_path, dataset, monkeypatch, MEMORY[kind])
    assert outcome.code == 1
    assert outcome.error_lines[-1].startswith("error: out of memory with --batch-size 2 and --imgsz 64;")
    assert epochs_in(tmp_path / "runs" / "train" / "exp" / "weights" / "last.pt") == 2


@pytest.mark.case(AREA, "out of memory in val.py", "one line names batch and size")
def test_out_of_memory_in_val(tmp_path: Path, dataset: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise MEMORY["CPU"]

    monkeypatch.setattr("utils.verbs.evaluate.evaluate", failing)
    outcome = run("val", "--weights", weights, "--data", dataset, "--img", 64, "--workers", 0, folder=tmp_path)
    assert outcome.code == 1 and "out of memory with --batch-size 32 and --imgsz 64;" in outcome.error_lines[-1]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(
            damage,
            marks=pytest.mark.case(AREA, f"last.pt {damage}", "refused; last.prev.pt is offered and ends the run"),
        )
        for damage in ("truncated", "emptied", "overwritten")
    ],
)
def test_a_corrupted_last_checkpoint(
    damage: str, tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path, dataset, monkeypatch, MemoryError())
    folder = tmp_path / "runs" / "train" / "exp"
    last, kept = folder / "weights" / "last.pt", folder / "weights" / "last.prev.pt"
    assert (epochs_in(last), epochs_in(kept)) == (2, 1)
    content = last.read_bytes()
    half = content[: len(content) // 2]
    last.write_bytes({"truncated": half, "emptied": b"", "overwritten": bytes(len(content))}[damage])
    outcome = run("train", "--resume", folder, "--workers", 0, folder=tmp_path)
    assert outcome.code == 1 and len(outcome.error_lines) == 1
    assert outcome.error_lines[0].endswith(f"the epoch before it is whole: python train.py --resume {kept}")
    succeeds("train", "--resume", kept, "--workers", 0, folder=tmp_path)
    assert epochs_in(last) == 3 and torch.load(last, weights_only=True)["finished"]
    assert len((folder / "results.csv").read_text(encoding="utf-8").splitlines()) == 4


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(left, marks=pytest.mark.case(AREA, f"results.csv {case}", "written whole again when resumed"))
        for left, case in ((0, "emptied"), (40, "cut short"), (None, "removed"))
    ],
)
def test_results_cut_short(left: int | None, tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path, dataset, monkeypatch, MemoryError())
    results = tmp_path / "runs" / "train" / "exp" / "results.csv"
    before = results.read_text(encoding="utf-8")
    if left is None:
        results.unlink()
    else:
        results.write_text(before[:left], encoding="utf-8")
    succeeds("train", "--resume", "--workers", 0, folder=tmp_path)
    after = results.read_text(encoding="utf-8")
    assert after.startswith(before) and len(after.splitlines()) == 4


@pytest.mark.case(AREA, "--exist-ok onto an old run", "the old run's files are kept as *.older, none passes for new")
def test_exist_ok_onto_an_old_run(tmp_path: Path, dataset: Path) -> None:
    flags = (*FLAGS, "--data", dataset, "--workers", 0, "--exist-ok")
    succeeds("train", *flags, "--epochs", 2, folder=tmp_path)
    folder = tmp_path / "runs" / "train" / "exp"
    old = (folder / "weights" / "best.pt").read_bytes()
    outcome = succeeds("train", *flags, "--epochs", 0, folder=tmp_path)
    assert "of an earlier run kept as *.older" in outcome.output
    assert (folder / "weights" / "best.pt.older").read_bytes() == old
    assert epochs_in(folder / "weights" / "best.pt") == epochs_in(folder / "weights" / "last.pt") == 0
    assert not (folder / "metrics.json").exists()


@pytest.mark.case(AREA, "two runs started into one folder", "the second is told which process holds it, and ends")
def test_two_runs_in_one_folder(tmp_path: Path, dataset: Path) -> None:
    flags = ("--workers", 0, "--exist-ok", "--noval", "--epochs", 10000, "--patience", 0)
    with start(tmp_path, dataset, *flags) as first:
        wait_for(tmp_path / "runs" / "train" / "exp" / "results.csv", first)
        try:
            outcome = run("train", *FLAGS, "--data", dataset, *flags, folder=tmp_path)
        finally:
            first.send_signal(signal.SIGTERM)
            first.communicate(timeout=60)
    assert outcome.code == 1
    assert f"runs/train/exp: another run (process {first.pid}) writes there" in outcome.error_lines[-1]
    assert first.returncode == 128 + signal.SIGTERM
    assert epochs_in(tmp_path / "runs" / "train" / "exp" / "weights" / "last.pt") >= 1


@pytest.mark.case(AREA, "a loading process killed", "one line names it; finished epochs are in last.pt and resume")
def test_a_killed_worker(tmp_path: Path, dataset: Path) -> None:
    folder = tmp_path / "runs" / "train" / "exp"
    with start(tmp_path, dataset, "--workers", 1, "--epochs", 10000, "--patience", 0, "--noval") as process:
        wait_for(folder / "results.csv", process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
        assert children
        os.kill(int(children[0]), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert "a loading process" in errors.splitlines()[-1] and "--workers" in errors.splitlines()[-1]
    assert epochs_in(folder / "weights" / "last.pt") >= 1


@pytest.mark.case(AREA, "a signal to the whole process group", "as one to the run alone: one line says how to go on")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_reaches_the_workers_first(tmp_path: Path, dataset: Path, number: int) -> None:
    folder = tmp_path / "runs" / "train" / "exp"
    with start(tmp_path, dataset, "--workers", 2, "--epochs", 10000, "--patience", 0, "--noval") as process:
        wait_for(folder / "results.csv", process)
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split():
            os.kill(int(child), number)
        time.sleep(0.3)  # the batches that were ready are used up
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    line = r"error: stopped in epoch \d+; go on with: python train.py --resume \S*runs/train/exp/weights/last.pt"
    assert re.fullmatch(line, errors.splitlines()[-1]), errors
    assert epochs_in(folder / "weights" / "last.pt") >= 1


@pytest.mark.case(AREA, "images deleted in the middle of a run", "one line names the file; finished epochs are kept")
@pytest.mark.parametrize("workers", [0, 1])
def test_images_deleted_in_mid_run(workers: int, tmp_path: Path, dataset: Path) -> None:
    folder = tmp_path / "runs" / "train" / "exp"
    flags = ("--cache", "none", "--workers", workers, "--epochs", 10000, "--patience", 0, "--noval")
    with start(tmp_path, dataset, *flags) as process:
        wait_for(folder / "results.csv", process)
        for path in (dataset.parent / "images" / "train").glob("*.png"):
            path.unlink()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors, errors
    assert ".png: cannot be read: No such file or directory" in errors.splitlines()[-1]
    assert epochs_in(folder / "weights" / "last.pt") >= 1


@pytest.mark.case(AREA, "--cache disk, train and val one list", "trains; both keep their file, reduced and whole")
def test_cache_on_disk_where_train_is_val(tmp_path: Path, dataset: Path) -> None:
    dataset.write_text(dataset.read_text().replace("val: images/val", "val: images/train"))
    flags = (*FLAGS, "--data", dataset, "--cache", "disk", "--workers", 0, "--epochs", 1)
    for _ in range(2):
        succeeds("train", *flags, folder=tmp_path)
    assert len(list(dataset.parent.rglob("*.cache.bin"))) == 2


@pytest.mark.case(AREA, "a second run with --cache disk at another --img", "neither takes the other's images away")
def test_two_runs_on_one_cache(tmp_path: Path, dataset: Path) -> None:
    cached = ("--cache", "disk", "--workers", 1)
    results = tmp_path / "runs" / "train" / "exp" / "results.csv"
    with start(tmp_path, dataset, *cached, "--epochs", 10000, "--patience", 0, "--noval") as first:
        wait_for(results, first)
        succeeds("train", *FLAGS, "--data", dataset, *cached, "--epochs", 1, "--img", 32, folder=tmp_path)
        lines = len(results.read_text(encoding="utf-8").splitlines())
        results.unlink()
        wait_for(results, first)
        first.send_signal(signal.SIGTERM)
        _, errors = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGTERM, errors
    assert epochs_in(results.parent / "weights" / "last.pt") >= lines


@pytest.mark.case(AREA, "one image of ten deleted in the middle of a run", "named once; the run goes on without it")
def test_an_image_deleted_in_mid_run(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path / "ten", train=10, val=1)
    results = tmp_path / "runs" / "train" / "exp" / "results.csv"
    flags = ("--cache", "none", "--workers", 2, "--epochs", 10000, "--patience", 0, "--noval")
    with start(tmp_path, dataset, *flags) as process:
        wait_for(results, process)
        gone = dataset.parent / "images" / "train" / "004.png"
        gone.unlink()
        for _ in range(3):
            results.unlink()
            wait_for(results, process)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert output.count("WARNING: ") == output.count(f"WARNING: {gone}: cannot be read any more (1 of 10") == 1


def types_in(checkpoint: Path) -> set[torch.dtype]:
    return {each.dtype for each in torch.load(checkpoint, weights_only=True)["model"].values()}


@pytest.mark.case(AREA, "a run that is finished", "no last.prev.pt, no .lock; best.pt in half precision, last.pt exact")
def test_what_a_finished_run_leaves(tmp_path: Path, dataset: Path) -> None:
    flags = ("--img", 64, "--workers", 0)
    succeeds("train", *FLAGS, "--data", dataset, "--workers", 0, "--epochs", 2, folder=tmp_path)
    folder = tmp_path / "runs" / "train" / "exp"
    best, last = folder / "weights" / "best.pt", folder / "weights" / "last.pt"
    assert sorted(file.name for file in best.parent.iterdir()) == ["best.pt", "last.pt"]
    assert not (folder / ".lock").exists()
    assert types_in(best) == {torch.float16, torch.int64} and types_in(last) == {torch.float32, torch.int64}
    assert best.stat().st_size < 0.75 * last.stat().st_size  # most of this small file is not weights
    assert {each.dtype for each in load_model(best).state_dict().values()} == {torch.float32, torch.int64}
    succeeds("val", "--weights", best, "--data", dataset, *flags, folder=tmp_path)
    own, trained = (json.loads((run / "metrics.json").read_text()) for run in (tmp_path / "runs/val/exp", folder))
    assert own["map50_95"] == trained["map50_95"] and own["precision"] == trained["precision"]


@pytest.mark.case(AREA, "best.pt whose figures half precision would change", "keeps float32 and says which figure")
def test_best_weights_that_rounding_would_change(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.training.checkpoint.moved_figure", lambda *_: "recall is 0.5000 instead of 0.5100")
    flags = ("--data", dataset, "--workers", 0, "--epochs", 1)
    outcome = succeeds("train", *FLAGS, *flags, folder=tmp_path)
    folder = tmp_path / "runs" / "train" / "exp"
    assert "best.pt: keeps float32 weights; in half precision recall is 0.5000 instead of 0.5100" in outcome.output
    assert sorted(file.name for file in (folder / "weights").iterdir()) == ["best.pt", "last.pt"]
    assert torch.float16 not in types_in(folder / "weights" / "best.pt") and (folder / "metrics.json").is_file()


@pytest.mark.case(AREA, "stopped in the last evaluation", "best.pt is exact again; --resume ends the run")
def test_stopped_in_the_last_evaluation(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("utils.verbs.train.DetectionTask.evaluate_best", failing)
        outcome = run("train", *FLAGS, "--data", dataset, "--workers", 0, "--epochs", 1, folder=tmp_path)
    best = tmp_path / "runs" / "train" / "exp" / "weights" / "best.pt"
    assert outcome.code == 1 and torch.float16 not in types_in(best)
    succeeds("train", "--resume", "--workers", 0, folder=tmp_path)
    assert torch.float16 in types_in(best)

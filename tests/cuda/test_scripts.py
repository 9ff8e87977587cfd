"""The scripts on a pretended GPU: nothing that CUDA refuses, and in fp32 the figures of the CPU."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path

import pytest

from tests.cuda.pretended import Noted, PretendedGpu, needs_tool
from tests.cuda.workplace import TRAIN
from tests.end_to_end.finished_runs import assert_same_run

pytestmark = [pytest.mark.slow, needs_tool]
VAL = "val.py --data v8.yaml --imgsz 64 --workers 0 --batch-size 4 --save-txt --save-conf --save-json"
DETECT = "detect.py --source frames8.txt --imgsz 64 --save-txt --save-conf --nosave"
SAME = {
    "train": f"train.py --weights small.pt --precision fp32 --data t16.yaml {' '.join(map(str, TRAIN))}",
    "val": f"{VAL} --weights small.pt",
    "val-augment": f"{VAL} --weights small.pt --augment",
    "val-slice": f"{VAL} --weights small.pt --slice 64",
    "detect": f"{DETECT} --weights small.pt",
    "detect-slice": f"{DETECT} --weights small.pt --slice 64",
}
FILES = ("results.csv", "*predictions.json", "labels/*.txt")


def written(run: Path) -> dict[str, str]:
    """What a run found, by file."""
    return {str(file.relative_to(run)): file.read_text() for one in FILES for file in sorted(run.glob(one))}


def losses(run: Path) -> list[float]:
    """Those of training, epoch after epoch."""
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(cell) for row in rows for name, cell in row.items() if "train/" in name]


@pytest.mark.parametrize("name", SAME)
def test_what_is_found_is_what_the_cpu_finds(gpu: PretendedGpu, name: str) -> None:
    for device in ("0", "cpu"):
        gpu.run(*SAME[name].split(), "--device", device, "--project", device, "--name", name)
    found = written(gpu.folder / "0" / name)
    assert found == written(gpu.folder / "cpu" / name)
    assert sum(map(len, found.values())) > 300


@pytest.mark.parametrize("traced_on", ["cpu", "0"])
def test_a_torchscript_file_runs_on_both_devices(gpu: PretendedGpu, traced_on: str) -> None:
    weights = gpu.folder / f"traced-on-{traced_on}.pt"
    weights.write_bytes((gpu.folder / "small.pt").read_bytes())
    gpu.run("export.py", "--weights", weights, "--include", "torchscript", "--imgsz", 64, "--device", traced_on)
    flags = ("--weights", weights.with_suffix(".torchscript"), "--name", weights.stem)
    for device in ("0", "cpu"):
        for script in (VAL.replace("--batch-size 4", "--batch-size 1"), DETECT):
            gpu.run(*script.split(), *flags, "--device", device, "--project", f"{script.split('.')[0]}-{device}")
    for script in ("val", "detect"):
        found = written(gpu.folder / f"{script}-0" / weights.stem)
        assert len(found) > 4 and found == written(gpu.folder / f"{script}-cpu" / weights.stem)


def test_an_onnx_file_of_a_model_on_the_gpu(gpu: PretendedGpu) -> None:
    gpu.run("export.py", "--weights", "small.pt", "--include", "onnx", "--imgsz", 64, "--device", 0, "--dynamic")
    gpu.run(*VAL.split(), "--weights", "small.onnx", "--device", "cpu", "--name", "onnx")
    assert len(written(gpu.folder / "runs" / "val" / "onnx")) > 4


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("fp16-multi-scale", "--precision fp16 --multi-scale --optimizer AdamW"),
        ("bf16-rect", "--precision bf16 --rect"),
        ("fitted-batch", "--batch-size -1 --multi-scale"),
        ("tiles", "--tile 64"),
    ],
)
def test_training_goes_well(gpu: PretendedGpu, name: str, flags: str) -> None:
    gpu.run("train.py", "--weights", "small.pt", "--data", "t16.yaml", *TRAIN, *flags.split(), "--name", name)
    found = losses(gpu.folder / "runs" / "train" / name)
    assert len(found) == 3 and all(map(math.isfinite, found))


def test_a_stopped_run_goes_on_to_the_same_end(gpu: PretendedGpu) -> None:
    flags = ("--weights", "small.pt", "--data", "t16.yaml", *TRAIN, "--precision", "fp16", "--epochs", 2)
    gpu.run("train.py", *flags, "--name", "whole")
    gpu.run("tests/cuda/altered_train.py", "stopped after an epoch", *flags, "--name", "stopped")
    whole, stopped = (gpu.folder / "runs" / "train" / name for name in ("whole", "stopped"))
    assert len(losses(stopped)) * 2 == len(losses(whole))
    gpu.run("train.py", "--resume", stopped / "weights" / "last.pt", "--device", 0, "--workers", 0)
    assert_same_run(whole, stopped)


def test_batches_travel_on_a_stream_of_their_own(gpu: PretendedGpu) -> None:
    def kept(run: Noted) -> Counter[str]:
        """Tensors whose memory both streams use, by phase: of every batch, or it would be used again too early."""
        found: Counter[str] = Counter()
        for (phase, kind, _), count in run.events.items():
            found[phase] += count if kind == "memory kept for another stream" else 0
        return +found

    flags = ("--weights", "small.pt", "--data", "t16.yaml", *TRAIN, "--name", "streams")
    assert kept(gpu.run("train.py", *flags)) == {"train": 4, "val": 2}  # of 4 images, of 8 in two evaluations
    classes = ("--model", "yolov5n-cls", "--imgsz", 32, "--device", 0, "--workers", 0, "--batch-size", 6)
    run = gpu.run("classify/train.py", "--data", "c4", *classes, "--epochs", 1, "--noplots", "--name", "streams")
    assert kept(run) == {"train": 2 * 2, "cls-val": 2 * 2}  # images and classes


@pytest.mark.parametrize("script", ["val.py --data v8.yaml --workers 0", "detect.py --source frames8.txt"])
def test_half_precision_finds_what_single_finds(gpu: PretendedGpu, script: str) -> None:
    scores = {}
    for half in ((), ("--half",)):
        words = (*script.split(), "--weights", "small.pt", "--imgsz", 64, "--device", 0, "--save-json", *half)
        gpu.run(*words, "--project", "halved", "--name", f"{script[:3]}{len(half)}")
        (file,) = (gpu.folder / "halved" / f"{script[:3]}{len(half)}").glob("*predictions.json")
        scores[half] = [row["score"] for row in json.loads(file.read_text())]
    assert sum(scores["--half",]) == pytest.approx(sum(scores[()]), rel=0.02) and len(scores[()]) > 10
    assert scores["--half",] != scores[()]


def test_a_classifier(gpu: PretendedGpu) -> None:
    size = ("--imgsz", 32, "--device", 0)
    flags = ("--data", "c4", "--workers", 0, "--batch-size", 4)
    model = ("--model", "yolov5n-spd-cls", "--cutoff", 4)
    gpu.run("classify/train.py", *model, *size, *flags, "--epochs", 1, "--noplots", "--name", "cut")
    weights = ("--weights", "runs/train-cls/cut/weights/last.pt", *size)
    found = {}
    for name, place in (("gpu", ()), ("half", ("--half",)), ("cpu", ("--device", "cpu"))):
        gpu.run("classify/val.py", *weights, *flags, *place, "--name", name)
        gpu.run("classify/predict.py", "--source", "classified4.txt", "--save-txt", *weights, *place, "--name", name)
        report = json.loads((gpu.folder / "runs" / "val-cls" / name / "metrics.json").read_text())
        found[name] = report["top1"], report["loss"], written(gpu.folder / "runs" / "predict-cls" / name)
    assert found["gpu"] == found["cpu"] != found["half"]
    assert found["half"][1] == pytest.approx(found["gpu"][1], rel=0.01)


def test_a_device_that_is_not_there(gpu: PretendedGpu) -> None:
    ended = gpu.ended(*DETECT.split(), "--weights", "small.pt", "--device", "7")
    assert ended.code == 2 and "--device 7: this machine shows 1 CUDA device" in ended.said


def test_a_planted_fault_is_found(gpu: PretendedGpu) -> None:
    flags = ("--data", "t16.yaml", "--weights", "small.pt", *TRAIN)
    ended = gpu.ended("tests/cuda/altered_train.py", "images left behind", *flags, "--name", "planted")
    assert ended.code != 0 and "Expected all tensors to be on the same device" in ended.said
    with pytest.raises(AssertionError, match="altered_train"):
        ended.checked()

"""The summary and its command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.__main__ import main
from models.architecture import Architecture
from models.summary import summarize
from models.yolo import DetectionModel, load_architecture
from tests.shared_data import REPOSITORY
from utils.runtime.console_log import run_verb


def run(monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    monkeypatch.setattr(sys, "argv", ["models", *flags])
    return run_verb(main)


def test_figures_of_yolov5n() -> None:
    summary = summarize(DetectionModel(load_architecture("yolov5n")), 640, 640)
    assert summary.parameters == 1_872_157 == sum(each.parameters for each in summary.layers)
    assert round(summary.gflops, 1) == 4.5
    assert summary.layers[0].output == "16x320x320"
    assert summary.layers[24].output == "3x80x80x85 3x40x40x85 3x20x20x85"
    assert summary.layers[12].sources == (-1, 6)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-spd", "yolov5n-spd-released", "yolov5s-transformer"])
def test_arithmetic_agrees_with_a_real_pass(name: str) -> None:
    model = DetectionModel(load_architecture(name), class_count=2).eval()
    counter = FlopCounterMode(display=False)
    # The counter of torch knows attention by its matrix products, not as the CPU's one fused operation.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(torch.rand(1, 3, 64, 96))
    assert counter.get_total_flops() > 1e7
    assert summarize(model, 64, 96).gflops * 1e9 == pytest.approx(counter.get_total_flops(), rel=1e-12)


def test_arithmetic_by_hand() -> None:
    """A k x k convolution costs 2 k^2 C_in C_out for each cell that it gives; space-to-depth costs nothing."""
    total = 2 * 9 * (3 * 4) * 16 * 32 * 32 + 2 * 9 * (16 * 4) * 32 * 16 * 16 + 2 * 32 * 6 * 16 * 16
    shortened = Architecture.from_dict(
        {
            "nc": 1,
            "anchors": 1,
            "backbone": [[-1, 1, "SPDConv", [16, 3]], [-1, 1, "SPDConv", [32, 3]]],
            "head": [[-1, 1, "Detect", ["nc", "anchors"]]],
        }
    )
    assert summarize(DetectionModel(shortened), 64, 64).gflops * 1e9 == pytest.approx(total, rel=1e-12)


def test_profile_times_every_layer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--cfg", "yolov5n-spd", "--imgsz", "64", "--profile") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ms" in lines[0].split() and lines[-1].endswith(" ms")
    times = [float(line.split()[4]) for line in lines[1:10]]  # one source each: the fifth column
    assert all(0 <= each < 1e4 for each in times) and sum(times) > 0


def test_command_prints_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--cfg", "yolov5n-spd.yaml", "--imgsz", "320", "640") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 25 + 1
    assert lines[1].split()[:5] == ["0", "-1", "1", "1760", "SPDConv"]
    assert lines[-1].startswith("25 layers, 3,600,157 parameters") and lines[-1].endswith("at 640x320")


@pytest.mark.parametrize("flag", ["--img", "--imgsz", "--img-size"])
@pytest.mark.case("Flags", "python -m models --img 64", "the same as --imgsz, as of every script")
def test_every_name_of_the_image_size(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--cfg", "yolov5n", flag, "64") == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("at 64x64")


@pytest.mark.slow
@pytest.mark.parametrize("command", [(str(REPOSITORY / "models" / "yolo.py"),), ("-m", "models.yolo")])
@pytest.mark.case("Flags", "python models/yolo.py --cfg, YOLOv5's habit", "the table of python -m models")
def test_yolo_py_prints_the_table(command: tuple[str, ...], tmp_path: Path) -> None:
    environment = os.environ | ({"PYTHONPATH": str(REPOSITORY)} if "-m" in command else {})
    words = [sys.executable, *command, "--cfg", "yolov5n.yaml", "--img", "64"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("25 layers, 1,872,157 parameters")


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [(("--cfg", "nowhere.yaml"), 1, "nowhere.yaml"), (("--imgsz", "100"), 2, "multiples of 32")],
)
def test_mistakes_exit_with_one_line(
    flags: tuple[str, ...], code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *flags) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1


def test_torch_is_loaded_after_its_threads_are_told_how_to_wait() -> None:
    code = "import sys, models.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0

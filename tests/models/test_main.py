"""The summary and its command."""

from __future__ import annotations

import sys

import pytest

from models.__main__ import main
from models.summary import summarize
from models.yolo import DetectionModel, load_architecture


def run(monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    monkeypatch.setattr(sys, "argv", ["models", *flags])
    return main()


def test_figures_of_yolov5n() -> None:
    summary = summarize(DetectionModel(load_architecture("yolov5n")), 640, 640)
    assert summary.parameters == 1_872_157 == sum(each.parameters for each in summary.layers)
    assert round(summary.gflops, 1) == 4.5
    assert summary.layers[0].output == "16x320x320"
    assert summary.layers[24].output == "3x80x80x85 3x40x40x85 3x20x20x85"
    assert summary.layers[12].sources == (-1, 6)


def test_command_prints_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--cfg", "yolov5n-spd.yaml", "--imgsz", "320", "640") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 25 + 1
    assert lines[1].split()[:5] == ["0", "-1", "1", "1760", "SPDConv"]
    assert lines[-1].startswith("25 layers, 3,600,157 parameters") and lines[-1].endswith("at 640x320")


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [(("--cfg", "nowhere.yaml"), 1, "nowhere.yaml"), (("--imgsz", "100"), 2, "multiples of 32")],
)
def test_mistakes_exit_with_one_line(
    flags: tuple[str, ...], code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *flags) == code
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1

"""export.py as a user runs it; the other scripts take what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.scripts import run_script
from tests.exporting.small_model import write_small_checkpoint
from tests.small_dataset import write_small_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_small_checkpoint(folder / "small.pt")
    return folder


def test_exported_files_work_in_the_other_scripts(folder: Path) -> None:
    dataset = write_small_dataset(folder / "data")
    # The model calls its classes otherwise than the data set; only their number has to agree.
    result = run_script(
        "export.py", "--weights", "small.pt", "--include", "onnx", "torchscript", "--img", 128, "--batch", 2,
        folder=folder,
    )  # fmt: skip
    assert "exported: small.onnx, small.torchscript" in result.stdout.splitlines()[-1]
    figures = []
    for weights in ("small.onnx", "small.torchscript"):
        run_script(
            "val.py", "--weights", weights, "--data", dataset, "--img", 128, "--batch", 3, "--workers", 0,
            "--name", weights, folder=folder,
        )  # fmt: skip
        figures.append(json.loads((folder / "runs" / "val" / weights / "metrics.json").read_text()))
        run_script("detect.py", "--weights", weights, "--source", "data/images/val", "--name", weights, folder=folder)
        assert len(list((folder / "runs" / "detect" / weights).glob("*.png"))) == 8
    assert figures[0]["images"] == figures[1]["images"] == 8
    assert figures[0]["map50"] == pytest.approx(figures[1]["map50"], abs=1e-3)


@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        (("--include", "tflite"), 2, "error: --include tflite: not written here; export onnx"),
        (("--include", "onnx", "--opset", 11), 2, "error: small.onnx: not written, --opset 11: "),
        (("--img", 64, 96, 128), 2, "--imgsz 64 96 128"),
        (("--weights", "none.pt"), 1, "error: none.pt: no such weights file"),
    ],
)
def test_mistakes_are_one_line(folder: Path, flags: tuple[object, ...], code: int, line: str) -> None:
    result = run_script("export.py", "--weights", "small.pt", *flags, folder=folder, expect=code)
    assert line in result.stderr
    assert not list(folder.glob(".small*")), "nothing temporary stays"

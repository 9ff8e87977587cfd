"""export.py as a user runs it; the other scripts take what it wrote."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

from tests.end_to_end.scripts import run_script
from tests.exporting.small_model import write_small_checkpoint
from tests.small_dataset import write_small_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_small_checkpoint(folder / "small.pt")
    return folder


def test_exported_files_work_in_the_other_scripts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_small_dataset(folder / "data")
    # The model calls its classes otherwise than the data set; only their number has to agree.
    result = run_script(
        "export.py", "--weights", "small.pt", "--include", "onnx", "torchscript", "--img", 128, "--batch", 2,
        folder=folder,
    )  # fmt: skip
    *_, said, first, second = result.stdout.splitlines()
    assert said == "exported: small.onnx, small.torchscript"
    assert first.startswith("in Python: ") and second.startswith(" " * 11)
    program = folder / "program.py"
    program.write_text(f"{first[11:]}; onnx = model\n{second[11:]}\n")
    monkeypatch.chdir(folder)  # the paths are as they were given
    made = runpy.run_path(str(program))
    assert made["onnx"].get_inputs()[0].shape == [2, 3, 128, 128]
    assert made["model"](torch.zeros(2, 3, 128, 128)).shape[0] == 2
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
    ("flags", "line"),
    [
        (("--include", "tfjs"), "error: --include tfjs: not written here; export onnx"),
        (("--optimize",), "error: export.py: --optimize: needs PyTorch's mobile optimizer"),
    ],
)
def test_wrong_usage_is_one_line(folder: Path, flags: tuple[object, ...], line: str) -> None:
    result = run_script("export.py", "--weights", "small.pt", *flags, folder=folder, expect=2)
    assert result.stderr.startswith(line) and result.stderr.count("\n") == 1


def test_a_model_without_the_coarsest_level_goes_through_every_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_small_dataset(tmp_path / "data")
    run_script(
        "train.py", "--weights", "", "--cfg", "yolov5n-spd-lite-p234.yaml", "--data", dataset, "--img", 64,
        "--batch", 8, "--epochs", 1, "--noplots", "--workers", 0, folder=tmp_path,
    )  # fmt: skip
    (tmp_path / "runs" / "train" / "exp" / "weights" / "best.pt").rename(tmp_path / "best.pt")
    result = run_script(
        "export.py", "--weights", "best.pt", "--include", "onnx", "torchscript", "openvino", "--img", 64,
        folder=tmp_path,
    )  # fmt: skip
    *_, said, _, _, last = result.stdout.splitlines()
    assert said == "exported: best.onnx, best.torchscript, best_openvino_model"
    program = tmp_path / "program.py"
    program.write_text(last.strip())
    monkeypatch.chdir(tmp_path)
    model = runpy.run_path(str(program))["model"]
    assert model.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    for weights in ("best.pt", "best.onnx"):
        run_script(
            "val.py", "--weights", weights, "--data", dataset, "--img", 64, "--workers", 0, "--name", weights,
            folder=tmp_path,
        )  # fmt: skip
        assert json.loads((tmp_path / "runs" / "val" / weights / "metrics.json").read_text())["images"] == 8
    run_script("detect.py", "--weights", "best.pt", "--source", "data/images/val", "--img", 64, folder=tmp_path)
    assert len(list((tmp_path / "runs" / "detect" / "exp").glob("*.png"))) == 8

"""The Python in the pages that a reader copies into a program of his own."""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.exporting.small_model import write_small_checkpoint
from tests.shared_data import REPOSITORY
from tests.small_dataset import write_small_dataset
from utils.config.train_flags import TrainConfig
from utils.exporting.export_settings import ExportSettings
from utils.geometry.letterbox import FrameSize
from utils.inference.model_files import load_backend
from utils.reporting.watchers import Watcher
from utils.verbs import train
from utils.verbs.export import export_model

CPU = torch.device("cpu")


def snippet(page: str, word: str) -> str:
    """The only Python block of a page that has the word in it."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (found,) = [block for block in blocks if word in block]
    return found


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("openvino") is None or os.environ.get("ONEDNN_MAX_CPU_ISA") == "SSE41",
    reason="OpenVINO is not installed, or held to SSE4.1",
)
def test_openvino_is_opened_in_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = write_small_checkpoint(tmp_path / "best.pt")
    (file,) = export_model(weights, ["openvino"], ExportSettings(FrameSize(640, 640)), CPU)
    program = tmp_path / "program.py"
    program.write_text(snippet("export.md", "compile_model"))
    monkeypatch.chdir(tmp_path)
    made = runpy.run_path(str(program))
    assert made["model"].get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    expected = load_backend(file.path, CPU).predict(torch.zeros(1, 3, 640, 640))
    torch.testing.assert_close(torch.from_numpy(made["rows"])[..., 4], expected.objectness, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_watcher_of_ten_lines_follows_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small_dataset(tmp_path, train=8, val=4).rename(tmp_path / "my.yaml")
    program = tmp_path / "program.py"
    program.write_text(snippet("following-a-run.md", "Watcher"))
    assert len([line for line in program.read_text().splitlines() if line]) <= 10
    real = train.train_detector

    def small(config: TrainConfig, watchers: Sequence[Watcher]) -> Path:
        assert (config.data, config.epochs) == ("my.yaml", 50)
        few = replace(config, weights="", cfg="yolov5n-spd.yaml", imgsz=64, batch_size=4, epochs=1, workers=0)
        return real(replace(few, device="cpu", noplots=True, noautoanchor=True, loggers=("none",)), watchers)

    monkeypatch.setattr(train, "train_detector", small)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(program), run_name="__main__")
    assert re.search(
        r"^epoch 0: AP_S \d\.\d{3}, runs/train/exp/weights/best\.pt$", capsys.readouterr().out, re.MULTILINE
    )

"""A network compiled for one size of batch: what it is given, what it finds, and what is said where it cannot be."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from models.fuse import fused
from models.yolo import DetectionModel, load_architecture
from tests.end_to_end.scripts import command, environment
from tests.exporting.small_model import small_model, write_small_checkpoint, write_small_torchscript
from tests.robustness.running import run, succeeds
from tests.small_dataset import write_small_dataset
from utils.geometry.letterbox import FrameSize
from utils.inference.torch_backend import CompiledBackend, FixedBatch, TorchBackend
from utils.user_error import UserError

CPU = torch.device("cpu")


def opened() -> TorchBackend:
    return TorchBackend(small_model(), CPU)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A compiler that changes nothing; the shapes that what it gives is called with."""
    shapes: list[tuple[int, ...]] = []

    def compiled(network: Any, **settings: object) -> Any:
        assert settings == {"mode": "reduce-overhead", "dynamic": False}

        def call(images: torch.Tensor) -> object:
            assert images.is_contiguous(memory_format=torch.channels_last)
            shapes.append(tuple(images.shape))
            return network(images)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    return shapes


@pytest.mark.parametrize("images", [1, 2, 3, 5])
def test_only_whole_batches_reach_it(asked: list[tuple[int, ...]], images: int) -> None:
    backend = CompiledBackend(opened(), FixedBatch(2, FrameSize(64, 96)))
    assert (backend.frame, backend.batch_size, backend.names) == ((64, 96), 2, opened().names)
    asked.clear()
    pixels = torch.rand(images, 3, 64, 96)
    found, expected = backend.predict(pixels), opened().predict(pixels)
    assert asked == [(2, 3, 64, 96)] * ((images + 1) // 2)
    for own, other in zip(found, expected, strict=True):
        assert own.shape == other.shape and torch.allclose(own, other, rtol=1e-5, atol=1e-3)  # px


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("InvalidCxxCompiler: No working C++ compiler found in (None, 'g++')", "torch finds no C++ compiler; install"),
        ("\ninductor raised:\nAssertionError: no", "torch cannot compile this network: AssertionError: no"),
    ],
)
def test_a_compiler_that_fails_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, said: str, line: str) -> None:
    def fail(images: torch.Tensor) -> None:
        raise TorchDynamoException(said)

    monkeypatch.setattr(torch, "compile", lambda network, **settings: fail)
    with pytest.raises(UserError, match=rf"^--compile: {re.escape(line)}.*$"):
        CompiledBackend(opened(), FixedBatch(1, FrameSize(64, 64)))


def test_detect_pads_every_image_to_one_frame(
    tmp_path: Path, asked: list[tuple[int, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    weights, data = write_small_checkpoint(tmp_path / "a.pt"), write_small_dataset(tmp_path / "small", train=1, val=3)
    images = data.parent / "images" / "val"
    flags = ("--weights", weights, "--source", images, "--imgsz", 60, 90, "--batch-size", 2, "--compile")
    outcome = run("detect", *flags, folder=tmp_path)
    assert outcome.code == 0, outcome.errors
    assert set(asked) == {(2, 3, 64, 96)}
    assert "every image is padded to 64x96 px (height x width)" in outcome.output
    assert "taking 64x96 px, multiples of the stride 8" in outcome.output


@pytest.mark.slow
def test_val_gives_the_figures_of_squares(tmp_path: Path, asked: list[tuple[int, ...]]) -> None:
    weights, data = write_small_checkpoint(tmp_path / "a.pt"), write_small_dataset(tmp_path / "small", train=1, val=3)
    flags = ("--weights", weights, "--data", data, "--imgsz", 64, "--workers", 0)
    figures = []
    runs = {"compiled": ("--compile",), "square": ("--square",)}
    for name, further in runs.items():
        succeeds("val", *flags, *further, "--name", name, folder=tmp_path)
        metrics = json.loads((tmp_path / "runs" / "val" / name / "metrics.json").read_text(encoding="utf-8"))
        figures.append([metrics[key] for key in ("precision", "recall", "map50", "map50_95", "AP_S")])
    assert figures[0] == figures[1]
    assert set(asked) == {(3, 3, 64, 64)}, "a batch is no larger than there are images"


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("detect --weights a.torchscript --source small/images/val", 2, "--compile --weights a.torchscript: only"),
        ("val --weights a.torchscript --data small/small.yaml", 2, "--compile --weights a.torchscript: only"),
        ("detect --weights a.pt --augment", 2, "--compile: for images of one size, showing no maps; leave out"),
        ("detect --weights a.pt --visualize", 2, "--compile: for images of one size, showing no maps; leave out"),
        ("val --weights a.pt --augment", 2, "--compile: for images of one size; leave out --augment,"),
        ("val --weights a.pt --as-yolov5", 2, "--compile: for images of one size; leave out --augment, --as-yolov5"),
        ("val --weights a.pt --task study", 2, "--compile: for images of one size; leave out"),
    ],
)
def test_what_it_does_not_go_with(tmp_path: Path, words: str, code: int, line: str) -> None:
    write_small_torchscript(tmp_path / "a.torchscript", (64, 96))
    write_small_dataset(tmp_path / "small", train=1, val=1)
    script, *flags = words.split()
    outcome = run(script, *flags, "--compile", folder=tmp_path)
    assert outcome.code == code and line in outcome.error_lines[-1], outcome.errors


def opened_without_anchors() -> TorchBackend:
    """Its branches are joined."""
    torch.manual_seed(0)
    model = DetectionModel(load_architecture("yolov5n-small"), names=("a", "b")).eval()
    return TorchBackend(fused(model), CPU)


@pytest.mark.acceptance  # compiling takes half a minute and more
def test_the_boxes_of_a_head_without_anchors_are_those_of_the_network_as_it_is() -> None:
    backend, pixels = opened_without_anchors(), torch.rand(2, 3, 64, 64)
    found, expected = (
        CompiledBackend(backend, FixedBatch(2, FrameSize(64, 64))).predict(pixels),
        backend.predict(pixels),
    )
    assert (found.boxes - expected.boxes).abs().max() < 1e-3  # px
    assert (found.class_probs - expected.class_probs).abs().max() < 1e-5


@pytest.mark.acceptance
def test_the_boxes_are_those_of_the_network_as_it_is() -> None:
    pixels = torch.rand(3, 3, 64, 64)
    found = CompiledBackend(opened(), FixedBatch(2, FrameSize(64, 64))).predict(pixels)
    expected = opened().predict(pixels)
    assert (found.boxes - expected.boxes).abs().max() < 1e-3  # px
    assert (found.class_probs - expected.class_probs).abs().max() < 1e-5
    assert (found.objectness - expected.objectness).abs().max() < 1e-5
    assert expected.boxes.std() > 1 and expected.objectness.std() > 0.1


@pytest.mark.slow
def test_no_compiler(tmp_path: Path) -> None:
    weights, data = write_small_checkpoint(tmp_path / "a.pt"), write_small_dataset(tmp_path / "small", train=1, val=1)
    images = data.parent / "images" / "val"
    flags = ("--weights", weights, "--source", images, "--imgsz", 64, "--device", "cpu", "--compile")
    words = command("detect.py", *flags)
    without = environment() | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(words, cwd=tmp_path, env=without, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: --compile: torch finds no C++ compiler; install one")

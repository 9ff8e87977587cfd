"""Weights from files: parity with the original programs' outputs, our own checkpoints, mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.fuse import fused
from models.weights import build_model, checkpoint_fields, load_model, read_weights
from models.yolo import DetectionModel, load_architecture
from tests.shared_data import SHARED, needs_shared
from utils.user_error import UserError

OFFICIAL = SHARED / "weights" / "yolov5n.pt"
RELEASED = SHARED / "weights" / "spd_released_format_n.pt"


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@needs_shared
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("is_fused", [False, True])
@pytest.mark.parametrize(
    ("weights", "reference", "pixels", "probability"),
    [(OFFICIAL, "yolov5n_forward.npz", 5e-3, 2e-5), (RELEASED, "spd_released_n.npz", 5e-3, 5e-3)],
)
@pytest.mark.kernels
def test_decoded_outputs_equal_the_original_programs(
    threads: int,
    memory_format: torch.memory_format,
    is_fused: bool,
    weights: Path,
    reference: str,
    pixels: float,
    probability: float,
) -> None:
    with np.load(SHARED / "reference" / reference) as file:
        images, expected = torch.from_numpy(file["images"]), torch.from_numpy(file["decoded"])
    model = load_model(weights)
    model = (fused(model) if is_fused else model).to(memory_format=memory_format)
    with torch.inference_mode():
        maps = model((images.float() / 255).contiguous(memory_format=memory_format))
        rows, predictions = model.head.rows(maps), model.decode(maps)
    assert (rows[..., :4] - expected[..., :4]).abs().max() <= pixels
    assert (rows[..., 4:] - expected[..., 4:]).abs().max() <= probability
    corners = torch.cat((expected[..., :2] - expected[..., 2:4] / 2, expected[..., :2] + expected[..., 2:4] / 2), -1)
    assert (predictions.boxes - corners).abs().max() <= pixels
    assert (predictions.objectness - expected[..., 4]).abs().max() <= probability


@needs_shared
def test_official_weights_carry_names_anchors_and_strides() -> None:
    weights = read_weights(OFFICIAL)
    assert (weights.names[0], weights.names[79], len(weights.names)) == ("person", "toothbrush", 80)
    assert weights.strides == (8, 16, 32)
    assert weights.anchors[0].tolist() == [[10, 13], [16, 30], [33, 23]]
    assert weights.anchors[2, 2].tolist() == [373, 326]
    assert {each.dtype for each in weights.state_dict.values()} == {torch.float32, torch.int64}
    assert weights.architecture.scaled_width(64) == 16
    assert not build_model(weights).training


@needs_shared
def test_released_checkpoint_is_the_released_family() -> None:
    own = DetectionModel(load_architecture("yolov5n-spd-released"))
    weights = read_weights(RELEASED)
    assert {row.module for row in weights.architecture.rows} >= {"space_to_depth", "Focus"}
    assert {k: v.shape for k, v in own.state_dict().items()} == {k: v.shape for k, v in weights.state_dict.items()}


def small_model() -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(load_architecture("yolov5n-spd"), class_count=2, names=("cat", "dog"))
    model.set_anchors(model.anchors * 1.37)
    return model.eval()


def test_our_checkpoint_gives_the_model_back(tmp_path: Path) -> None:
    model, file = small_model(), tmp_path / "last.pt"
    torch.save(checkpoint_fields(model) | {"epoch": 3, "optimizer": {"state": {0: {"m": torch.zeros(3)}}}}, file)
    again = load_model(file)
    assert again.names == ("cat", "dog") and again.class_count == 2 and again.strides == model.strides
    torch.testing.assert_close(again.anchors, model.anchors, rtol=1e-6, atol=0)
    expected = model.state_dict()
    assert set(again.state_dict()) == set(expected)
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        # The weights are the same to the bit; sums over them, which may lie elsewhere in memory, need not be.
        torch.testing.assert_close(again.predict(images).boxes, model.predict(images).boxes, rtol=1e-4, atol=1e-3)
    # The sanctioned opener of torch agrees that nothing but tensors and plain values is inside.
    assert torch.load(file, weights_only=True)["schema"] == 1


def test_the_average_comes_first(tmp_path: Path) -> None:
    model, file = small_model(), tmp_path / "best.pt"
    fields = checkpoint_fields(model)
    fields["average"] = {k: v + 1 if v.is_floating_point() else v for k, v in fields["model"].items()}
    torch.save(fields, file)
    weights = read_weights(file)
    assert torch.equal(weights.state_dict["model.0.bn.bias"], model.state_dict()["model.0.bn.bias"] + 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": 99}, "schema 99"),
        ({"names": 7}, "class names are 7"),
        ({"anchors": None}, "anchors are not a tensor"),
        ({"model": {}}, "do not fit"),
        ({"model": None}, "not a mapping"),
        ({"architecture": {"nc": 2}}, "key 'anchors' is missing"),
    ],
)
def test_mistakes_in_a_checkpoint_are_named(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.pt"
    torch.save(checkpoint_fields(small_model()) | change, file)
    with pytest.raises(UserError, match=told) as caught:
        load_model(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_hold_no_model(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    torch.save({"a": torch.zeros(2)}, file)
    with pytest.raises(UserError, match="holds no model"):
        read_weights(file)
    with pytest.raises(UserError, match="no such checkpoint"):
        read_weights(tmp_path / "none.pt")

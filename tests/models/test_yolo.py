"""Models: parameter counts of every published size, shapes, strides, tracing, autocast."""

from __future__ import annotations

import pytest
import torch

from models.yolo import DetectionModel, count_parameters, load_architecture
from utils.user_error import UserError

PARAMETERS = {
    "yolov5n": 1_872_157,
    "yolov5s": 7_235_389,
    "yolov5m": 21_190_557,
    "yolov5l": 46_563_709,
    "yolov5x": 86_749_405,
    "yolov5n-spd": 3_600_157,
    "yolov5s-spd": 14_147_389,
    "yolov5m-spd": 36_742_557,
    "yolov5l-spd": 74_211_709,
    "yolov5x-spd": 129_949_405,
    # As ultralytics counts them, less the 16 numbers that it keeps as the weight of a convolution.
    "yolov5n-u": 2_654_816 - 16,
    "yolov5s-u": 9_153_152 - 16,
    "yolov5m-u": 25_111_456 - 16,
    "yolov5l-u": 53_225_024 - 16,
    "yolov5x-u": 97_276_448 - 16,
    "yolov5n-spd-u": 4_382_800,
    "yolov5s-spd-u": 16_065_136,
    "yolov5m-spd-u": 40_663_440,
    "yolov5l-spd-u": 80_873_008,
    "yolov5x-spd-u": 140_476_432,
    "yolov5n-small": 474_592,
    "yolov5s-small": 1_854_112,
    "yolov5n-spd-released": 2_256_157,
    "yolov5s-spd-released": 8_771_389,
    "yolov5m-spd-released": 24_646_557,
    "yolov5l-spd-released": 52_707_709,
}
NANOS = ("yolov5n", "yolov5n-spd", "yolov5n-spd-released")


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        model = DetectionModel(load_architecture(name))
    assert count_parameters(model) == PARAMETERS[name]
    assert model.strides == ((4, 16) if name.endswith("-small") else (8, 16, 32))


@pytest.mark.parametrize("name", NANOS)
def test_shapes_and_names(name: str) -> None:
    names = ("cat", "dog")
    model = DetectionModel(load_architecture(name), class_count=2, names=names).eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        maps = model(images)
        predictions = model.predict(images)
    assert [tuple(level.shape) for level in maps.levels] == [(2, 3, 8, 12, 7), (2, 3, 4, 6, 7), (2, 3, 2, 3, 7)]
    assert predictions.boxes.shape == (2, 3 * (96 + 24 + 6), 4)
    assert predictions.class_probs.shape[-1] == 2 and predictions.objectness.dtype == torch.float32
    assert model.names == names and model.class_count == 2
    assert model.architecture.as_dict()["nc"] == 2


def test_other_input_channels() -> None:
    model = DetectionModel(load_architecture("yolov5n-spd"), class_count=1, channels=1).eval()
    assert model.predict(torch.rand(1, 1, 64, 64)).boxes.shape == (1, 252, 4)
    assert model.architecture.as_dict()["ch"] == 1


def test_names_must_fit_the_class_count() -> None:
    with pytest.raises(UserError, match="3 class names for 2 classes"):
        DetectionModel(load_architecture("yolov5n"), class_count=2, names=("a", "b", "c"))


def test_state_dict_names_are_the_weight_format() -> None:
    names = set(DetectionModel(load_architecture("yolov5n")).state_dict())
    assert {"model.0.conv.weight", "model.0.bn.running_var", "model.2.m.0.cv1.conv.weight"} <= names
    assert {"model.9.cv2.conv.weight", "model.24.m.0.weight", "model.24.m.2.bias", "model.24.anchors"} <= names


@pytest.mark.parametrize("name", NANOS)
def test_channels_last_and_autocast_give_the_same_boxes(name: str) -> None:
    torch.manual_seed(0)
    model = DetectionModel(load_architecture(name), class_count=3).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        plain = model.predict(images)
        last = model.to(memory_format=torch.channels_last).predict(images.to(memory_format=torch.channels_last))
        with torch.autocast("cpu", torch.bfloat16):
            half = model.predict(images)
    torch.testing.assert_close(last.boxes, plain.boxes, rtol=0, atol=1e-3)
    assert half.boxes.dtype == torch.float32
    torch.testing.assert_close(half.boxes, plain.boxes, rtol=0, atol=3)


@pytest.mark.parametrize("name", NANOS)
def test_gradients_reach_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = DetectionModel(load_architecture(name), class_count=3).train()
    loss = torch.stack([level.square().mean() for level in model(torch.rand(2, 3, 64, 64)).levels]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert all(float(p.grad.abs().sum()) > 0 for n, p in model.named_parameters() if p.grad is not None and "conv" in n)


class Rows(torch.nn.Module):
    def __init__(self, model: DetectionModel) -> None:
        super().__init__()
        self.detector = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.detector.head.rows(self.detector(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", NANOS)
@pytest.mark.kernels
def test_traced_graph_runs_at_other_sizes(name: str) -> None:
    torch.manual_seed(0)
    rows = Rows(DetectionModel(load_architecture(name), class_count=3)).eval()
    traced = torch.jit.trace(rows, torch.rand(1, 3, 64, 64))  # type: ignore[no-untyped-call]
    images = torch.rand(2, 3, 96, 64)
    with torch.inference_mode():
        torch.testing.assert_close(traced(images), rows(images), rtol=1e-5, atol=1e-3)


@pytest.mark.slow
@pytest.mark.kernels
def test_exported_program_takes_dynamic_sizes() -> None:
    torch.manual_seed(0)
    rows = Rows(DetectionModel(load_architecture("yolov5n-spd"), class_count=3)).eval()
    cells_y, cells_x = torch.export.Dim("cells_y", min=1, max=40), torch.export.Dim("cells_x", min=1, max=40)
    sizes = {"images": {0: torch.export.Dim("batch", min=1, max=64), 2: 32 * cells_y, 3: 32 * cells_x}}
    program = torch.export.export(rows, (torch.rand(2, 3, 64, 96),), dynamic_shapes=sizes)
    images = torch.rand(3, 3, 96, 128)
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(images), rows(images), rtol=1e-5, atol=1e-3)

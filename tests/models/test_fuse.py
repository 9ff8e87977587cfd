"""Fused models compute the same function with fewer layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks import layer_forms
from benchmarks.layer_forms import fused_by_measurement
from models.common import SPD, Conv, Focus, Kernel, SPDConv
from models.fuse import FusedRearrangedConv, fold_layers, folded_batch_norm, fused
from models.yolo import DetectionModel, load_architecture
from utils.geometry.letterbox import FrameSize


def disturb_norms(module: nn.Module) -> None:
    """Batch norms that a fold must get right: nothing is 0 or 1."""
    generator = torch.Generator().manual_seed(3)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.1, generator=generator)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-spd", "yolov5n-spd-released"])
def test_fused_model_gives_the_same_predictions(name: str) -> None:
    torch.manual_seed(1)
    model = DetectionModel(load_architecture(name), class_count=4).eval()
    disturb_norms(model)
    quick = fused(model)
    images = torch.rand(1, 3, 96, 64)
    with torch.inference_mode():
        reference, found = model.predict(images), quick.predict(images)
    torch.testing.assert_close(found.boxes, reference.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.objectness, reference.objectness, rtol=1e-4, atol=1e-5)
    kinds = {type(layer) for layer in quick.modules()}
    assert not kinds & {nn.BatchNorm2d, SPDConv, Focus, Conv}
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()), "the original must stay as it is"
    assert not any(parameter.requires_grad for parameter in quick.parameters())


def test_folding_by_hand() -> None:
    norm = nn.BatchNorm2d(1, eps=0.0)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.fill_(3)
    norm.running_var.fill_(4)
    nn.init.constant_(norm.weight, 10)
    nn.init.constant_(norm.bias, 1)
    weight, bias = folded_batch_norm(torch.full((1, 1, 1, 1), 2.0), norm)
    assert (weight.item(), bias.item()) == (10.0, -14.0)  # (2x - 3) / 2 * 10 + 1


@pytest.mark.parametrize("size", [(9, 12), (7, 7)])
def test_odd_sizes_keep_their_last_row(size: tuple[int, int]) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.focus, self.spd = Focus(3, 4, Kernel(3)), SPDConv(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.spd(self.focus(x))
            return out

    layers = Two().eval()
    disturb_norms(layers)
    x = torch.randn(1, 3, *size)
    with torch.inference_mode():
        expected = layers(x)
        fold_layers(layers)
        torch.testing.assert_close(layers(x), expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(layer, SPD) for layer in layers.modules())


def spd_layers(model: DetectionModel) -> int:
    kinds = (SPD, SPDConv, Focus, FusedRearrangedConv)
    return sum(isinstance(layer, kinds) for layer in model.model)


def test_strided_form_leaves_space_to_depth_only_where_maps_are_joined() -> None:
    for name, kept, strided in (("yolov5n-spd", 7, 0), ("yolov5n-spd-released", 7, 2)):
        model = DetectionModel(load_architecture(name), class_count=1).eval()
        assert spd_layers(fused(model, strided=False)) == kept
        assert spd_layers(fused(model)) == strided


@pytest.mark.parametrize("name", ["yolov5n-spd", "yolov5n-spd-released"])
def test_choice_by_measurement_changes_no_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    model = DetectionModel(load_architecture(name), class_count=2).eval()
    disturb_norms(model)
    turns = iter([[1.0, 2.0], [2.0, 1.0]] * 4)
    monkeypatch.setattr(layer_forms, "best_milliseconds", lambda *arguments: next(turns))
    quick, choices = fused_by_measurement(model, FrameSize(64, 64))
    assert [choice.is_strided for choice in choices] == [True, False] * (len(choices) // 2) + [True] * (
        len(choices) % 2
    )
    joined = 0 if name == "yolov5n-spd" else 2
    assert spd_layers(quick) == sum(not choice.is_strided for choice in choices) + joined
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(quick.predict(images).boxes, model.predict(images).boxes, rtol=1e-4, atol=1e-3)


def test_measuring_reports_every_layer() -> None:
    model = DetectionModel(load_architecture("yolov5n-spd-released"), class_count=1).eval()
    _, choices = fused_by_measurement(model, FrameSize(64, 64), repeats=1)
    assert [choice.layers for choice in choices] == [(0,), (2, 3), (5, 6), (8, 9), (11, 12)]
    assert all(0 < choice.strided_ms < 1e4 and 0 < choice.kept_ms < 1e4 for choice in choices)

"""ResNets: the authors' structure and figures, both shortcuts, what a user may get wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.common import SPD
from models.resnet import NAMES, ResidualBlock, ResNet, build_classifier
from tests.shared_data import SHARED, needs_shared
from utils.user_error import UserError


def reference(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((SHARED / "reference" / "resnet_spd.json").read_text(encoding="utf-8"))
    entry: dict[str, Any] = figures[name.replace("-", "_")]
    return entry


def filled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with the numbers that the reference logits were computed with."""
    values = {}
    for index, (name, tensor) in enumerate(state.items()):
        if not tensor.is_floating_point():
            values[name] = tensor
            continue
        z = torch.from_numpy(np.random.default_rng(index).standard_normal(tuple(tensor.shape)))
        if name.endswith("running_var"):
            z = torch.exp(0.2 * z)
        elif name.endswith(("running_mean", "bias")):
            z = 0.1 * z
        elif tensor.ndim == 1:
            z = 1 + 0.1 * z
        else:
            z = z * (2 / tensor[0].numel()) ** 0.5
        values[name] = z.to(tensor.dtype)
    return values


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def strided_convolutions(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and module.stride != (1, 1)]


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18-spd", "resnet50-spd"])
@pytest.mark.kernels
def test_logits_of_the_authors_nets(name: str) -> None:
    expected = reference(name)
    model = build_classifier(name, expected["classes"]).eval()
    model.load_state_dict(filled(model.state_dict()))
    side = {"resnet18-spd": 64, "resnet50-spd": 32}[name]
    images = np.random.default_rng(0).integers(0, 256, (2, 3, side, side), dtype=np.uint8)
    with torch.inference_mode():
        logits = model(torch.from_numpy(images).float() / 255)
    wanted = torch.tensor(expected["logits"])
    assert (logits - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@needs_shared
@pytest.mark.parametrize("name", ["resnet18-spd", "resnet50-spd"])
def test_order_and_shapes_of_the_authors_nets(name: str) -> None:
    expected = reference(name)
    with torch.device("meta"):
        model = build_classifier(name, expected["classes"])
    assert [list(tensor.shape) for tensor in model.state_dict().values()] == [
        shape for _, shape in expected["state_dict"]
    ]
    kinds = [key.rsplit(".", 1)[-1] for key in model.state_dict()]
    assert kinds == [key.rsplit(".", 1)[-1] for key, _ in expected["state_dict"]]


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("resnet18-spd", 200, 20_565_576),
        ("resnet50-spd", 10, 27_654_026),
        # ImageNet's 11 689 512 and 25 557 032 with the stem 7x7 -> 3x3 (-7 680) and fewer classes.
        ("resnet18", 10, 11_689_512 - 7_680 - 990 * 513),
        ("resnet50", 10, 25_557_032 - 7_680 - 990 * 2049),
    ],
)
def test_parameter_counts(name: str, classes: int, count: int) -> None:
    with torch.device("meta"):
        assert parameter_count(build_classifier(name, classes)) == count


def test_the_strided_stem_is_imagenets() -> None:
    with torch.device("meta"):
        assert parameter_count(build_classifier("resnet18", 1000, stem="strided")) == 11_689_512


@pytest.mark.parametrize("expansion", [1, 4])
@pytest.mark.parametrize("shortcut", ["strided", "spd"])
def test_a_block_that_halves_the_map(expansion: int, shortcut: Any) -> None:
    block = ResidualBlock(6, 4, expansion, "spd", shortcut).eval()
    for height, width in ((8, 6), (7, 5), (1, 1)):
        expected = (2, 4 * expansion, -(-height // 2), -(-width // 2))
        assert block(torch.randn(2, 6, height, width)).shape == expected
        assert ResidualBlock(6, 4, expansion, "strided", "strided")(torch.randn(2, 6, height, width)).shape == expected
    assert strided_convolutions(block) == (["shortcut.0"] if shortcut == "strided" else [])
    assert len([module for module in block.modules() if isinstance(module, SPD)]) == (1 if shortcut == "strided" else 2)


def test_only_the_spd_shortcut_looks_at_every_pixel() -> None:
    """A 1x1 convolution of stride 2 reads one pixel in four."""
    read = {}
    for form in ("strided", "spd"):
        shortcut = ResidualBlock(3, 4, 1, "spd", form).eval().shortcut
        x = torch.randn(1, 3, 6, 6, requires_grad=True)
        shortcut(x).square().sum().backward()
        assert x.grad is not None
        read[form] = int((x.grad != 0).any(dim=1).sum())
    assert read == {"strided": 9, "spd": 36}


@pytest.mark.parametrize(
    ("name", "shortcut", "strided"),
    [("resnet18-spd", "strided", 3), ("resnet50-spd", "strided", 3), ("resnet50-spd", "spd", 0), ("resnet18", None, 6)],
)
def test_strided_convolutions_are_left_only_in_shortcuts(name: str, shortcut: Any, strided: int) -> None:
    with torch.device("meta"):
        model = build_classifier(name, 10, shortcut=shortcut or "strided")
    found = strided_convolutions(model)
    assert len(found) == strided
    assert not any(isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)) for module in model.modules())
    if name.endswith("-spd"):
        assert all(".shortcut." in path for path in found)


@pytest.mark.parametrize(
    ("name", "stem", "sides"),
    [("resnet18-spd", "full", (16, 16, 8, 4, 2)), ("resnet18", "full", (32, 32, 16, 8, 4))]
    + [("resnet18", "strided", (16, 16, 8, 4, 2))],
)
def test_resolution_of_each_stage(name: str, stem: Any, sides: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = build_classifier(name, 10, stem=stem).eval()
        x = model.stem(torch.zeros(1, 3, 32, 32))
        found = [x.shape[-1]]
        for stage in model.stages:
            x = stage(x)
            found.append(x.shape[-1])
    assert tuple(found) == sides


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = build_classifier(name, 7, shortcut="spd" if name.endswith("-spd") else "strided")
    logits = model(torch.rand(2, 3, 33, 31))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, path


def test_the_architecture_builds_the_net_again() -> None:
    with torch.device("meta"):
        model = build_classifier("resnet18-spd", 5, shortcut="spd", channels=1)
        again = build_classifier(**asdict(model.architecture))
    assert isinstance(again, ResNet) and again.architecture == model.architecture
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert model.class_count == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet18_spd"}, "nearest is 'resnet18-spd'"),
        ({"name": "ResNet-50"}, "nearest is 'resnet50'"),
        ({"name": "resnet18", "shortcut": "spd"}, "resnet18: shortcut 'spd' needs an SPD net"),
        ({"name": "resnet18-spd", "shortcut": "pooled"}, "'pooled' is neither 'strided' nor 'spd'"),
        ({"name": "resnet18-spd", "stem": "strided"}, "stem 'strided' is a choice of the baselines"),
        ({"name": "resnet18", "class_count": 0}, "class_count 0 is below 1"),
    ],
)
def test_mistakes_are_named_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build_classifier(**{"class_count": 10, **arguments})
    assert message in str(error.value) and "\n" not in str(error.value)

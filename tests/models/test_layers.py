"""The rarer layers: shapes, channel orders, parameter counts worked by hand, names of the weight format."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.architecture import Architecture
from models.builders import BUILDERS, JOINS_MAPS
from models.common import SPPF, Kernel
from models.rare_layers import (
    SPP,
    Contract,
    CrossConv,
    Expand,
    GhostBottleneck,
    GhostConv,
    MixConv2d,
    TransformerBlock,
    mixed_channels,
)
from models.yolo import DetectionModel, count_parameters
from utils.user_error import UserError

# Rows after a Conv that gives 16 channels at stride 2; output channels and pixels per cell.
ROWS: list[tuple[list[Any], int, int]] = [
    ([-1, 1, "Conv", [32, 3, 2]], 32, 4),
    ([-1, 1, "Conv", [32, 3, 1, None, 2, 2, False]], 32, 2),
    ([-1, 1, "DWConv", [32, 3, 2]], 32, 4),
    ([-1, 1, "Focus", [32, 3]], 32, 4),
    ([-1, 1, "SPD", [2]], 64, 4),
    ([-1, 1, "space_to_depth", [1]], 64, 4),
    ([-1, 1, "SPDConv", [32, 3]], 32, 4),
    ([-1, 1, "SPDConv", [32, 1, 3]], 32, 6),
    ([-1, 2, "Bottleneck", [16]], 16, 2),
    ([-1, 1, "Bottleneck", [32, False, 1, 0.25]], 32, 2),
    ([-1, 2, "BottleneckCSP", [32, False]], 32, 2),
    ([-1, 2, "C3", [32, True, 2, 0.5]], 32, 2),
    ([-1, 2, "C3Ghost", [32]], 32, 2),
    ([-1, 1, "C3SPP", [32, [3, 5]]], 32, 2),
    ([-1, 2, "C3TR", [32]], 32, 2),
    ([-1, 2, "C3x", [32]], 32, 2),
    ([-1, 1, "SPP", [32, [5, 9, 13]]], 32, 2),
    ([-1, 1, "SPPF", [32, 5]], 32, 2),
    ([-1, 1, "GhostConv", [32, 3, 2]], 32, 4),
    ([-1, 1, "GhostBottleneck", [16, 3, 1]], 16, 2),
    ([-1, 1, "GhostBottleneck", [32, 3, 2]], 32, 4),
    ([-1, 1, "CrossConv", [16, 3, 1, 1, 1.0, True]], 16, 2),
    ([-1, 1, "CrossConv", [32, 3, 2]], 32, 4),
    ([-1, 1, "MixConv2d", [32, [1, 3], 2]], 32, 4),
    ([-1, 1, "MixConv2d", [32, [1, 3, 5], 1, False]], 32, 2),
    ([[-1, 0], 1, "Concat", [1]], 32, 2),
    ([-1, 1, "Contract", [2]], 64, 4),
    ([-1, 1, "Expand", [2]], 4, 1),
    ([-1, 1, "ConvTranspose", [32, 2, 2]], 32, 1),
    ([-1, 1, "DWConvTranspose2d", [32, 2, 2]], 32, 1),
    ([-1, 1, "nn.ConvTranspose2d", [32, 4, 2, 1]], 32, 1),
    ([-1, 1, "nn.Conv2d", [32, 3, 2, 1]], 32, 4),
    ([-1, 1, "nn.BatchNorm2d", []], 16, 2),
    ([-1, 1, "nn.MaxPool2d", [2, 2, 0]], 16, 4),
    ([-1, 1, "nn.MaxPool2d", [3, 1, 1]], 16, 2),
    ([-1, 1, "nn.Upsample", ["None", 2, "nearest"]], 16, 1),
    ([-1, 1, "nn.Upsample", [None, 2]], 16, 1),
]


@pytest.mark.parametrize(("row", "channels", "stride"), ROWS, ids=lambda value: value[2] if type(value) is list else "")
def test_row_builds_runs_and_learns(row: list[Any], channels: int, stride: int) -> None:
    values = {
        "nc": 1,
        "anchors": 1,
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], row],
        "head": [[-1, 1, "Detect", ["nc", "anchors"]]],
    }
    model = DetectionModel(Architecture.from_dict(values))
    assert model.channels[1] == channels and model.strides == (stride,)
    maps = model(torch.rand(2, 3, 48, 24))
    assert maps.levels[0].shape == (2, 1, 48 // stride, 24 // stride, 6)
    maps.levels[0].square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    again = Architecture.from_dict(model.architecture.as_dict())
    assert DetectionModel(again).state_dict().keys() == model.state_dict().keys()


def test_every_registered_module_has_a_row_here() -> None:
    assert {row[2] for row, _, _ in ROWS} | JOINS_MAPS | {"nn.ZeroPad2d"} == set(BUILDERS)


def test_zero_pad_then_pool_keeps_the_size() -> None:
    values = {
        "nc": 1,
        "anchors": 1,
        "backbone": [[-1, 1, "nn.ZeroPad2d", [[0, 1, 0, 1]]], [-1, 1, "nn.MaxPool2d", [2, 1, 0]]],
        "head": [[-1, 1, "Detect", ["nc", "anchors"]]],
    }
    assert DetectionModel(Architecture.from_dict(values))(torch.rand(1, 3, 8, 6)).levels[0].shape[2:4] == (8, 6)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ([-1, 1, "GhostBottleneck", [32, 3, 1]], "its 32 output channels must be its 16 inputs"),
        ([-1, 1, "GhostBottleneck", [32, 3, 4]], "argument 'stride' is 4; 1 or 2 is needed"),
        ([-1, 1, "Expand", [3]], "16 channels are no multiple of 9"),
        ([-1, 1, "SPP", [32, 5]], "argument 'windows' is 5; a list of whole numbers is needed"),
        ([-1, 1, "nn.BatchNorm2d", [8]], "argument 'channels' is 8; one of 16 is needed"),
        ([-1, 1, "nn.ZeroPad2d", [[0, 1]]], "argument 'margins' is (0, 1)"),
        ([-1, 1, "nn.Upsample", [None, 2, "smooth"]], "argument 'mode' is 'smooth'; one of nearest"),
        ([-1, 1, "nn.MaxPool2d", [2, 2, 5]], "argument 'padding' is 5; at most half of the window, 1, is needed"),
        ([-1, 1, "C3", [32, True, 3]], "layer 1, C3): "),
        ([-1, 1, "C3", [32, True, 1, -0.5]], "argument 'expansion' is -0.5; a positive number is needed"),
    ],
)
def test_wrong_arguments_are_named(row: list[Any], told: str) -> None:
    values = {
        "nc": 1,
        "anchors": 1,
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], row],
        "head": [[-1, 1, "Detect", ["nc", "anchors"]]],
    }
    with pytest.raises(UserError) as caught:
        DetectionModel(Architecture.from_dict(values, "f.yaml"))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_contract_lists_phases_row_by_row() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]]])
    assert Contract(2)(x).flatten().tolist() == [1, 10, 2, 20, 3, 30, 4, 40]


@settings(max_examples=20, deadline=None)
@given(gain=st.integers(1, 3), channels=st.integers(1, 4), height=st.integers(1, 4), width=st.integers(1, 4))
def test_expand_undoes_contract(gain: int, channels: int, height: int, width: int) -> None:
    x = torch.randn(2, channels, height * gain, width * gain)
    assert torch.equal(Expand(gain)(Contract(gain)(x)), x)


@settings(max_examples=40, deadline=None)
@given(
    total=st.integers(3, 400),
    sizes=st.lists(st.sampled_from([1, 3, 5, 7]), min_size=1, max_size=3),
    equal=st.booleans(),
)
def test_mixed_channels_add_up(total: int, sizes: list[int], equal: bool) -> None:
    shares = mixed_channels(total, sizes, equal=equal)
    assert sum(shares) == total and len(shares) == len(sizes) and min(shares) >= 0
    if equal:
        assert max(shares) - min(shares) <= 1


def test_mixed_channels_by_hand() -> None:
    assert mixed_channels(32, (1, 3), equal=True) == [16, 16]
    # 1 / 1 : 1 / 9 of 20 is 18 : 2, with 18 weights for each size.
    assert mixed_channels(20, (1, 3), equal=False) == [18, 2]
    assert [c.kernel_size[0] for c in MixConv2d(4, 32, (1, 3), 1, equal=True).m if isinstance(c, nn.Conv2d)] == [1, 3]


def test_pools_in_a_row_equal_pools_side_by_side() -> None:
    torch.manual_seed(0)
    side_by_side, in_a_row = SPP(8, 8, (5, 9, 13)).eval(), SPPF(8, 8, 5).eval()
    in_a_row.load_state_dict(side_by_side.state_dict())
    x = torch.randn(1, 8, 20, 17)
    torch.testing.assert_close(in_a_row(x), side_by_side(x))


def test_parameters_by_hand() -> None:
    act = nn.SiLU
    # 1x1 from 8 to 8, then 5x5 depthwise of 8; a norm of 2 x 8 behind each.
    assert count_parameters(GhostConv(8, 16, Kernel(1), act)) == 8 * 8 + 16 + 8 * 25 + 16
    # (1 x 3) and (3 x 1) kernels.
    assert count_parameters(CrossConv((4, 6, 8), Kernel(3), False)) == 4 * 6 * 3 + 12 + 6 * 8 * 3 + 16
    # Position: c^2 + c. A layer: q, k, v, fc1, fc2 of c^2; attention 3 c^2 + 3 c in and c^2 + c out.
    c = 8
    assert count_parameters(TransformerBlock(c, 4, 2)) == c * c + c + 2 * (5 * c * c + 4 * c * c + 4 * c)


def test_ghost_bottleneck_adds_its_shortcut() -> None:
    block = GhostBottleneck(8, 8, 3, 1, nn.SiLU).eval()
    x = torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(block(x) - block.conv(x), x, rtol=0, atol=1e-5)
    assert isinstance(block.conv[1], nn.Identity) and isinstance(block.shortcut, nn.Identity)


def test_names_of_the_weight_format() -> None:
    transformer = set(TransformerBlock(8, 4, 1).state_dict())
    assert {"linear.weight", "tr.0.q.weight", "tr.0.ma.in_proj_weight", "tr.0.fc2.weight"} <= transformer
    ghost = set(GhostBottleneck(8, 16, 3, 2, nn.SiLU).state_dict())
    assert {"conv.0.cv2.conv.weight", "conv.1.conv.weight", "shortcut.0.bn.bias", "shortcut.1.conv.weight"} <= ghost


def test_transformer_sees_every_cell() -> None:
    torch.manual_seed(0)
    block = TransformerBlock(8, 4, 1).eval()
    x = torch.randn(1, 8, 3, 4, requires_grad=True)
    block(x)[0, 0, 0, 0].backward()
    assert x.grad is not None and bool((x.grad.abs().amax(dim=1) > 0).all())

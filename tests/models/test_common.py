"""Layers: the SPD identity, channel orders, shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from models.common import SPD, Concat, Focus, Kernel, SPDConv, pad_to_multiple, released_to_unshuffle_order


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize(("height", "width"), [(12, 18), (13, 17), (7, 12), (1, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_spd_conv_equals_its_strided_form(
    size: int, scale: int, height: int, width: int, dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(size * 100 + scale * 10 + height)
    layer = SPDConv(5, 7, size, scale).to(dtype)
    x = torch.randn(2, 5, height, width, generator=generator, dtype=dtype)
    literal, strided = layer.convolved_literally(x).detach(), layer.convolved(x).detach()
    assert strided.shape == (2, 7, -(-height // scale), -(-width // scale))
    assert (strided - literal).abs().max() <= tolerance * max(float(literal.abs().max()), 1.0)


@settings(max_examples=30, deadline=None)
@given(
    channels=st.integers(1, 9),
    size=st.sampled_from([1, 3, 5]),
    scale=st.integers(2, 4),
    height=st.integers(1, 21),
    width=st.integers(1, 21),
)
def test_spd_conv_identity_and_gradients_hold_for_any_shape(
    channels: int, size: int, scale: int, height: int, width: int
) -> None:
    layer = SPDConv(channels, 3, size, scale).double()
    x = torch.randn(1, channels, height, width, dtype=torch.float64)
    gradients = []
    for convolve in (layer.convolved_literally, layer.convolved):
        layer.zero_grad()
        out = convolve(x)
        (out * torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)).sum().backward()  # type: ignore[no-untyped-call]
        assert layer.conv.weight.grad is not None
        gradients.append((out.detach(), layer.conv.weight.grad.clone()))
    torch.testing.assert_close(gradients[1][0], gradients[0][0], rtol=0, atol=1e-10)
    torch.testing.assert_close(gradients[1][1], gradients[0][1], rtol=0, atol=1e-10)


def test_spd_lists_the_phases_in_the_released_order() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]]])
    # Phases (0,0), (1,0), (0,1), (1,1), each with both channels.
    assert SPD(2)(x).flatten().tolist() == [1, 10, 3, 30, 2, 20, 4, 40]


@pytest.mark.parametrize("scale", [2, 3])
def test_released_order_maps_to_pixel_unshuffle(scale: int) -> None:
    x = torch.randn(2, 5, 6, 12)
    index = released_to_unshuffle_order(5, scale)
    assert torch.equal(SPD(scale)(x)[:, index], functional.pixel_unshuffle(x, scale))


def test_odd_sizes_are_padded_with_zeros_at_bottom_and_right() -> None:
    padded = pad_to_multiple(torch.ones(1, 1, 3, 5), 2)
    assert padded.shape == (1, 1, 4, 6)
    assert padded[0, 0, 3].eq(0).all() and padded[0, 0, :, 5].eq(0).all() and padded.sum() == 15


def test_focus_is_spd_then_convolution() -> None:
    layer = Focus(3, 8, Kernel(3)).eval()
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(layer(x), layer.conv(SPD(2)(x)))
    assert {name for name, _ in layer.named_parameters()} == {"conv.conv.weight", "conv.bn.weight", "conv.bn.bias"}


def test_same_padding_keeps_the_size_with_dilation() -> None:
    assert Kernel(3, dilation=2).same_padding() == (2, 2)
    assert Kernel((1, 3)).same_padding() == (0, 1)
    assert Kernel(6, 2, 2).same_padding() == (2, 2)


def test_concat_joins_channels() -> None:
    assert Concat()([torch.zeros(1, 2, 3, 3), torch.zeros(1, 5, 3, 3)]).shape == (1, 7, 3, 3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_spd_and_its_gradient_are_those_of_the_slices(layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, 6, 8).to(memory_format=layout).requires_grad_()
    same = x.detach().clone().requires_grad_()
    slices = [same[..., row::2, column::2] for column in range(2) for row in range(2)]
    found, wanted = SPD(2)(x), torch.cat(slices, dim=1)
    assert torch.equal(found, wanted)
    gradient = torch.randn_like(wanted)
    found.backward(gradient)
    wanted.backward(gradient)  # type: ignore[no-untyped-call]
    assert x.grad is not None and same.grad is not None
    assert torch.equal(x.grad, same.grad)
    assert x.grad.is_contiguous(memory_format=layout)  # batch norm is slow on a gradient of another order

"""Conversion of any network: the same function for convolutions and average pools, shapes for max pools."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from models.convert import SPDAvgPool2d, SPDConv2d, SPDMaxPool2d, replace_downsampling
from models.resnet import build_classifier

ARCHITECTURES = {  # torchvision's name -> strided layers, of which max pools
    "mobilenet_v3_small": (5, 0),
    "shufflenet_v2_x1_0": (8, 1),
    "squeezenet1_1": (4, 3),
    "regnet_y_400mf": (9, 0),
    "resnet18": (8, 1),
    "resnet50": (8, 1),
    "densenet121": (5, 1),
    "efficientnet_b0": (5, 0),
    "convnext_tiny": (4, 0),
    "vgg11_bn": (5, 5),
    "swin_t": (1, 0),
}
QUICK = ("mobilenet_v3_small", "squeezenet1_1")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Maps of a few pixels gain nothing from threads, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def architectures() -> list[object]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ARCHITECTURES]


def filled(model: nn.Module, seed: int) -> nn.Module:
    """``model`` in evaluation mode with numbers that carry the image through to the logits, batch norms included."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        z = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            z = torch.exp(0.2 * z)
        elif name.endswith(("running_mean", "bias")):
            z = 0.1 * z
        elif tensor.ndim == 1:
            z = 1 + 0.1 * z
        else:
            z = z * (2 / tensor[0].numel()) ** 0.5
        tensor.copy_(z)
    return model.eval()


def torchvision_net(name: str) -> nn.Module:
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=10)
    return filled(model, seed=3)


def with_average_pools(model: nn.Module) -> nn.Module:
    for name, pool in list(model.named_modules()):
        if isinstance(pool, nn.MaxPool2d):
            average = nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, average)
    return model


def images(height: int, width: int) -> Tensor:
    """Two images (2, 3, height, width) of a few smooth patches; noise would look alike to a net that averages."""
    patches = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(height * width))
    return functional.interpolate(patches, (height, width), mode="bilinear")


def largest_difference(first: Tensor, second: Tensor) -> float:
    """Relative to the largest value of ``first``."""
    assert first.shape == second.shape
    return float((first - second).abs().max() / first.abs().max())


def strided_layers(model: nn.Module) -> list[str]:
    kinds = (nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d)
    return [name for name, part in model.named_modules() if isinstance(part, kinds) and part.stride not in (1, (1, 1))]


# --- whole networks -------------------------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("name", architectures())
@pytest.mark.kernels
def test_torchvision_nets_compute_the_same(name: str) -> None:
    """Max pools are turned into average pools beforehand, so that every other layer of every net is compared."""
    model = with_average_pools(torchvision_net(name))
    converted = copy.deepcopy(model)
    report = replace_downsampling(converted)
    assert len(report.replaced) == ARCHITECTURES[name][0] and report.exact
    assert list(report.replaced) == strided_layers(model) and strided_layers(converted) == []
    for height, width in ((64, 64), (75, 67)):
        x = images(height, width)
        before, after = model(x), converted(x)
        assert before.shape == (2, 10)
        difference, effect_of_image = largest_difference(before, after), largest_difference(before[0], before[1])
        assert difference <= 1e-4
        # Saturated nets damp what differs between images: that must be there, and agree, too.
        assert effect_of_image > 1e-4 and difference <= 0.01 * effect_of_image


@torch.inference_mode()
@pytest.mark.parametrize("name", [each for each in architectures() if ARCHITECTURES[each.values[0]][1]])  # type: ignore[attr-defined]
def test_torchvision_nets_with_max_pools_keep_every_shape(name: str) -> None:
    model = torchvision_net(name)
    converted = copy.deepcopy(model)
    report = replace_downsampling(converted, images(64, 64))
    assert len(report.replaced) == ARCHITECTURES[name][0] and len(report.approximated) == ARCHITECTURES[name][1]
    assert strided_layers(converted) == [] and not report.exact
    for height, width in ((64, 64), (75, 67)):
        shapes = []
        for net in (model, converted):
            found: dict[str, tuple[int, ...]] = {}
            handles = [
                part.register_forward_hook(lambda _m, _i, out, path=path, to=found: to.update({path: out.shape}))
                for path, part in net.named_modules()
                if path in report.replaced
            ]
            assert net(images(height, width)).isfinite().all()
            for handle in handles:
                handle.remove()
            shapes.append(found)
        assert shapes[0] == shapes[1] and set(shapes[0]) == set(report.replaced)


@torch.inference_mode()
@pytest.mark.slow
@pytest.mark.kernels
def test_our_baseline_becomes_spd_without_a_change() -> None:
    model = filled(build_classifier("resnet18", 10), seed=1)
    converted = copy.deepcopy(model)
    report = replace_downsampling(converted)
    assert report.replaced == tuple(
        f"stages.{stage}.0.{part}.0" for stage in (1, 2, 3) for part in ("residual", "shortcut")
    )
    assert report.exact and not report.left
    assert largest_difference(model(images(31, 33)), converted(images(31, 33))) <= 1e-4


# --- single layers --------------------------------------------------------------------------------------------------

sides = st.integers(1, 19)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_strided_convolution_is_exact(data: st.DataObject) -> None:
    draw = data.draw
    kernel = (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    padding = (draw(st.integers(0, 4)), draw(st.integers(0, 4)))
    dilation = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    stride, groups = draw(st.integers(2, 5)), draw(st.sampled_from([1, 2, 4]))
    bias, height, width = draw(st.booleans()), draw(sides), draw(sides)
    for side, axis in ((height, 0), (width, 1)):
        assume(side + 2 * padding[axis] >= dilation[axis] * (kernel[axis] - 1) + 1)
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias).double()
    form = SPDConv2d(layer)
    x = torch.randn(2, 4, height, width, dtype=torch.float64)
    expected = layer(x)
    torch.testing.assert_close(form(x), expected, rtol=0, atol=1e-10)
    literal = form.plain.after_rearranging(x, form.grid, form.grid.outputs(x))
    torch.testing.assert_close(literal, expected, rtol=0, atol=1e-10)
    span = tuple(step * (size - 1) + 1 for step, size in zip(dilation, kernel, strict=True))
    assert form.weight.shape == (8, 4 // groups * stride**2, -(-span[0] // stride), -(-span[1] // stride))


@settings(max_examples=30, deadline=None)
@given(channels=st.integers(1, 6), kernel=st.integers(1, 7), stride=st.integers(2, 4), height=sides, width=sides)
def test_depthwise_convolutions_and_their_gradients(
    channels: int, kernel: int, stride: int, height: int, width: int
) -> None:
    layer = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels).double()
    form = SPDConv2d(layer)
    gradients = []
    for convolve in (layer, form):
        x = torch.linspace(-1, 1, channels * height * width, dtype=torch.float64).view(1, channels, height, width)
        x.requires_grad_()
        out = convolve(x)
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-10 * max(1, out.numel()))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_average_pool_is_exact(data: st.DataObject) -> None:
    draw = data.draw
    kernel = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
    stride, height, width = draw(st.integers(2, 4)), draw(sides), draw(sides)
    assume(height + 2 * padding[0] >= kernel[0] and width + 2 * padding[1] >= kernel[1])
    divisor = draw(st.sampled_from([None, 1, 7]))
    pool = nn.AvgPool2d(kernel, stride, padding, draw(st.booleans()), draw(st.booleans()), divisor)
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    torch.testing.assert_close(SPDAvgPool2d(pool, x)(x), pool(x), rtol=0, atol=1e-10)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_max_pool_keeps_its_shape(data: st.DataObject) -> None:
    draw = data.draw
    kernel, stride, height, width = draw(st.integers(1, 6)), draw(st.integers(2, 4)), draw(sides), draw(sides)
    padding, rounds_up = draw(st.integers(0, kernel // 2)), draw(st.booleans())
    assume(min(height, width) + 2 * padding >= kernel)
    pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=rounds_up)
    x = torch.rand(2, 3, height, width, dtype=torch.float64)
    form = SPDMaxPool2d(pool, x)
    out, highest = form(x), pool(x)
    assert out.shape == highest.shape and form.weight.shape == (3, 3 * stride**2, 1, 1)
    # An average over part of the window of positive numbers stays below their maximum.
    assert (out <= highest + 1e-12).all() and (out >= 0).all()


def test_the_kernel_of_a_3x3_convolution_by_hand() -> None:
    layer = nn.Conv2d(1, 1, 3, 2, 1, bias=False)
    layer.weight.data = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    # Rows 1 2 3 0 / 4 5 6 0 / 7 8 9 0 / 0 0 0 0, split into phases (0,0), (0,1), (1,0), (1,1).
    expected = [[[1, 3], [7, 9]], [[2, 0], [8, 0]], [[4, 6], [0, 0]], [[5, 0], [0, 0]]]
    assert SPDConv2d(layer).weight.tolist() == [expected]


def test_a_patch_convolution_needs_one_tap_per_phase() -> None:
    layer = nn.Conv2d(3, 8, 4, 4)  # ConvNeXt's stem
    form = SPDConv2d(layer)
    assert form.weight.shape == (8, 48, 1, 1)
    assert torch.equal(form.weight.flatten(), layer.weight.flatten())
    assert "scale=4, 1x1 convolution 48 -> 8" in repr(form)


def test_a_max_pool_starts_as_the_average_of_its_block_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0, 5.0], [3.0, 6.0, 7.0], [8.0, 8.0, 8.0]]]])
    assert SPDMaxPool2d(nn.MaxPool2d(2), x)(x).tolist() == [[[[3.0]]]]
    # 3x3, padding 1: blocks start at pixels 0 and 2; what lies outside is zero.
    assert SPDMaxPool2d(nn.MaxPool2d(3, 2, 1), x)(x).tolist() == [[[[3.0, 3.0], [4.0, 2.0]]]]
    # A window of one pixel is subsampling, which the convolution can do.
    assert SPDMaxPool2d(nn.MaxPool2d(1, 2), x)(x).tolist() == [[[[1.0, 5.0], [8.0, 8.0]]]]


def test_a_max_pool_starts_without_mixing_channels_and_can_learn_to() -> None:
    x = torch.stack([torch.ones(4, 4), torch.full((4, 4), 10.0)])[None]
    form = SPDMaxPool2d(nn.MaxPool2d(2), x)
    out = form(x)
    assert out[0, 0].eq(1).all() and out[0, 1].eq(10).all()
    out[0, 0].sum().backward()
    assert form.weight.grad is not None and form.weight.grad[0, 4:].abs().min() > 0


# --- what becomes of the module -------------------------------------------------------------------------------------


def small_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2)
    )


def test_names_stay_and_a_second_call_finds_nothing() -> None:
    model = small_net()
    report = replace_downsampling(model, images(16, 16))
    assert report.replaced == ("0", "2", "4") and report.approximated == ("4",) and not report.left
    assert set(dict(model.named_parameters())) >= {"0.weight", "0.bias", "2.weight", "4.weight", "3.weight"}
    assert isinstance(model[3], nn.Conv2d)
    again = replace_downsampling(model)
    assert not again.replaced and not again.left
    assert str(report) == "0: SPD\n2: SPD\n4: SPD, starts as an average"


def test_the_example_changes_neither_mode_nor_statistics() -> None:
    model = small_net().train()
    model[1].eval()
    before = copy.deepcopy(model[1].state_dict())
    replace_downsampling(model, images(16, 16))
    assert [part.training for part in model] == [True, False, True, True, True]
    assert all(torch.equal(value, before[key]) for key, value in model[1].state_dict().items())
    assert model[1].num_batches_tracked == 0


def test_without_an_example_pools_size_themselves_and_load_weights() -> None:
    ready, waiting = small_net(), small_net()
    replace_downsampling(ready, images(16, 16))
    replace_downsampling(waiting)
    with torch.no_grad():
        ready.get_parameter("4.weight").mul_(2)
    waiting.load_state_dict(ready.state_dict())
    torch.testing.assert_close(waiting.eval()(images(17, 16)), ready.eval()(images(17, 16)))
    fresh = small_net().eval()
    replace_downsampling(fresh)
    assert fresh(images(16, 16)).shape == (2, 4, 2, 2)
    assert fresh.get_parameter("4.weight").shape == (4, 16, 1, 1)


def test_type_mode_and_frozen_weights_stay() -> None:
    model = small_net().double().eval()
    model[0].weight.requires_grad_(False)
    bias = model[0].bias
    replace_downsampling(model, images(16, 16).double())
    assert all(parameter.dtype == torch.float64 for parameter in model.parameters())
    assert not model[0].weight.requires_grad and model[0].bias is bias
    assert not any(part.training for part in model.modules())


def test_one_layer_under_two_names_stays_one_layer() -> None:
    shared = nn.Conv2d(3, 3, 3, 2, 1)
    model = nn.Sequential(shared, nn.Sequential(shared))
    before = model(images(16, 16))
    assert replace_downsampling(model).replaced == ("0", "1.0")
    assert model.get_submodule("0") is model.get_submodule("1.0")
    torch.testing.assert_close(model(images(16, 16)), before)


class _OwnCode(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).abs()


def _tied() -> nn.Module:
    first, second = nn.Conv2d(3, 3, 2, 2), nn.Conv2d(3, 3, 2, 1)
    second.weight = first.weight
    return nn.Sequential(first, second)


def _hooked() -> nn.Module:
    layer = nn.Conv2d(3, 3, 2, 2)
    layer.register_forward_hook(lambda _module, _inputs, out: out + 1)
    return nn.Sequential(layer)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 3, 3, (1, 2))), "stride (1, 2) differs between rows and columns"),
        (nn.Sequential(nn.AvgPool2d(2, (2, 1))), "stride (2, 1) differs between rows and columns"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1, padding_mode="reflect")), "padding is 'reflect'"),
        (nn.Sequential(_OwnCode(3, 3, 3, 2)), "_OwnCode is a convolution with code of its own"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 2, 2))), "hooks or a parametrization"),
        (_hooked(), "hooks or a parametrization"),
        (_tied(), "shares its weight"),
        (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), "places of the maxima"),
        (nn.Sequential(nn.MaxPool2d(2, dilation=2)), "dilation (2, 2) of a max pool"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1)), "AdaptiveAvgPool2d has no fixed window"),
        (nn.Sequential(nn.Conv3d(1, 1, 2, 2)), "Conv3d does not work on maps"),
        (nn.Conv2d(3, 3, 2, 2), "it is the module itself"),
    ],
)
def test_what_has_no_spd_form_is_left_with_its_reason(model: nn.Module, reason: str) -> None:
    parts = list(model.modules())
    report = replace_downsampling(model)
    assert not report.replaced and report.exact
    assert [reason in text for text in report.left.values()] == [True]
    assert all(before is after for before, after in zip(parts, model.modules(), strict=True))


def test_a_layer_without_weights_yet_is_left() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3, 2))
    assert "run the network once before" in replace_downsampling(model).left["0"]


def test_layers_that_do_not_downsample_are_not_mentioned() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same"), nn.MaxPool2d(5, 1, 2), nn.AvgPool2d(3, 1), nn.ConvTranspose2d(4, 4, 2, 2)
    )
    report = replace_downsampling(model)
    assert not report.replaced and not report.left


def test_a_valid_padding_is_none() -> None:
    layer = nn.Conv2d(3, 4, 5, 3, "valid")
    torch.testing.assert_close(SPDConv2d(layer)(images(17, 20)), layer(images(17, 20)))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
def test_a_converted_net_can_be_traced() -> None:
    model = small_net().eval()
    replace_downsampling(model, images(16, 16))
    traced = torch.jit.trace(model, images(16, 16))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(traced(images(16, 16) / 2), model(images(16, 16) / 2))

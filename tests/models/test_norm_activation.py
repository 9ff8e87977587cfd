"""Batch norm and SiLU as one step of the gradient: the values and gradients of the two modules, for fewer kept maps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models.norm_activation import NormAndSilu, norm_and_activation


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_gradients_and_statistics_are_those_of_the_modules(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    norm, act = nn.BatchNorm2d(6, eps=1e-3, momentum=0.03), nn.SiLU()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2), norm.bias.uniform_(-1, 1)
    other = copy.deepcopy(norm)
    x = (torch.randn(3, 6, 8, 10) * 4 + 1).to(memory_format=layout).requires_grad_()
    same = x.detach().clone().requires_grad_()
    gradient = torch.randn(3, 6, 8, 10).to(memory_format=layout)

    found, wanted = norm_and_activation(x, norm, act), act(other(same))
    assert found.grad_fn is not None and type(found.grad_fn).__name__ == "NormAndSiluBackward"
    found.backward(gradient)  # type: ignore[no-untyped-call]
    wanted.backward(gradient)

    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert x.grad is not None and same.grad is not None
    torch.testing.assert_close(x.grad, same.grad, rtol=1e-5, atol=1e-5)
    assert x.grad.is_contiguous(memory_format=layout)
    for mine, theirs in zip(norm.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-4)
    for name, value in norm.named_buffers():
        torch.testing.assert_close(value, other.get_buffer(name), rtol=0, atol=0)


def test_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    x, weight, bias = (
        torch.randn(2, 3, 4, 4, dtype=torch.float64),
        torch.rand(3).double() + 0.5,
        torch.randn(3).double(),
    )
    inputs = [each.requires_grad_() for each in (x, weight, bias)]
    assert torch.autograd.gradcheck(lambda *given: NormAndSilu.apply(*given, (None, None), 0.1, 1e-3), inputs)


def test_frozen_parameters_get_no_gradient() -> None:
    norm = nn.BatchNorm2d(3).requires_grad_(False)
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    norm_and_activation(x, norm, nn.SiLU()).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and norm.weight.grad is None and norm.bias.grad is None


def test_other_modules_and_evaluation_run_as_they_are() -> None:
    norm, x = nn.BatchNorm2d(3), torch.randn(2, 3, 4, 4, requires_grad=True)
    assert torch.equal(norm_and_activation(x, norm.eval(), nn.SiLU()), nn.SiLU()(norm(x)))
    assert torch.equal(norm_and_activation(x, nn.Identity(), nn.ReLU()), x.relu())

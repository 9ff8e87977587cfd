"""What both sides of a comparison get: inputs and a clock that need nothing but torch; it runs in a checkout too."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

STRIDES = (8, 16, 32)
Times = dict[str, list[list[float]]]  # seconds of the wall clock and of the processor, by part of a side


def nms_rows(side: int) -> torch.Tensor:
    """(1, N, 85) rows ``cx cy w h objectness classes``: a tenth of them lie about 40 objects and score well."""
    torch.manual_seed(0)
    count = sum(3 * (side // stride) ** 2 for stride in STRIDES)
    rows = torch.cat((torch.rand(count, 2) * side, torch.rand(count, 2) * 60 + 8, torch.rand(count, 81) ** 6), 1)
    spread = torch.tensor([side - 40.0, side - 40.0, 80.0, 80.0])
    centres = torch.rand(40, 4) * spread + torch.tensor([20.0, 20.0, 16.0, 16.0])
    near = count // 10
    rows[:near, :4] = centres[torch.randint(0, 40, (near,))] + torch.randn(near, 4) * 3
    rows[:near, 4] = 0.3 + 0.7 * torch.rand(near)
    return rows[None]


def head_maps(images: int, side: int) -> list[torch.Tensor]:
    """Raw maps (B, 3, H, W, 85) of three levels, which take a gradient."""
    torch.manual_seed(0)
    return [torch.randn(images, 3, side // stride, side // stride, 85).requires_grad_() for stride in STRIDES]


def objects(images: int, each: int = 30) -> torch.Tensor:
    """(images * each, 6) rows ``image class cx cy w h``, normalised."""
    torch.manual_seed(1)
    count = images * each
    image = torch.arange(images).repeat_interleave(each)[:, None].float()
    kind = torch.randint(0, 80, (count, 1)).float()
    sizes = torch.rand(count, 2) ** 2 * 0.4 + 0.01
    return torch.cat((image, kind, 0.25 + 0.5 * torch.rand(count, 2), sizes), 1)


def times_of(call: Callable[[], object], times: int = 5, per: int = 1) -> Times:
    """Seconds of ``times`` calls, after one that does not count, divided by ``per``."""
    found = []
    for _ in range(times + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        found.append([(time.perf_counter() - wall) / per, (time.process_time() - cpu) / per])
    return {"": found[1:]}

"""What both sides of a comparison get: inputs that need nothing but torch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import torch

NMS_ROWS = 25_200
GRIDS = (80, 40, 20)  # cells of the three levels at 640 pixels


def nms_rows() -> torch.Tensor:
    """(1, 25200, 85) rows ``cx cy w h objectness classes``: a tenth of them lie about 40 objects and score well."""
    torch.manual_seed(0)
    rows = torch.cat(
        (torch.rand(NMS_ROWS, 2) * 640, torch.rand(NMS_ROWS, 2) * 60 + 8, torch.rand(NMS_ROWS, 81) ** 6), 1
    )
    objects = torch.rand(40, 4) * torch.tensor([600.0, 600.0, 80.0, 80.0]) + torch.tensor([20.0, 20.0, 16.0, 16.0])
    near = NMS_ROWS // 10
    rows[:near, :4] = objects[torch.randint(0, 40, (near,))] + torch.randn(near, 4) * 3
    rows[:near, 4] = 0.3 + 0.7 * torch.rand(near)
    return rows[None]


def head_maps(images: int = 16, classes: int = 80) -> list[torch.Tensor]:
    """Raw maps (B, 3, H, W, 5 + C) of three levels at 640 pixels."""
    torch.manual_seed(0)
    return [torch.randn(images, 3, grid, grid, 5 + classes) for grid in GRIDS]


def objects(images: int = 16, each: int = 30) -> torch.Tensor:
    """(images * each, 6) rows ``image class cx cy w h``, normalised."""
    torch.manual_seed(1)
    count = images * each
    image = torch.arange(images).repeat_interleave(each)[:, None].float()
    kind = torch.randint(0, 80, (count, 1)).float()
    sizes = torch.rand(count, 2) ** 2 * 0.4 + 0.01
    return torch.cat((image, kind, 0.25 + 0.5 * torch.rand(count, 2), sizes), 1)


def print_seconds(call: Callable[[], object], times: int = 5, clock: Callable[[], float] = time.perf_counter) -> None:
    """Print, as a JSON list, the seconds of ``times`` calls after one that does not count.

    ``time.process_time`` as the clock leaves out what other programs of the machine took; for work of one thread.
    """
    seconds = []
    for _ in range(times + 1):
        start = clock()
        call()
        seconds.append(clock() - start)
    print(json.dumps(seconds[1:]))

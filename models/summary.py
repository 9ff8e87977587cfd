"""What a model consists of: layers, parameters, output shapes, arithmetic."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from models.yolo import DetectionModel, count_parameters, zero_images


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """One row of the table."""

    index: int
    sources: tuple[int, ...]  # as written in the file
    repeats: int
    parameters: int
    module: str
    arguments: str
    output: str  # channels x height x width


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """``gflops``: 2 x multiply-adds of convolutions and matrix products for one image, in billions.

    ``milliseconds`` per layer, where layers were timed.
    """

    layers: tuple[LayerSummary, ...]
    parameters: int
    gflops: float
    height: int
    width: int
    milliseconds: tuple[float, ...] = ()

    def lines(self) -> list[str]:
        """The table as text."""
        head: tuple[str, ...] = ("", "from", "n", "params", "module", "output", "arguments")
        rows: list[tuple[str, ...]] = [
            (
                str(each.index),
                " ".join(map(str, each.sources)),
                str(each.repeats),
                f"{each.parameters}",
                each.module,
                each.output,
                each.arguments,
            )
            for each in self.layers
        ]
        if self.milliseconds:
            head = (*head[:4], "ms", *head[4:])
            rows = [(*row[:4], f"{ms:.2f}", *row[4:]) for row, ms in zip(rows, self.milliseconds, strict=True)]
        numeric = 5 if self.milliseconds else 4
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
        text = []
        for row in (head, *rows):
            cells = [
                cell.rjust(width) if column < numeric else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            text.append("  ".join(cells).rstrip())
        text.append(
            f"{len(self.layers)} layers, {self.parameters:,} parameters, "
            f"{self.gflops:.1f} GFLOPs at {self.width}x{self.height}"
            + (f", {sum(self.milliseconds):.1f} ms" if self.milliseconds else "")
        )
        return text


def summarize(model: DetectionModel, height: int, width: int) -> ModelSummary:
    """Counts one forward pass over an image of ``height`` x ``width`` pixels; runs on shapes alone, without data."""
    from torch.utils.flop_counter import FlopCounterMode  # here, as it imports a compiler for GPUs

    ghost = copy.deepcopy(model).eval().to("meta")
    shapes: dict[int, str] = {}
    hooks = [layer.register_forward_hook(_shape_recorder(index, shapes)) for index, layer in enumerate(ghost.model)]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        ghost(zero_images(ghost, height, width))
    for hook in hooks:
        hook.remove()
    layers = tuple(
        LayerSummary(
            index=index,
            sources=plan.row.sources,
            repeats=plan.repeats,
            parameters=count_parameters(layer),
            module=plan.row.module,
            arguments=plan.arguments,
            output=shapes[index],
        )
        for index, (layer, plan) in enumerate(zip(model.model, model.plan, strict=True))
    )
    return ModelSummary(layers, count_parameters(model), counter.get_total_flops() / 1e9, height, width)


def _shape_recorder(index: int, shapes: dict[int, str]) -> Callable[[nn.Module, object, object], None]:
    def record(layer: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            shapes[index] = "x".join(map(str, output.shape[1:]))
        elif isinstance(output, tuple):
            shapes[index] = " ".join("x".join(map(str, level.shape[1:])) for level in output[0])

    return record


@torch.inference_mode()
def layer_milliseconds(model: DetectionModel, height: int, width: int, repeats: int = 10) -> tuple[float, ...]:
    """Shortest time of each layer in ``repeats`` forward passes over one image on the CPU, milliseconds."""
    timed = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)
    images = zero_images(timed, height, width).contiguous(memory_format=torch.channels_last)
    starts, best = [0.0] * len(timed.model), [float("inf")] * len(timed.model)
    for index, layer in enumerate(timed.model):

        def begin(layer: nn.Module, inputs: object, index: int = index) -> None:
            starts[index] = time.perf_counter()

        def end(layer: nn.Module, inputs: object, output: object, index: int = index) -> None:
            best[index] = min(best[index], 1e3 * (time.perf_counter() - starts[index]))

        layer.register_forward_pre_hook(begin)
        layer.register_forward_hook(end)
    for _ in range(repeats + 1):
        timed(images)
    return tuple(best)

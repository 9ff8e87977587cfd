"""Which form of each space-to-depth is faster on this machine: inside of a strided convolution, or kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.measuring import Table
from models.common import Focus, SPDConv
from models.fuse import fused, spd_before_c3
from models.yolo import DetectionModel, zero_images
from utils.geometry.letterbox import FrameSize


def layers_table(choices: Sequence[LayerChoice]) -> Iterator[Table]:
    if choices:
        cells = [(", ".join(map(str, one.layers)), f"{one.strided_ms:.3f}", f"{one.kept_ms:.3f}") for one in choices]
        rows = [(*own, "strided" if one.is_strided else "kept") for own, one in zip(cells, choices, strict=True)]
        yield Table(("layers", "strided ms", "space-to-depth kept ms", "chosen"), rows)


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """What measuring said about the space-to-depth of one layer (of two layers for SPD and the C3 behind it)."""

    layers: tuple[int, ...]
    strided_ms: float
    kept_ms: float

    @property
    def is_strided(self) -> bool:
        return self.strided_ms <= self.kept_ms


def fused_by_measurement(
    model: DetectionModel, size: FrameSize, repeats: int = 20
) -> tuple[DetectionModel, tuple[LayerChoice, ...]]:
    """A fused copy in which each layer has the faster form on this machine, and the measurements, in milliseconds.

    Measured on one image of ``size`` on the model's device; the best of ``repeats`` runs counts for each form.
    """
    strided, kept = fused(model), fused(model, strided=False)
    inputs = _recorded_inputs(kept, size)
    units = [(index,) for index, layer in enumerate(model.model) if isinstance(layer, (SPDConv, Focus))]
    choices = []
    for unit in sorted([*units, *((index, index + 1) for index in spd_before_c3(model))]):
        forms = [[owner.model[index] for index in unit] for owner in (strided, kept)]
        choices.append(LayerChoice(unit, *best_milliseconds(forms, inputs[unit[0]], repeats)))
        if not choices[-1].is_strided:
            for index in unit:
                strided.model[index] = kept.model[index]
    return strided, tuple(choices)


@torch.no_grad()
def _recorded_inputs(model: DetectionModel, size: FrameSize) -> dict[int, Tensor]:
    """The map that each single-input layer reads for one image."""
    found: dict[int, Tensor] = {}

    def recorder(index: int) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def record(_: nn.Module, inputs: tuple[object, ...]) -> None:
            if isinstance(inputs[0], Tensor):
                found[index] = inputs[0].clone(memory_format=torch.preserve_format)

        return record

    hooks = [layer.register_forward_pre_hook(recorder(index)) for index, layer in enumerate(model.model)]
    model(zero_images(model, *size).contiguous(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def best_milliseconds(forms: Sequence[Sequence[nn.Module]], x: Tensor, repeats: int) -> list[float]:
    """Shortest time of each form; the forms take turns, so that a busy moment does not meet only one of them."""
    best = [float("inf")] * len(forms)
    for _ in range(repeats + 2):
        for place, layers in enumerate(forms):
            start = time.perf_counter()
            out = x
            for layer in layers:
                out = layer(out)
            if out.is_cuda:
                torch.cuda.synchronize(out.device)
            best[place] = min(best[place], 1e3 * (time.perf_counter() - start))
    return best

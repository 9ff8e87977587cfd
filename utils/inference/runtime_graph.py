"""An exported file opened in its runtime, and what such files say of themselves.

Their metadata are the keys that YOLOv5 writes: ``stride`` and ``names``, as numbers, lists and mappings or as Python
literals of them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from utils.geometry.letterbox import FrameSize
from utils.user_error import UserError

Tensors = Mapping[str, torch.Tensor]
Run = Callable[[torch.Tensor], Tensors]


@dataclass(frozen=True, slots=True)
class RuntimeGraph:
    """An exported file opened in its runtime."""

    run: Run  # images (B, 3, H, W) to outputs by name
    names: tuple[str, ...]  # empty if the file has none
    stride: int
    frame: FrameSize | None
    batch_size: int | None
    most_images: int | None = None  # per call, where the batch is free within limits
    suppresses: bool = False  # gives detections, with the thresholds of its export


def described_graph(
    path: Path, run: Run, metadata: Mapping[str, Any], shape: Sequence[object], most_images: int | None = None
) -> RuntimeGraph:
    """An opened file with what its metadata and the shape (B, 3, H, W) of its input say; free sides are no numbers.

    Raises:
        UserError: metadata that are no names or no stride, an input that is no batch of images.
    """
    if len(shape) != 4:
        sides = ", ".join(str(side) if isinstance(side, int) else "free" for side in shape)
        raise UserError(f"{path}: its input is ({sides}); a detector takes images (batch, 3, height, width)")
    batch_size, frame = _fixed_sizes(shape)
    names, stride = _class_names(path, metadata.get("names")), _stride(path, metadata.get("stride"))
    return RuntimeGraph(run, names, stride, frame, batch_size, most_images)


def _fixed_sizes(shape: Sequence[object]) -> tuple[int | None, FrameSize | None]:
    """Batch size and frame out of an input shape (B, 3, H, W) whose free sides are no numbers."""
    batch, _, height, width = shape  # four, as described_graph has seen
    frame = FrameSize(height, width) if isinstance(height, int) and isinstance(width, int) else None
    return batch if isinstance(batch, int) else None, frame


def _class_names(path: Path, value: Any) -> tuple[str, ...]:
    """Class names out of a list, a mapping from ids, or the Python literal of either; empty if there are none."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise UserError(f"{path}: class names in its metadata are not readable: {value[:60]!r}") from None
    if isinstance(value, Mapping):
        try:
            value = [value[key] for key in sorted(value, key=int)]
        except (ValueError, TypeError):
            raise UserError(f"{path}: class names in its metadata are not numbered: {str(value)[:60]!r}") from None
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise UserError(f"{path}: class names in its metadata are not a list: {str(value)[:60]!r}")
    return tuple(str(name) for name in value)


def _stride(path: Path, value: object) -> int:
    """Stride, pixels, out of a number or its text; 32, that of every P5 model, where there is none."""
    if value is None:
        return 32
    try:
        stride = int(float(str(value)))
    except (ValueError, OverflowError):
        stride = 0
    if stride < 1:
        raise UserError(f"{path}: stride in its metadata is not a number of pixels: {str(value)[:60]!r}")
    return stride


def first_line(error: Exception) -> str:
    """The first line of what an exception says, cut to a readable length."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]

"""torchvision's compiled operators without the package: importing it takes as long as importing torch."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

LIBRARY_SUFFIXES = (".so", ".pyd", ".dylib")


@cache
def load_torchvision_operators() -> None:
    """Make ``torch.ops.torchvision`` complete.

    The package's models, transforms and readers, which suppression does not need, cost a second or two at every start.
    Where the library lies is torchvision's own business: if it is not where it used to be, the package is imported.
    """
    spec = find_spec("torchvision")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    libraries = [file for file in sorted(folder.glob("_C*")) if file.suffix in LIBRARY_SUFFIXES]
    if len(libraries) == 1:
        torch.ops.load_library(libraries[0])  # type: ignore[no-untyped-call]
    else:
        importlib.import_module("torchvision")


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_thres: float) -> torch.Tensor:
    """Greedy suppression: indices of the kept boxes, best score first.

    Args:
        boxes: (N, 4) xyxy, float32.
        scores: (N,).
        iou_thres: a box that overlaps a kept one by more is dropped, 0-1.
    """
    load_torchvision_operators()
    kept: torch.Tensor = torch.ops.torchvision.nms(boxes, scores, iou_thres)
    return kept

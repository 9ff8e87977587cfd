"""What each layer of a network makes of an image, as images and arrays (``--visualize``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from models.yolo import DetectionModel
from utils.reporting.detection_files import write_image
from utils.reporting.image_grid import image_grid

MOST_CHANNELS = 32  # of a layer that are drawn; the array has all of them
COLUMNS = 8
CELL = 96  # pixels, longer side of one channel's image at least


@contextmanager
def recorded_maps(model: DetectionModel) -> Iterator[dict[str, torch.Tensor]]:
    """Outputs of all layers but the head by ``stage<number>_<kind>``, each (B, C, H, W), of the last forward pass."""
    maps: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(layer: torch.nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4:
                maps[name] = output.detach().float().cpu()

        return hook

    layers = list(zip(model.model, model.plan, strict=True))[:-1]
    hooks = [
        layer.register_forward_hook(keep(f"stage{number}_{plan.row.module}"))
        for number, (layer, plan) in enumerate(layers)
    ]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def write_maps(folder: Path, maps: dict[str, torch.Tensor]) -> None:
    """Write ``<name>_features.png`` and ``.npy`` (C, H, W) of the first image's maps (B, C, H, W)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in maps.items():
        channels = value[0].numpy()
        np.save(folder / f"{name}_features.npy", channels)
        write_image(folder / f"{name}_features.png", _mosaic(channels[:MOST_CHANNELS]))


def _mosaic(channels: np.ndarray) -> np.ndarray:
    """Channels (C, H, W) side by side (H', W', 3) RGB, each over its own range of values."""
    height, width = channels.shape[1:]
    scale = max(CELL / max(height, width), 1)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    cells = []
    for channel in channels:
        low, high = float(channel.min()), float(channel.max())
        grey = ((channel - low) / (high - low or 1) * 255).astype(np.uint8)
        cell = cv2.resize(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS), size, interpolation=cv2.INTER_NEAREST)
        cells.append(cell[..., ::-1])
    return image_grid(cells, COLUMNS, gap=2)

"""Detectors by ``torch.hub``, with the names and arguments of YOLOv5's.

model = torch.hub.load("path/to/this/repository", "custom", path="best.pt", source="local")
model = torch.hub.load("path/to/this/repository", "yolov5n_spd", source="local")
results = model(["a.jpg", "https://host/b.jpg", array])
results.print(); results.pandas().xyxy[0]
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from utils.verbs.hub import BareFile, BareNetwork, HubChoice, HubDetector, open_file, open_named

dependencies = ["torch", "torchvision", "numpy", "cv2", "yaml", "pandas", "PIL", "matplotlib", "tqdm"]

Device = str | int | torch.device | None


def custom(
    path: str | Path = "path/to/model.pt", autoshape: bool = True, _verbose: bool = True, device: Device = None
) -> HubDetector | BareNetwork | BareFile:
    """The detector in a file: a .pt file of this program or of YOLOv5, or an exported one.

    ``autoshape=False`` gives the bare network, as YOLOv5's: images (B, 3, H, W) 0-1 to rows (B, N, 5 + C) and raw maps,
    in training to the maps alone; of an exported file to rows. ``device``: cpu, 0, cuda:0, mps.
    ``_verbose`` prints a line about it.
    """
    opened = open_file(path, _device_name(device), autoshape)
    if _verbose:
        print(f"{path}: {len(opened.names)} classes, stride {opened.stride}")
    return opened


def _device_name(device: Device) -> str:
    return "" if device is None else str(device)


def _entry(name: str, weights: str) -> Callable[..., HubDetector | BareNetwork]:
    """The hub entry of one architecture."""

    def create(
        pretrained: bool = True,
        channels: int = 3,
        classes: int = 80,
        autoshape: bool = True,
        _verbose: bool = True,
        device: Device = None,
    ) -> HubDetector | BareNetwork:
        start = weights if pretrained else ""
        opened = open_named(HubChoice(f"{name}.yaml", start, channels, classes), _device_name(device), autoshape)
        if _verbose:
            print(f"{name}: {len(opened.names)} classes, weights of {start or 'a fresh model'}")
        return opened

    create.__name__ = create.__qualname__ = name.replace("-", "_")
    create.__doc__ = (
        f"{name}. With pretrained it starts as the function of YOLOv5's official COCO weights {weights}; "
        "autoshape=False gives the bare network."
    )
    return create


yolov5n, yolov5s, yolov5m, yolov5l, yolov5x = (_entry(f"yolov5{size}", f"yolov5{size}.pt") for size in "nsmlx")
yolov5n6, yolov5s6, yolov5m6, yolov5l6, yolov5x6 = (_entry(f"yolov5{size}6", f"yolov5{size}6.pt") for size in "nsmlx")
# There are no official weights of the SPD family: it starts as the same function as YOLOv5, to be trained on.
yolov5n_spd, yolov5s_spd, yolov5m_spd, yolov5l_spd, yolov5x_spd = (
    _entry(f"yolov5{size}-spd", f"yolov5{size}.pt") for size in "nsmlx"
)

"""The scale in which a classifier sees colours: ImageNet's mean and deviation, as YOLOv5's classifiers."""

from __future__ import annotations

import torch

MEAN = (0.485, 0.456, 0.406)  # of red, green, blue, 0-1
DEVIATION = (0.229, 0.224, 0.225)


def normalized(images: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W) uint8 RGB as float32 with about zero mean and unit variance; the memory order stays."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1) * 255
    deviation = torch.tensor(DEVIATION, device=images.device).view(1, 3, 1, 1) * 255
    return images.to(torch.float32).sub_(mean).div_(deviation)

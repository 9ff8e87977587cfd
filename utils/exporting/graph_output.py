"""The graph that is exported: images in, the rows that YOLOv5's users expect out."""

from __future__ import annotations

import torch
from torch import nn

from models.classifier import Classifier
from models.yolo import DetectionModel

ExportableModel = DetectionModel | Classifier
INPUT_NAME = "images"
OUTPUT_NAME = "output0"


class GraphOutput(nn.Module):
    """A model whose output is one tensor; a classifier's is its logits (B, C), for normalized images.

    Input ``images`` (B, 3, H, W) float RGB 0-1; output ``output0`` (B, N, 5 + C) float: ``cx cy w h`` in network
    pixels, objectness 0-1, class probabilities 0-1.
    """

    def __init__(self, model: ExportableModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if isinstance(self.model, Classifier):
            logits: torch.Tensor = self.model(images)
            return logits
        return self.model.head.rows(self.model(images))

"""The graph that is exported: images in, the rows that YOLOv5's users expect out."""

from __future__ import annotations

import torch
from torch import nn

from models.classifier import Classifier
from models.yolo import DetectionModel
from utils.exporting.export_settings import ExportSettings
from utils.geometry.letterbox import PAD_VALUE

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


def file_metadata(model: ExportableModel, settings: ExportSettings) -> dict[str, object]:
    """What a file says of itself, as plain values: all that a program needs to fit images and to name what it finds.

    ``stride`` (pixels) and ``names`` (by class id) are YOLOv5's; ``imgsz`` is the height and width of the export,
    which a file of free size could not tell otherwise, and ``pad_value`` a detector's letterbox grey, 0-255.
    """
    metadata: dict[str, object] = {"stride": model.stride, "names": dict(enumerate(model.names))}
    metadata["imgsz"] = list(settings.frame)
    if not isinstance(model, Classifier):
        metadata["pad_value"] = PAD_VALUE
    return metadata

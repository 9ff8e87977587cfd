"""One face for every file a detector may come in, and a PyTorch model behind it."""

from __future__ import annotations

from typing import Protocol

import torch

from models.yolo import DetectionModel
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.runtime.device import placed


class DetectionBackend(Protocol):
    """One model file of a detector, in its runtime."""

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, by class id."""

    @property
    def stride(self) -> int:
        """Sides of the input are multiples of this many pixels."""

    @property
    def frame(self) -> FrameSize | None:
        """The only input size that the file takes, or None if any multiple of the stride will do."""

    @property
    def batch_size(self) -> int | None:
        """The batch size that the file was made for, or None; ``predict`` takes any, in steps of this one."""

    def predict(self, images: torch.Tensor) -> Predictions:
        """Predictions, on the device of the images, for images (B, 3, H, W) float RGB 0-1.

        Raises:
            UserError: the file takes images of another size.
        """


class TorchBackend:
    """A PyTorch detector in evaluation mode on one device."""

    frame: FrameSize | None = None
    batch_size: int | None = None

    def __init__(self, model: DetectionModel, device: torch.device) -> None:
        placed(model.eval(), device)
        self.model = model
        self.device = device
        self.names = model.names
        self.stride = model.stride

    @torch.inference_mode()
    def predict(self, images: torch.Tensor) -> Predictions:
        """See ``DetectionBackend``; computed on the model's device in fp32."""
        predictions: Predictions = self.model.predict(images.contiguous(memory_format=torch.channels_last))
        return predictions

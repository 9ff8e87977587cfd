"""One face for every file a detector may come in, and a PyTorch model behind it."""

from __future__ import annotations

from typing import Protocol

import torch

from models.yolo import DetectionModel
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.runtime.device import autocast, placed


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
    """A PyTorch detector in evaluation mode on one device, in the precision of its weights."""

    frame: FrameSize | None = None
    batch_size: int | None = None

    def __init__(self, model: DetectionModel, device: torch.device, autocast_to: torch.dtype = torch.float32) -> None:
        """``autocast_to``: arithmetic of a network whose weights are float32 and stay so."""
        placed(model.eval(), device)
        self.model = model
        self.device = device
        self.names = model.names
        self.stride = model.stride
        self.autocast_to = autocast_to

    @classmethod
    def in_precision(cls, model: DetectionModel, device: torch.device, precision: torch.dtype) -> TorchBackend:
        """A model that nobody else uses, whose weights a GPU therefore has in ``precision``.

        Autocast would cast each of them in every pass, a third of all that is launched. On the CPU it stays: it leaves
        in float32 what gains nothing there.
        """
        return cls(model, device, precision) if device.type == "cpu" else cls(model.to(precision), device)

    @torch.inference_mode()
    def predict(self, images: torch.Tensor) -> Predictions:
        """See ``DetectionBackend``; computed on the model's device, decoded in float32."""
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.autocast_to):
            predictions: Predictions = self.model.predict(images.to(next(self.model.parameters()).dtype))
        return predictions

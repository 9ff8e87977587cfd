"""One face for every file a detector may come in, and a PyTorch model behind it."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple, Protocol

import torch

from models.yolo import DetectionModel
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.runtime.console_log import unheard
from utils.runtime.device import autocast, placed
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)
WARMING = 3  # passes until CUDA's graph is recorded and has run


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

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        """Predictions, on the device of the images, for images (B, 3, H, W) float RGB 0-1.

        Those that score no more than ``least_score`` in any image may be left out.

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
    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        """See ``DetectionBackend``; computed on the model's device, decoded in float32."""
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.autocast_to):
            return self._network(images.to(next(self.model.parameters()).dtype), least_score)

    def _network(self, images: torch.Tensor, least_score: float) -> Predictions:
        return self.model.predict(images, least_score)


class FixedBatch(NamedTuple):
    """What a compiled network takes."""

    images: int
    frame: FrameSize


class CompiledBackend(TorchBackend):
    """A PyTorch detector that torch has compiled for batches of one size; on CUDA a pass is one graph of kernels."""

    frame: FrameSize
    batch_size: int

    def __init__(self, backend: TorchBackend, batch: FixedBatch) -> None:
        """Takes a minute or two.

        Raises:
            UserError: there is no compiler, or it cannot compile this network.
        """
        super().__init__(backend.model, backend.device, backend.autocast_to)
        self.batch_size, self.frame = batch
        start = time.perf_counter()
        LOGGER.info("--compile: every image is padded to %dx%d px (height x width)", *self.frame)
        from torch._dynamo.exc import TorchDynamoException  # here, as it loads a compiler

        self._compiled = torch.compile(self.model.predict, mode="reduce-overhead", dynamic=False)
        try:
            with unheard():
                for _ in range(WARMING):
                    self.predict(torch.zeros(self.batch_size, 3, *self.frame, device=self.device))
        except TorchDynamoException as error:
            raise UserError(f"--compile: {compiler_message(str(error))}") from error
        LOGGER.info("--compile: took %.0f s", time.perf_counter() - start)

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        """See ``DetectionBackend``; an incomplete batch is filled up with black images."""
        parts = []
        for part in torch.split(images, self.batch_size):
            missing = part.new_zeros((self.batch_size - len(part), *part.shape[1:]))
            predictions = super().predict(torch.cat((part, missing)) if len(missing) else part, least_score)
            parts.append(Predictions(*(tensor[: len(part)] for tensor in predictions)))
        return parts[0] if len(parts) == 1 else Predictions(*map(torch.cat, zip(*parts, strict=True)))

    def _network(self, images: torch.Tensor, least_score: float) -> Predictions:
        found: Predictions = self._compiled(images)  # all of them: what is compiled has one size
        # A graph writes what it finds next over what it found before.
        return Predictions(*(tensor.clone() for tensor in found)) if images.is_cuda else found


def compiler_message(text: str) -> str:
    """What torch says of a failed compilation, in one line."""
    if "C++ compiler" in text:
        return "torch finds no C++ compiler; install one (apt install g++), or name it in the variable CXX"
    if "C compiler" in text:  # Triton's, for a GPU
        return "torch finds no C compiler; install one (apt install gcc), or name it in the variable CC"
    lines = (line.strip() for line in text.splitlines())
    reason = next((line for line in lines if line and not line.endswith(" raised:")), "")
    return f"torch cannot compile this network: {reason}"

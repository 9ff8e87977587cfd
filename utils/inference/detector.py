"""The opened detector: one model file or several asked together, and how images come to it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from utils.geometry.letterbox import FrameSize, multiple_of_stride
from utils.inference.nms import NmsSettings
from utils.inference.predictor import Predictor, PredictorSettings
from utils.inference.slicing import SlicedPredictor, SliceSettings
from utils.inference.torch_backend import DetectionBackend, TorchBackend

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenedDetector:
    """One model file in its runtime, or several asked together, on a device."""

    backend: DetectionBackend
    device: torch.device
    parts: tuple[DetectionBackend, ...] = ()  # the model files that it was opened from, each in its runtime

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, by class id."""
        return self.backend.names

    @property
    def torch_backends(self) -> tuple[TorchBackend, ...]:
        """Those of its parts that are .pt files."""
        return tuple(part for part in self.parts if isinstance(part, TorchBackend))

    def frame(self, asked: FrameSize) -> FrameSize:
        """The frame in place of the one asked for, see ``fitting_frame``."""
        return fitting_frame(asked, self.backend.stride, self.backend.frame)

    def whole_predictor(self, nms: NmsSettings, frame: FrameSize) -> Predictor:
        """The detector for whole images of any size, scaled to fit ``frame``, which the method ``frame`` gave."""
        return Predictor(self.backend, PredictorSettings(nms, frame), self.device)

    def predictor(
        self, nms: NmsSettings, frame: FrameSize, tiles: SliceSettings | None = None, batch_size: int = 1
    ) -> Predictor | SlicedPredictor:
        """The same in tiles, of which ``batch_size`` go through the network together; whole where ``tiles`` is None."""
        whole = self.whole_predictor(nms, frame)
        return whole if tiles is None else SlicedPredictor(whole, tiles, batch_size)


def fitting_frame(asked: FrameSize, stride: int, fixed: FrameSize | None = None) -> FrameSize:
    """The frame in place of the one asked for: the only one that the file takes, otherwise multiples of the stride.

    A line in the log says so where it is another one.
    """
    multiples = FrameSize(*(multiple_of_stride(side, stride) for side in asked))
    frame = fixed or multiples
    if frame != asked:
        reason = (
            f"multiples of the stride {stride}" if frame == multiples else "the only size that the model file takes"
        )
        LOGGER.warning("image size %dx%d (height x width): taking %dx%d px, %s", *asked, *frame, reason)
    return frame

"""The predictor: a detector with its settings, applied to whole images. Images in, detections out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch

from utils.geometry.letterbox import FrameSize, LetterboxTransform, letterbox, padded_frame
from utils.geometry.records import Detections
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.inference.torch_backend import DetectionBackend
from utils.runtime.device import sent

Prepared = TypeVar("Prepared")


class ImagePredictor(Protocol[Prepared]):
    """Detections of images in two steps, of which the first can be done ahead, in other threads."""

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, by class id."""

    def prepare(self, image: np.ndarray) -> Prepared:
        """What ``detect`` takes, for an image (H, W, 3) uint8 RGB; NumPy only."""

    def detect(self, images: Sequence[Prepared]) -> list[Detections]:
        """Detections on the CPU, in pixels of its own image, for each of the prepared images."""


@dataclass(frozen=True, slots=True)
class PredictorSettings:
    """How a ``Predictor`` takes images."""

    nms: NmsSettings
    imgsz: FrameSize  # multiples of the stride, pixels; images are scaled to fit; not used by a file of fixed size


@dataclass(frozen=True, slots=True)
class FittedImage:
    """An image scaled and padded to its network frame."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB of size transform.network
    transform: LetterboxTransform


class Predictor:
    """A detector that takes images of any size.

    An image is scaled to fit ``settings.imgsz`` and padded to the next multiple of the stride, or to the whole
    frame if the file takes only one size. The object keeps no state between calls.
    """

    def __init__(self, backend: DetectionBackend, settings: PredictorSettings, device: torch.device) -> None:
        self.backend = backend
        self.settings = settings
        self.device = device

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, by class id."""
        return self.backend.names

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detections on the CPU, in pixels of its own image, for each of the images (H, W, 3) uint8 RGB."""
        return self.detect([self.prepare(image) for image in images])

    def prepare(self, image: np.ndarray) -> FittedImage:
        """The image (H, W, 3) uint8 RGB in its network frame."""
        return FittedImage(*letterbox(image, self.network_frame(FrameSize(*image.shape[:2]))))

    def detect(self, images: Sequence[FittedImage]) -> list[Detections]:
        """Detections on the CPU, in pixels of its own source image, for each of the images.

        Images that share a network frame go through the network together.
        """
        by_frame: dict[FrameSize, list[int]] = {}
        for position, image in enumerate(images):
            by_frame.setdefault(image.transform.network, []).append(position)
        found: dict[int, Detections] = {}
        for frame, positions in by_frame.items():
            pixels = as_network_input([images[position].pixels for position in positions], self.device)
            predictions = self.backend.predict(pixels, self.settings.nms.conf_thres)
            results = non_max_suppression(predictions, self.settings.nms, frame)
            for position, detections in zip(positions, results, strict=True):
                found[position] = detections.to_source(images[position].transform).cpu()
        return [found[position] for position in range(len(images))]

    def network_frame(self, source: FrameSize) -> FrameSize:
        """The frame in which an image of size ``source`` meets the network."""
        if self.backend.frame is not None:
            return self.backend.frame
        height, width = self.settings.imgsz
        ratio = min(height / source.height, width / source.width)
        return padded_frame(source, round(ratio * max(source)), self.backend.stride)


def as_network_input(images: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    """Tensor (B, 3, H, W) float32 0-1, channels_last, of same-sized images (H, W, 3) uint8 RGB."""
    # A stack of (H, W, 3) arrays, seen as (B, 3, H, W), lies in memory in channels_last order already.
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return sent(pixels, device).to(torch.float32).div_(255)

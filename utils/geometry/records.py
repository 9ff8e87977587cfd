"""The types that travel between the rooms of the program.

A box is always float32 ``xyxy`` in absolute pixels of a frame whose size travels with it: NumPy until the batch is
collated, torch after. Normalized, centre and COCO layouts exist only in files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from utils.geometry.letterbox import FrameSize, LetterboxTransform

# The scale in which a classifier sees colours, ImageNet's, as YOLOv5's classifiers: of red, green, blue, 0-1.
COLOUR_MEAN = (0.485, 0.456, 0.406)
COLOUR_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Labels:
    """Ground truth of one image, in pixels of a frame of ``size``."""

    boxes: np.ndarray  # (N, 4) float32 xyxy
    classes: np.ndarray  # (N,) int64
    polygons: tuple[np.ndarray | None, ...]  # N outlines (K, 2) float32 x y, None for a box without one
    size: FrameSize

    def __len__(self) -> int:
        return len(self.classes)

    def keep(self, mask: np.ndarray) -> Labels:
        """The objects chosen by a boolean mask (N,) or by an index array."""
        chosen = np.arange(len(self))[mask]
        return replace(
            self,
            boxes=self.boxes[chosen],
            classes=self.classes[chosen],
            polygons=tuple(self.polygons[i] for i in chosen),
        )

    def scaled(self, factor: float) -> Labels:
        """The labels of the image enlarged by ``factor``."""
        return replace(
            self,
            boxes=self.boxes * np.float32(factor),
            polygons=tuple(None if p is None else p * np.float32(factor) for p in self.polygons),
            size=FrameSize(round(self.size.height * factor), round(self.size.width * factor)),
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as the data set gives it: uint8 RGB, labels in the frame of ``image``."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    labels: Labels
    letterbox: LetterboxTransform | None  # None after augmentation, where no way back exists
    path: Path
    index: int  # row of the data set


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one size and their labels. The labels stay on the host, where targets are assigned."""

    images: torch.Tensor  # (B, 3, H, W) uint8 RGB; float 0-1 after on()
    boxes: torch.Tensor  # (M, 4) float32 xyxy, pixels of the network frame
    classes: torch.Tensor  # (M,) int64
    image_index: torch.Tensor  # (M,) int64, 0..B-1
    letterboxes: tuple[LetterboxTransform | None, ...]
    paths: tuple[Path, ...]
    indices: tuple[int, ...]  # rows of the data set

    @property
    def size(self) -> FrameSize:
        """Size of the network frame, pixels."""
        return FrameSize(int(self.images.shape[2]), int(self.images.shape[3]))

    def pin_memory(self) -> Batch:
        """The images in page-locked memory, from which a GPU copies while the CPU goes on; torch's loader calls it."""
        return replace(self, images=self.images.pin_memory())

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What is copied to a device."""
        return (self.images,)

    def copied(self, device: torch.device) -> Batch:
        """The batch with its images on ``device``, uint8 as they are."""
        return replace(self, images=_copied(self.images, device))

    def on(self, device: torch.device) -> Batch:
        """The batch with its images on ``device``, float32 0-1 in channels_last order."""
        images = _copied(self.images, device)
        return replace(self, images=images.to(torch.float32, memory_format=torch.channels_last).div_(255))

    def resized(self, size: FrameSize) -> Batch:
        """Float images and boxes scaled together to ``size`` (multi-scale training)."""
        old = self.size
        if size == old:
            return self
        scale = self.boxes.new_tensor([size.width / old.width, size.height / old.height] * 2)
        images = torch.nn.functional.interpolate(self.images, size=tuple(size), mode="bilinear", align_corners=False)
        return replace(self, images=images, boxes=self.boxes * scale)


class HeadMaps(NamedTuple):
    """Raw logits of the detection head, finest level first."""

    levels: tuple[torch.Tensor, ...]  # each (B, A, H_s, W_s, 5 + C): tx ty tw th, objectness, classes


class Predictions(NamedTuple):
    """Decoded, unsuppressed output of the detector."""

    boxes: torch.Tensor  # (B, K, 4) xyxy, network pixels
    objectness: torch.Tensor  # (B, K) 0-1
    class_probs: torch.Tensor  # (B, K, C) 0-1

    @classmethod
    def joined(cls, parts: Iterable[Predictions]) -> Predictions:
        """All predictions of the same images, one part behind another."""
        return cls(*(torch.cat(own, dim=1) for own in zip(*parts, strict=True)))


class LevelTargets(NamedTuple):
    """What one level of the head is trained on: P assigned (anchor, cell) places, each with its object."""

    image: torch.Tensor  # (P,) int64
    anchor: torch.Tensor  # (P,) int64
    cell_y: torch.Tensor  # (P,) int64
    cell_x: torch.Tensor  # (P,) int64
    boxes_cells: torch.Tensor  # (P, 4) cx cy w h in cells; the centre relative to the place's own cell
    classes: torch.Tensor  # (P,) int64


class LossParts(NamedTuple):
    """Scalar parts of the detection loss, weighted, per image."""

    box: torch.Tensor
    objectness: torch.Tensor
    classification: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        return self.box + self.objectness + self.classification


@dataclass(frozen=True, slots=True)
class ClassificationBatch:
    """Images of one size, each of one class."""

    images: torch.Tensor  # (B, 3, H, W) uint8 RGB; float, normalized, after on()
    classes: torch.Tensor  # (B,) int64
    indices: tuple[int, ...]  # rows of the data set

    def pin_memory(self) -> ClassificationBatch:
        """The batch in page-locked memory, see `Batch.pin_memory`."""
        return replace(self, images=self.images.pin_memory(), classes=self.classes.pin_memory())

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What is copied to a device."""
        return self.images, self.classes

    def copied(self, device: torch.device) -> ClassificationBatch:
        """The batch on ``device``, images uint8 as they are."""
        return replace(self, images=_copied(self.images, device), classes=_copied(self.classes, device))

    def on(self, device: torch.device) -> ClassificationBatch:
        """The batch on ``device``, images as float32 in channels_last order, see `normalized`."""
        images = _copied(self.images, device).to(memory_format=torch.channels_last)
        return replace(self, images=normalized(images), classes=_copied(self.classes, device))


def _copied(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on ``device``, for which CUDA alone is not waited for.

    Elsewhere nothing promises that the memory is not used again before it has been read.
    """
    return values.to(device, non_blocking=device.type == "cuda")


def normalized(images: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W) uint8 RGB as float32 with about zero mean and unit variance; the memory order stays."""
    mean, deviation = _colour_scale(images.device)
    return images.to(torch.float32).sub_(mean).div_(deviation)


@cache
def _colour_scale(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (1, 3, 1, 1) of colours 0-255, kept on each device: to send them makes a GPU wait."""
    with torch.inference_mode(False):  # for every later use, training included
        mean, deviation = (torch.tensor(scale).view(1, 3, 1, 1) * 255 for scale in (COLOUR_MEAN, COLOUR_DEVIATION))
        return mean.to(device), deviation.to(device)


class ClassificationLossParts(NamedTuple):
    """The one part of the classification loss, per image."""

    classification: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        return self.classification


@dataclass(frozen=True, slots=True)
class Detections:
    """What the detector found in one image, best score first."""

    boxes: torch.Tensor  # (N, 4) float32 xyxy, pixels of a frame of ``size``
    scores: torch.Tensor  # (N,) float32 0-1
    classes: torch.Tensor  # (N,) int64
    size: FrameSize
    ids: torch.Tensor | None = None  # (N,) int64 from 1, which object of its video each is; None: not followed

    def __len__(self) -> int:
        return int(self.scores.shape[0])

    def keep(self, rows: torch.Tensor) -> Detections:
        """Those chosen by a boolean mask (N,) or by indices."""
        ids = None if self.ids is None else self.ids[rows]
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], classes=self.classes[rows], ids=ids)

    def above(self, score: float) -> Detections:
        """Those of at least this score."""
        return self.keep(self.scores >= score)

    def cpu(self) -> Detections:
        return replace(self, boxes=self.boxes.cpu(), scores=self.scores.cpu(), classes=self.classes.cpu())

    def scaled(self, factor: float) -> Detections:
        """The detections in the image enlarged by ``factor``."""
        size = FrameSize(round(self.size.height * factor), round(self.size.width * factor))
        return replace(self, boxes=self.boxes * factor, size=size)

    def to_source(self, letterbox: LetterboxTransform) -> Detections:
        """The same detections in pixels of the image that was letterboxed, clipped to it."""
        return replace(self, boxes=letterbox.to_source(self.boxes), size=letterbox.source)

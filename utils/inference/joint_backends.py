"""Backends that ask others: several model files together, and one .pt file on three views of every image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.inference.torch_backend import DetectionBackend, TorchBackend
from utils.user_error import UserError

PAD = 0.447  # grey of the padding, the mean colour of ImageNet


class Ensemble:
    """Model files of the same classes; their predictions meet in one suppression, where the best-scored box wins.

    Raises:
        UserError: the files name different classes, or take images of different fixed sizes.
    """

    def __init__(self, backends: Sequence[DetectionBackend], files: Sequence[str]) -> None:
        first = backends[0]
        frames = {backend.frame for backend in backends if backend.frame is not None}
        for backend, file in zip(backends, files, strict=True):
            if backend.names != first.names:
                raise UserError(f"{file}: has other classes than {files[0]}; an ensemble needs the same")
        if len(frames) > 1:
            raise UserError(f"{', '.join(files)}: take images of different fixed sizes")
        self.backends = tuple(backends)
        self.names = first.names
        self.stride = max(backend.stride for backend in backends)
        self.frame: FrameSize | None = next(iter(frames), None)
        self.batch_size: int | None = None  # each member cuts batches as it needs

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        """All predictions of all members; see ``DetectionBackend``."""
        return Predictions.joined(backend.predict(images, least_score) for backend in self.backends)


class _View(NamedTuple):
    scale: float
    mirrored: bool


VIEWS = (_View(1.0, False), _View(0.83, True), _View(0.67, False))


class AugmentedBackend:
    """YOLOv5's ``--augment``: every image as it is, reduced and mirrored, and reduced further.

    The full view leaves out its coarsest level and the smallest view its finest, whose objects the other views show
    at a better size.
    """

    frame: FrameSize | None = None
    batch_size: int | None = None

    def __init__(self, backend: TorchBackend) -> None:
        self.backend = backend
        self.names = backend.names
        self.stride = backend.stride

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        """All predictions of all views in pixels of ``images``; see ``DetectionBackend``."""
        each = [self._predict_view(images, view) for view in VIEWS]
        head = self.backend.model.head
        shares = [1 / stride**2 for stride in head.strides]  # of the levels in a view's predictions
        coarsest = round(each[0].objectness.shape[1] * shares[-1] / sum(shares))
        finest = round(each[-1].objectness.shape[1] * shares[0] / sum(shares))
        each[0] = Predictions(*(part[:, :-coarsest] for part in each[0]))
        each[-1] = Predictions(*(part[:, finest:] for part in each[-1]))
        return Predictions.joined(each)

    def _predict_view(self, images: torch.Tensor, view: _View) -> Predictions:
        height, width = images.shape[2:]
        small = (int(height * view.scale), int(width * view.scale))
        seen = images.flip(3) if view.mirrored else images
        if view.scale != 1:
            seen = torch.nn.functional.interpolate(seen, size=small, mode="bilinear", align_corners=False)
            missing_right, missing_bottom = (
                math.ceil(side * view.scale / self.stride) * self.stride - reduced
                for side, reduced in ((width, small[1]), (height, small[0]))
            )
            seen = torch.nn.functional.pad(seen, (0, missing_right, 0, missing_bottom), value=PAD)
        boxes, objectness, class_probs = self.backend.predict(seen)
        factors = (width / small[1], height / small[0]) * 2
        left, top, right, bottom = (side * by for side, by in zip(boxes.unbind(-1), factors, strict=True))
        if view.mirrored:
            left, right = width - right, width - left
        return Predictions(torch.stack((left, top, right, bottom), dim=-1), objectness, class_probs)

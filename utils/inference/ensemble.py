"""Several detectors asked together."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.inference.model_backends import DetectionBackend
from utils.user_error import UserError


class Ensemble:
    """Detectors of the same classes; their predictions meet in one suppression, where the best-scored box wins.

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

    def predict(self, images: torch.Tensor) -> Predictions:
        """All predictions of all detectors; see ``DetectionBackend``."""
        each = [backend.predict(images) for backend in self.backends]
        return Predictions(*(torch.cat(parts, dim=1) for parts in zip(*each, strict=True)))

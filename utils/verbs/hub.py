"""The detector that ``torch.hub`` gives: a callable that takes images in any form, as YOLOv5's users know it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from models.fuse import fused
from models.transfer import transfer_weights
from models.weights import best_thresholds, load_model, read_weights
from models.yolo import DetectionModel, find_architecture, read_architecture
from utils.config.shared_flags import square_or_rectangle
from utils.config.weights_by_name import find_weights
from utils.geometry.boxes import xyxy_to_cxcywh
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.inference.detector import OpenedDetector
from utils.inference.image_inputs import ImageInput, as_images
from utils.inference.joint_backends import AugmentedBackend
from utils.inference.model_files import load_backend
from utils.inference.nms import NmsSettings
from utils.inference.predictor import FittedImage
from utils.inference.torch_backend import DetectionBackend, TorchBackend
from utils.reporting.hub_results import CallTimes, HubResults
from utils.runtime.device import autocast, select_device
from utils.runtime.streams import StageClock
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

Thresholds = tuple[float, ...]  # in the class `float` is a method
LARGEST_BATCH = 32  # images of one frame that go through the network together


class HubDetector(torch.nn.Module):
    """A detector of images in any form; calls from several threads at once do not disturb each other.

    Attributes, to be set by the user: ``conf`` and ``iou`` thresholds 0-1, ``conf`` also "auto" (as ``--conf``);
    ``classes`` (ids to keep, one or several, or None), ``agnostic``, ``multi_label``, ``max_det``; ``amp`` computes
    by casts to fp16 on a GPU, where `half` needs none. ``names``: class names by id, to be replaced by as many others.
    """

    def __init__(self, backend: DetectionBackend, device: torch.device, file: Path | None = None) -> None:
        """``file``: what the backend was opened from."""
        super().__init__()
        self.conf: float | Literal["auto"] = 0.25
        self.file = file
        self.iou = 0.45
        self.classes: int | Sequence[int] | None = None
        self.agnostic = False
        self.multi_label = False
        self.max_det = 1000
        self.amp = False
        self.backend = backend
        self.device = device
        if isinstance(backend, TorchBackend):
            self.model = backend.model
        self.stride = backend.stride
        self._names: tuple[str, ...] = ()  # in place of the model's own
        self._frames: dict[FrameSize, FrameSize] = {}  # by the size asked for, so that the log has each once
        self._turn = threading.Lock()  # runtimes other than PyTorch keep state in a call

    @property
    def names(self) -> dict[int, str]:
        """Class names by id."""
        return dict(enumerate(self.backend.names)) | dict(enumerate(self._names))

    @names.setter
    def names(self, names: Sequence[str] | Mapping[int, str]) -> None:
        given = names if isinstance(names, Mapping) else dict(enumerate(names))
        known = len(self.backend.names)
        if isinstance(names, str) or sorted(given) != list(range(known or len(given))):
            raise UserError(
                f"names = {names!r}: the model has {known} classes, ids 0 to {known - 1}; each needs its name"
            )
        self._names = tuple(str(given[kind]) for kind in sorted(given))

    def forward(
        self,
        ims: ImageInput | Sequence[ImageInput] | torch.Tensor,
        size: int | tuple[int, int] = 640,
        augment: bool = False,
        profile: bool = False,
    ) -> HubResults | torch.Tensor:
        """Detections in images; for a tensor (B, 3, H, W) 0-1, H and W multiples of the stride, the network's rows.

        Args:
            ims: see ``as_images``; one or a list.
            size: network size, pixels: one side or (height, width).
            augment: detect in three views of every image (.pt files).
            profile: taken for compatibility; times are measured always.

        Raises:
            UserError: an image that cannot be read, or ``augment`` of an exported file.
        """
        backend = _Timed(self._backend(augment), self.device, torch.float16 if self.amp else torch.float32)
        detector = OpenedDetector(backend, self.device)
        if isinstance(ims, torch.Tensor):
            return _rows(detector.backend.predict(ims.to(self.device, torch.float32)))
        begin = time.perf_counter()
        predictor = detector.whole_predictor(self._nms(), self._frame(detector, size))
        images = as_images(ims)
        fitted = [predictor.prepare(image.pixels) for image in images]
        ready = time.perf_counter()
        found = []
        for start in range(0, len(fitted), LARGEST_BATCH):
            found += predictor.detect(fitted[start : start + LARGEST_BATCH])
        per_image = 1e3 / max(len(images), 1)
        network = backend.seconds()
        rest = time.perf_counter() - ready - network
        times = CallTimes((ready - begin) * per_image, network * per_image, rest * per_image, _largest_batch(fitted))
        return HubResults(images, found, self.names, times)

    def half(self) -> HubDetector:
        """Weights and arithmetic of a .pt file in fp16. UserError on a CPU, which has no fp16 arithmetic."""
        if self.device.type == "cpu":
            raise UserError("half(): a CPU has no fp16 arithmetic for convolutions; it needs a GPU")
        return super().half()

    def float(self) -> HubDetector:
        """The same in fp32; weights that were in fp16 stay rounded to it."""
        return super().float()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: all but the lock."""
        return {name: value for name, value in self.__dict__.items() if name != "_turn"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._turn = threading.Lock()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """What moves a module to another device; the detector goes with its parameters."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if isinstance(self.backend, TorchBackend):
            self.device = self.backend.device = next(self.backend.model.parameters()).device
        return self

    def _backend(self, augment: bool) -> DetectionBackend:
        """The model file as one call asks it."""
        backend = self.backend
        if isinstance(backend, TorchBackend):
            return AugmentedBackend(backend) if augment else backend
        if augment:
            raise UserError("augment=True: only for .pt files; an exported file is as it is")
        return _InTurn(backend, self._turn)

    @cached_property
    def _own_thresholds(self) -> Thresholds:
        """Of each class, as the file has them; read once."""
        if self.file is None:
            raise UserError('conf = "auto": a named model has no thresholds; open a checkpoint of train.py by its path')
        return best_thresholds(self.file)

    def _nms(self) -> NmsSettings:
        """The attributes as they are now, for one call."""
        thresholds = self._own_thresholds if self.conf == "auto" else ()
        return NmsSettings(
            conf_thres=min(thresholds) if self.conf == "auto" else self.conf,
            iou_thres=self.iou,
            max_det=self.max_det,
            multi_label=self.multi_label,
            agnostic=self.agnostic,
            classes=None if self.classes is None else tuple(map(int, np.atleast_1d(np.asarray(self.classes)))),
            class_thres=thresholds,
        )

    def _frame(self, detector: OpenedDetector, size: int | tuple[int, int]) -> FrameSize:
        """The frame in place of the one asked for; the log says so once."""
        asked = FrameSize(*square_or_rectangle((size,) if isinstance(size, int) else tuple(size)))
        if asked not in self._frames:
            self._frames[asked] = detector.frame(asked)
        return self._frames[asked]


class _Asked:
    """A backend behind another one."""

    def __init__(self, backend: DetectionBackend) -> None:
        self._backend = backend
        self.stride, self.frame, self.batch_size = backend.stride, backend.frame, backend.batch_size

    @property
    def names(self) -> tuple[str, ...]:
        return self._backend.names


class _InTurn(_Asked):
    """A backend that one thread at a time may ask."""

    def __init__(self, backend: DetectionBackend, turn: threading.Lock) -> None:
        super().__init__(backend)
        self._turn = turn

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        with self._turn:
            return self._backend.predict(images, least_score)


class _Timed(_Asked):
    """A backend of one call that measures its time, cast to ``precision``."""

    def __init__(self, backend: DetectionBackend, device: torch.device, precision: torch.dtype) -> None:
        super().__init__(backend)
        self._device = device
        self._precision = precision
        self._clock = StageClock(device)

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        self._clock.start()
        with autocast(self._device, self._precision):
            predictions = self._backend.predict(images, least_score)
        self._clock.lap("network")
        return predictions

    def seconds(self) -> float:
        """Of all passes; asked at the end, or a GPU would be waited for."""
        return self._clock.seconds().get("network", 0.0)


class BareOutput(NamedTuple):
    """What YOLOv5's network gives in evaluation mode."""

    rows: torch.Tensor  # (B, N, 5 + C): cx cy w h in pixels, objectness, class probabilities
    levels: list[torch.Tensor]  # raw logits, each (B, A, H_s, W_s, 5 + C)


class BareNetwork(DetectionModel):
    """A network that is called as YOLOv5's: ``model(images)[0]`` are rows in evaluation, ``levels`` in training."""

    def forward(self, images: torch.Tensor) -> BareOutput | list[torch.Tensor]:  # type: ignore[override]
        maps = super().forward(images)
        return list(maps.levels) if self.training else BareOutput(self.head.rows(maps), list(maps.levels))

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        """See ``DetectionModel``."""
        return self.decode(super().forward(images), least_score)


def _bare(model: DetectionModel, device: torch.device) -> BareNetwork:
    bare = BareNetwork(model.architecture, names=model.names)
    bare.load_state_dict(model.state_dict())
    return bare.eval().to(device)


class BareFile(torch.nn.Module):
    """An exported file that is called as YOLOv5 calls it: images (B, 3, H, W) 0-1 to rows (B, N, 5 + C)."""

    def __init__(self, backend: DetectionBackend, device: torch.device) -> None:
        super().__init__()
        self.backend = backend
        self.device = device
        self.stride = backend.stride

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, by class id."""
        return self.backend.names

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return _rows(self.predict(images))

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        """See ``DetectionBackend``."""
        return self.backend.predict(images.to(self.device, torch.float32), least_score)


def open_file(path: str | Path, device: str, autoshape: bool) -> HubDetector | BareNetwork | BareFile:
    """A model file as a ``HubDetector``, or bare: the network of a .pt file, unfused, or the runtime of another one."""
    place = select_device(device)
    file = find_weights(str(path))
    if not autoshape and file.suffix == ".pt":
        return _bare(load_model(file), place)
    backend = load_backend(file, place)
    return HubDetector(backend, place, file) if autoshape else BareFile(backend, place)


@dataclass(frozen=True, slots=True)
class HubChoice:
    """A model by name, with what a user of ``torch.hub`` may choose of it."""

    architecture: str  # file of models/ or models/hub/
    weights: str  # official weights to start from, '' for random ones
    channels: int
    classes: int


def open_named(choice: HubChoice, device: str, autoshape: bool) -> HubDetector | BareNetwork:
    """A named model with the official weights as far as they fit, as a ``HubDetector`` or bare.

    Another number of classes than the weights' gets a fresh head.
    """
    place = select_device(device)
    if autoshape and choice.channels != 3:
        raise UserError(f"channels={choice.channels}: images have 3; take autoshape=False for a network of others")
    architecture = read_architecture(find_architecture(choice.architecture))
    if choice.weights:
        source = read_weights(find_weights(choice.weights))
        names = source.names if choice.classes == len(source.names) else tuple(map(str, range(choice.classes)))
        model = DetectionModel(architecture, names=names, channels=choice.channels)
        for line in transfer_weights(model, source).lines():
            LOGGER.info("%s", line)
    else:
        model = DetectionModel(architecture, class_count=choice.classes, channels=choice.channels)
    return HubDetector(TorchBackend(fused(model), place), place) if autoshape else _bare(model, place)


def _rows(predictions: Predictions) -> torch.Tensor:
    """Rows (B, K, 5 + C): cx cy w h in pixels, objectness, class probabilities."""
    boxes, objectness, class_probs = predictions
    return torch.cat((xyxy_to_cxcywh(boxes), objectness[..., None], class_probs), dim=-1)


def _largest_batch(fitted: Sequence[FittedImage]) -> tuple[int, int, int, int]:
    frames = [image.transform.network for image in fitted]
    frame = max(frames, key=lambda size: size.height * size.width, default=FrameSize(0, 0))
    return min(frames.count(frame), LARGEST_BATCH), 3, frame.height, frame.width

"""The opened detector: the model file of ``--weights``, or several asked together, and how images come to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from utils.config.weights_by_name import find_weights
from utils.geometry.letterbox import FrameSize, multiple_of_stride
from utils.inference.graph_runtimes import OPENVINO_SUFFIX
from utils.inference.joint_backends import AugmentedBackend, Ensemble
from utils.inference.model_backends import DetectionBackend, TorchBackend, load_backend
from utils.inference.nms import NmsSettings
from utils.inference.predictor import Predictor, PredictorSettings
from utils.inference.slicing import SlicedPredictor, SliceSettings
from utils.runtime.device import requested_precision
from utils.user_error import UsageError

LOGGER = logging.getLogger(__name__)


class DetectorFlags(Protocol):
    """What ``val.py`` and ``detect.py`` both ask of a model file."""

    @property
    def precision(self) -> str: ...
    @property
    def half(self) -> bool: ...
    @property
    def augment(self) -> bool: ...
    @property
    def dnn(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class OpenedDetector:
    """One model file in its runtime, or several asked together, on a device."""

    backend: DetectionBackend
    device: torch.device
    precision: torch.dtype = torch.float32  # arithmetic of the network, where it is a .pt file

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, by class id."""
        return self.backend.names

    @property
    def parts(self) -> tuple[DetectionBackend, ...]:
        """The model files that it consists of, each in its runtime."""
        members = self.backend.backends if isinstance(self.backend, Ensemble) else (self.backend,)
        return tuple(member.backend if isinstance(member, AugmentedBackend) else member for member in members)

    @property
    def torch_backends(self) -> tuple[TorchBackend, ...]:
        """Those of its parts that are .pt files."""
        return tuple(part for part in self.parts if isinstance(part, TorchBackend))

    def frame(self, asked: FrameSize) -> FrameSize:
        """The frame in place of the one asked for, see ``fitting_frame``."""
        return fitting_frame(asked, self.backend.stride, self.backend.frame)

    def whole_predictor(self, nms: NmsSettings, frame: FrameSize) -> Predictor:
        """The detector for whole images of any size, scaled to fit ``frame``, which the method ``frame`` gave."""
        return Predictor(self.backend, PredictorSettings(nms, frame, self.precision), self.device)

    def predictor(
        self, nms: NmsSettings, frame: FrameSize, tiles: SliceSettings | None = None, batch_size: int = 1
    ) -> Predictor | SlicedPredictor:
        """The same in tiles, of which ``batch_size`` go through the network together; whole where ``tiles`` is None."""
        whole = self.whole_predictor(nms, frame)
        return whole if tiles is None else SlicedPredictor(whole, tiles, batch_size)


def open_detector(
    weights: Sequence[str],
    flags: DetectorFlags,
    device: torch.device,
    fallback_names: Callable[[], tuple[str, ...]],
    torch_flags: Mapping[str, bool] | None = None,
) -> OpenedDetector:
    """The detector in a file, or the ensemble of those in several.

    Args:
        weights: files, or names of official weights.
        flags: the arithmetic, the runtime of .onnx files, and whether each image is seen in three views.
        device: where to compute.
        fallback_names: see ``load_backend``.
        torch_flags: further flags that only a .pt file has a use for, by name, with whether they are set.

    Raises:
        UserError: no such file, or a damaged one; an ensemble of files that do not go together.
        UsageError: a flag that does not go with the kind of file.
    """
    precision = requested_precision(flags.precision, flags.half, device)
    opened: list[DetectionBackend] = []
    for file in map(find_weights, weights):
        backend = load_backend(file, device, fallback_names=fallback_names, dnn=flags.dnn, precision=precision)
        if not isinstance(backend, TorchBackend):
            _refuse_torch_flags(file, flags, torch_flags or {})
            opened.append(backend)
        else:
            opened.append(AugmentedBackend(backend) if flags.augment else backend)
    return OpenedDetector(opened[0] if len(opened) == 1 else Ensemble(opened, weights), device, precision)


def _refuse_torch_flags(file: Path, flags: DetectorFlags, further: Mapping[str, bool]) -> None:
    # OpenVINO leaves the arithmetic to the one who opens the file.
    free = ("auto", "fp32", "bf16") if file.name.endswith(OPENVINO_SUFFIX) else ("auto", "fp32")
    for name, wanted in (
        ("--half", flags.half),
        (f"--precision {flags.precision}", flags.precision not in free),
        ("--augment", flags.augment),
        *further.items(),
    ):
        if wanted:
            raise UsageError(f"{name} --weights {file}: only for .pt files; an exported file is as it is")


def fitting_frame(asked: FrameSize, stride: int, fixed: FrameSize | None = None) -> FrameSize:
    """The frame in place of the one asked for: the only one that the file takes, otherwise multiples of the stride.

    A line in the log says so where it is another one.
    """
    frame = fixed or FrameSize(*(multiple_of_stride(side, stride) for side in asked))
    if frame != asked:
        reason = f"multiples of the stride {stride}" if fixed is None else "the only size that the model file takes"
        LOGGER.warning("image size %dx%d (height x width): taking %dx%d px, %s", *asked, *frame, reason)
    return frame

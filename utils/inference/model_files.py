"""Model files opened: PyTorch checkpoint, TorchScript, ONNX, OpenVINO, TensorRT; one, or several asked together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch

from models.fuse import fused
from models.weights import load_model
from utils.config.weights_by_name import find_weights
from utils.geometry.boxes import cxcywh_to_xyxy
from utils.geometry.letterbox import FrameSize, multiple_of_stride
from utils.geometry.records import Predictions
from utils.inference.detector import OpenedDetector
from utils.inference.graph_runtimes import OPENVINO_SUFFIX, open_graph
from utils.inference.joint_backends import AugmentedBackend, Ensemble
from utils.inference.runtime_graph import RuntimeGraph, Tensors
from utils.inference.torch_backend import CompiledBackend, DetectionBackend, FixedBatch, TorchBackend
from utils.runtime.device import requested_precision
from utils.user_error import UsageError, UserError


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


def open_detector(
    weights: Sequence[str],
    flags: DetectorFlags,
    device: torch.device,
    fallback_names: Callable[[], tuple[str, ...]],
    torch_flags: Mapping[str, bool] | None = None,
    compiled_for: FixedBatch | None = None,
) -> OpenedDetector:
    """The detector in a file, or the ensemble of those in several.

    Args:
        weights: files, or names of official weights.
        flags: the arithmetic, the runtime of .onnx files, and whether each image is seen in three views.
        device: where to compute.
        fallback_names: see ``load_backend``.
        torch_flags: further flags that only a .pt file has a use for, by name, with whether they are set.
        compiled_for: have torch compile each network for batches of this many images, scaled to fit this frame.

    Raises:
        UserError: no such file, or a damaged one; an ensemble of files that do not go together.
        UsageError: a flag that does not go with the kind of file.
    """
    precision = requested_precision(flags.precision, flags.half, device)
    parts: list[DetectionBackend] = []
    for file in map(find_weights, weights):
        parts.append(load_backend(file, device, fallback_names=fallback_names, dnn=flags.dnn, precision=precision))
        if not isinstance(parts[-1], TorchBackend):
            _refuse_torch_flags(file, flags, {"--compile": compiled_for is not None, **(torch_flags or {})})
    if compiled_for is not None:
        parts = _compiled(parts, compiled_for)
    views = [AugmentedBackend(one) if flags.augment and isinstance(one, TorchBackend) else one for one in parts]
    return OpenedDetector(views[0] if len(views) == 1 else Ensemble(views, weights), device, tuple(parts))


def _compiled(parts: Sequence[DetectionBackend], asked: FixedBatch) -> list[DetectionBackend]:
    """The same networks, compiled for one frame that fits the strides of all."""
    stride = max(part.stride for part in parts)
    frame = FrameSize(*(multiple_of_stride(side, stride) for side in asked.frame))
    return [CompiledBackend(part, FixedBatch(asked.images, frame)) for part in parts if isinstance(part, TorchBackend)]


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


def load_backend(
    weights: Path,
    device: torch.device,
    *,
    fallback_names: Callable[[], tuple[str, ...]] | None = None,
    dnn: bool = False,
    precision: torch.dtype = torch.float32,
) -> DetectionBackend:
    """The detector in ``weights``, ready to predict.

    Args:
        weights: a .pt file, or one that ``open_graph`` opens.
        device: where to compute; a runtime without this device falls back to the CPU and says so.
        fallback_names: called for the class names if the file has none; without it they are ``class0``, ...
        dnn: run an ONNX file in OpenCV's DNN module instead of ONNX Runtime.
        precision: of a .pt file's network, see ``TorchBackend.in_precision``; bfloat16 lets OpenVINO compute in it.
            Every other file computes in the precision that it is in.

    Raises:
        UserError: no such file, an ending that no runtime here reads, or a damaged file.
    """
    if not weights.exists():
        raise UserError(f"{weights}: no such model file")
    if dnn and weights.suffix != ".onnx":
        raise UsageError(f"--dnn --weights {weights}: OpenCV's DNN module is for .onnx files here")
    if weights.suffix == ".pt":
        return TorchBackend.in_precision(fused(load_model(weights)), device, precision)
    graph = open_graph(weights, device, dnn=dnn, precision=precision)
    names = graph.names or (fallback_names() if fallback_names else ())
    return GraphBackend(weights, graph, names)


class GraphBackend:
    """An exported graph: raw rows ``output0`` (B, N, 5 + C), or suppressed ``boxes scores classes counts``."""

    def __init__(self, path: Path, graph: RuntimeGraph, names: tuple[str, ...]) -> None:
        self.path = path
        self.names = names
        self.stride = graph.stride
        self.frame = graph.frame
        self.batch_size = graph.batch_size
        self._run = graph.run
        self._most_images = graph.most_images
        self.suppresses = graph.suppresses

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        """See ``DetectionBackend``; an incomplete last batch is filled up with black images."""
        size = FrameSize(*images.shape[2:])
        if self.frame is not None and size != self.frame:
            raise UserError(
                f"{self.path}: takes images of {self.frame.height}x{self.frame.width} px (height x width), "
                f"not {size.height}x{size.width}"
            )
        step = self.batch_size or self._most_images or max(len(images), 1)
        parts = [self._predict_batch(part, self.batch_size or len(part)) for part in torch.split(images, step)]
        # Class probabilities of many boxes are megabytes: a single part is not copied to be joined with nothing.
        whole = parts[0] if len(parts) == 1 else (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return Predictions(*(tensor.to(images.device, torch.float32) for tensor in whole))

    def _predict_batch(self, images: torch.Tensor, batch_size: int) -> Predictions:
        missing = batch_size - len(images)
        padded = torch.cat((images, images.new_zeros((missing, *images.shape[1:])))) if missing else images
        outputs = self._run(padded)
        if self.suppresses:
            self._name_classes(None)
            predictions = suppressed_predictions(outputs, len(self.names))
        else:
            rows = next(iter(outputs.values())).float()  # files in half precision are decoded in full
            if rows.ndim != 3 or rows.shape[2] < 6:
                sides = ", ".join(map(str, rows.shape))
                raise UserError(f"{self.path}: gives ({sides}); a detector gives rows (batch, boxes, 5 + classes)")
            self._name_classes(rows.shape[2] - 5)
            predictions = Predictions(cxcywh_to_xyxy(rows[..., :4]), rows[..., 4], rows[..., 5:])
        return Predictions(*(tensor[: len(images)] for tensor in predictions))

    def _name_classes(self, count: int | None) -> None:
        """Hold the names against the number of classes that the graph gives."""
        if not self.names and count is not None:
            self.names = tuple(f"class{i}" for i in range(count))
        if not self.names or (count is not None and len(self.names) != count):
            raise UserError(f"{self.path}: gives {count or 'unnamed'} classes, but {len(self.names)} names are known")


def suppressed_predictions(outputs: Tensors, class_count: int) -> Predictions:
    """Predictions (B, K) out of the outputs of a graph that suppresses by itself.

    Each detection becomes a prediction whose objectness is its score and whose one class is certain, so that a
    further suppression with the same settings keeps it as it is; empty places have the score 0.
    """
    classes = outputs["classes"].to(torch.int64).clamp(0, class_count - 1)
    certain = torch.nn.functional.one_hot(classes, class_count).to(torch.float32)
    place = torch.arange(classes.shape[1], device=classes.device)
    filled = place[None, :] < outputs["counts"].reshape(-1, 1)
    return Predictions(outputs["boxes"], outputs["scores"] * filled, certain)

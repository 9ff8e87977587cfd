"""One face for every file a detector may come in: PyTorch checkpoint, TorchScript, ONNX, OpenVINO, TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

from models.fuse import fused
from models.weights import load_model
from models.yolo import DetectionModel
from utils.geometry.boxes import cxcywh_to_xyxy
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.inference.graph_runtimes import open_graph
from utils.inference.runtime_graph import RuntimeGraph, Tensors
from utils.runtime.device import placed
from utils.user_error import UsageError, UserError


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
        precision: bfloat16 lets OpenVINO compute in it; every other file computes in the precision that it is in.

    Raises:
        UserError: no such file, an ending that no runtime here reads, or a damaged file.
    """
    if not weights.exists():
        raise UserError(f"{weights}: no such model file")
    if dnn and weights.suffix != ".onnx":
        raise UsageError(f"--dnn --weights {weights}: OpenCV's DNN module is for .onnx files here")
    if weights.suffix == ".pt":
        return TorchBackend(fused(load_model(weights)), device)
    graph = open_graph(weights, device, dnn=dnn, precision=precision)
    names = graph.names or (fallback_names() if fallback_names else ())
    return GraphBackend(weights, graph, names)


class TorchBackend:
    """A PyTorch detector in evaluation mode on one device."""

    frame: FrameSize | None = None
    batch_size: int | None = None

    def __init__(self, model: DetectionModel, device: torch.device) -> None:
        placed(model.eval(), device)
        self.model = model
        self.device = device
        self.names = model.names
        self.stride = model.stride

    @torch.inference_mode()
    def predict(self, images: torch.Tensor) -> Predictions:
        """See ``DetectionBackend``; computed on the model's device in fp32."""
        predictions: Predictions = self.model.predict(images.contiguous(memory_format=torch.channels_last))
        return predictions


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

    def predict(self, images: torch.Tensor) -> Predictions:
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

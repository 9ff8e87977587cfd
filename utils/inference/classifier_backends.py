"""One face for every file a classifier may come in: PyTorch checkpoint, TorchScript, ONNX, OpenVINO."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from models.classifier import USUAL_SIDE, Classifier, load_classifier
from utils.config.classify_flags import ClassifyPredictConfig, ClassifyValConfig
from utils.config.weights_by_name import find_weights
from utils.geometry.letterbox import middle_square
from utils.geometry.records import normalized
from utils.inference.graph_runtimes import open_graph
from utils.inference.runtime_graph import RuntimeGraph
from utils.runtime.device import placed, resolve_precision, sent
from utils.user_error import UsageError, UserError

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClassifierBackend:
    """A classifier in some runtime."""

    names: tuple[str, ...]
    side: int  # of the square images that it was made for, pixels
    fixed: bool  # whether it takes no others
    logits: Callable[[torch.Tensor], torch.Tensor]  # images (B, 3, S, S) float, normalized -> (B, C)


def load_classifier_backend(
    weights: Path, device: torch.device, *, dnn: bool = False, precision: torch.dtype = torch.float32
) -> ClassifierBackend:
    """The classifier in ``weights``, ready to predict; ``precision`` is the arithmetic of a ``.pt`` file's network.

    Raises:
        UserError: no such file, not a classifier, an ending that no runtime here reads, or a damaged file.
    """
    if not weights.exists():
        raise UserError(f"{weights}: no such model file")
    if dnn and weights.suffix != ".onnx":
        raise UsageError(f"--dnn --weights {weights}: OpenCV's DNN module is for .onnx files here")
    if weights.suffix == ".pt":
        return torch_classifier(load_classifier(weights), device, precision)
    return graph_classifier(weights, open_graph(weights, device, dnn=dnn))


def open_classifier(
    config: ClassifyValConfig | ClassifyPredictConfig, device: torch.device
) -> tuple[ClassifierBackend, int]:
    """The classifier of ``--weights`` and the side of the images that it is shown, pixels.

    Raises:
        UserError: see ``load_classifier_backend``.
    """
    precision = resolve_precision("fp16" if config.half else "fp32", device)
    backend = load_classifier_backend(find_weights(config.weights), device, dnn=config.dnn, precision=precision)
    side = backend.side if config.imgsz is None else config.imgsz
    if backend.fixed and side != backend.side:
        LOGGER.warning("the model file takes %d px only: --imgsz is not used", backend.side)
        side = backend.side
    return backend, side


def torch_classifier(model: Classifier, device: torch.device, precision: torch.dtype) -> ClassifierBackend:
    """A PyTorch classifier in evaluation mode on one device, its weights in ``precision``."""
    placed(model.eval().to(precision), device)

    @torch.inference_mode()
    def logits(images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(images.contiguous(memory_format=torch.channels_last).to(precision))
        return found.float()

    return ClassifierBackend(model.names, model.imgsz, False, logits)


def graph_classifier(path: Path, graph: RuntimeGraph) -> ClassifierBackend:
    """An exported graph: logits ``output0`` (B, C).

    Raises:
        UserError: it has no class names, or takes images that are not square.
    """
    if not graph.names:
        raise UserError(f"{path}: has no class names in its metadata")
    if graph.frame is not None and graph.frame.height != graph.frame.width:
        raise UserError(f"{path}: takes images of {graph.frame.height}x{graph.frame.width} px; squares are needed")

    def logits(images: torch.Tensor) -> torch.Tensor:
        step = graph.batch_size or len(images)
        whole = functional.pad(images, (0, 0) * 3 + (0, -len(images) % step))  # a fixed batch is filled up
        outputs = [next(iter(graph.run(part).values())) for part in torch.split(whole, step)]
        found = torch.cat(outputs)[: len(images)].to(images.device, torch.float32)
        if found.shape[1:] != (len(graph.names),):
            raise UserError(f"{path}: its output is not one number for each of {len(graph.names)} classes")
        return found

    side = USUAL_SIDE if graph.frame is None else graph.frame.height
    return ClassifierBackend(graph.names, side, graph.frame is not None, logits)


@dataclass(frozen=True, slots=True)
class ImagePrediction:
    """Class probabilities of one image (C,), float32, sum 1."""

    probabilities: np.ndarray

    def best(self, count: int) -> list[tuple[int, float]]:
        """The ``count`` likeliest classes, first the likeliest, with their probabilities."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(int(index), float(self.probabilities[index])) for index in order]


def classify_images(
    backend: ClassifierBackend, images: Sequence[np.ndarray], side: int, device: torch.device
) -> list[ImagePrediction]:
    """Predictions for images (H, W, 3) uint8 RGB of any size, each seen as its middle square of ``side`` pixels."""
    squares = np.stack([middle_square(image, side) for image in images])
    batch = normalized(sent(torch.from_numpy(squares).permute(0, 3, 1, 2), device))
    probabilities = backend.logits(batch).softmax(dim=1).cpu().numpy()
    return [ImagePrediction(row) for row in probabilities]

"""A classifier in formats of other runtimes, each loaded again and compared with PyTorch before it is kept."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.classifier import Classifier, load_classifier
from utils.config.export_flags import ExportConfig
from utils.config.shared_flags import square_or_rectangle
from utils.exporting.export_settings import ExportSettings
from utils.exporting.formats import (
    check_formats,
    folder_beside,
    put_in_place,
    say_how_to_open,
    write_openvino,
    write_torchscript,
)
from utils.exporting.graph_output import ExportableModel
from utils.exporting.onnx import write_onnx
from utils.exporting.verification import TOLERANCE, size_in_megabytes
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import normalized
from utils.inference.classifier_backends import load_classifier_backend, torch_classifier
from utils.inference.detector import fitting_frame
from utils.inference.graph_runtimes import OPENVINO_SUFFIX
from utils.runtime.device import select_device
from utils.user_error import UsageError, UserError

LOGGER = logging.getLogger(__name__)

Writer = Callable[[ExportableModel, Path, ExportSettings], None]
WRITERS: dict[str, tuple[str, Writer]] = {  # the end of the file's name, and what writes it
    "torchscript": (".torchscript", write_torchscript),
    "onnx": (".onnx", write_onnx),
    "openvino": (OPENVINO_SUFFIX, write_openvino),
}


@dataclass(frozen=True, slots=True)
class ExportedClassifier:
    """A file that was written, loaded again and found to answer as the model does."""

    format: str
    path: Path
    megabytes: float
    difference: float  # largest, of a probability


def export_classifier(weights: Path, config: ExportConfig) -> list[ExportedClassifier]:
    """Write the classifier beside ``weights`` in every format; a line for each goes to the log.

    Raises:
        UsageError: a flag that classifiers have no use for, a frame that is not square.
        UserError: unreadable weights, or an exported file that answers otherwise than the model; no file is left.
    """
    for name, given in (("--nms", config.nms), ("--half", config.half), ("--int8", config.int8)):
        if given:
            raise UsageError(f"{name}: classifiers are exported in fp32, with logits as output")
    formats = check_formats(config.include)
    if unable := [name for name in formats if name not in WRITERS]:
        raise UsageError(f"--include {unable[0]}: classifiers are written as {', '.join(WRITERS)}")
    model = load_classifier(weights)
    asked = config.imgsz if config.imgsz != type(config)().imgsz else (model.imgsz,)
    height, width = square_or_rectangle(asked)
    if height != width:
        raise UsageError(f"--imgsz {height} {width}: a classifier takes squares")
    side, _ = fitting_frame(FrameSize(height, width), model.stride)
    settings = ExportSettings(
        frame=FrameSize(side, side),
        batch_size=config.batch_size,
        dynamic=config.dynamic,
        simplify=config.simplify,
        opset=config.opset,
    )
    device = select_device(config.device)
    exported = [_exported(weights, model.to(device), name, settings) for name in formats]
    for file in exported:
        LOGGER.info("%s: %.1f MB, %d px, probabilities within %.1e", file.path, file.megabytes, side, file.difference)
    say_how_to_open([(file.format, file.path) for file in exported])
    return exported


def _exported(weights: Path, model: Classifier, name: str, settings: ExportSettings) -> ExportedClassifier:
    ending, write = WRITERS[name]
    final = weights.with_name(weights.stem + ending)
    with folder_beside(final) as folder:
        fresh = folder / final.name
        write(copy.deepcopy(model), fresh, settings)
        difference = largest_difference(fresh, model, _inputs(settings, model.stride))
        if not difference <= TOLERANCE.probability:
            raise UserError(f"it differs from PyTorch by {difference:.3g} of a probability")
        put_in_place(fresh, final)
    return ExportedClassifier(name, final, size_in_megabytes(final), difference)


def largest_difference(exported: Path, model: Classifier, inputs: Sequence[torch.Tensor]) -> float:
    """Largest difference of a probability between the file and the model, over batches of normalized images.

    Raises:
        UserError: the file has other classes.
    """
    device = next(model.parameters()).device
    backend = load_classifier_backend(exported, device)
    if backend.names != model.names:
        raise UserError("its names are not those of the model")
    reference = torch_classifier(model, device, torch.float32)
    differences = [
        (backend.logits(images.to(device)).softmax(1) - reference.logits(images.to(device)).softmax(1)).abs().max()
        for images in inputs
    ]
    return float(torch.stack(differences).max())


def _inputs(settings: ExportSettings, stride: int) -> list[torch.Tensor]:
    """Batches of noise: of the export's size, and if that is dynamic of another one too."""
    generator = torch.Generator().manual_seed(0)
    count, side = settings.batch_size, settings.frame.height
    shapes = [(count, 3, side, side)]
    if settings.dynamic:
        shapes.append((count + 1, 3, side + stride, side + stride))
    return [normalized(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)) for shape in shapes]

"""From a checkpoint to checked files in the formats asked for."""

from __future__ import annotations

import copy
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from models.fuse import fused
from models.weights import load_model
from models.yolo import DetectionModel
from utils.config.dataset_yaml import find_dataset_yaml, read_dataset_yaml
from utils.config.run_config import square_or_rectangle
from utils.config.weights_by_name import find_weights
from utils.dataset.image_files import list_images, read_image
from utils.exporting.export_flags import FullExportConfig
from utils.exporting.export_settings import EmbeddedSuppression, ExportSettings
from utils.exporting.onnx import write_onnx
from utils.exporting.onnx_suppression import embed_suppression
from utils.exporting.openvino import write_openvino
from utils.exporting.torchscript import write_torchscript
from utils.exporting.verification import (
    Difference,
    compare,
    compare_suppressed,
    fastest_milliseconds,
    size_in_megabytes,
    verification_inputs,
)
from utils.geometry.letterbox import FrameSize, multiple_of_stride
from utils.inference.model_backends import OPENVINO_SUFFIX, TorchBackend, load_backend
from utils.runtime.device import select_device
from utils.user_error import UsageError, UserError

LOGGER = logging.getLogger(__name__)

CHECKED_PICTURES = 8

Writer = Callable[[DetectionModel, Path, ExportSettings], None]


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format that is written here: the end of the file's name and the function that writes it."""

    ending: str
    write: Writer


FORMATS = {
    "torchscript": ExportFormat(".torchscript", write_torchscript),
    "onnx": ExportFormat(".onnx", write_onnx),
    "openvino": ExportFormat(OPENVINO_SUFFIX, write_openvino),
}

# Formats of YOLOv5 that are not written here, and the program that makes each from ONNX.
THROUGH_ONNX = {
    "coreml": "coremltools",
    "engine": "trtexec --onnx=MODEL.onnx --saveEngine=MODEL.engine",
    "saved_model": "onnx2tf",
    "pb": "onnx2tf",
    "tflite": "onnx2tf",
    "edgetpu": "onnx2tf, then edgetpu_compiler",
    "tfjs": "onnx2tf, then tensorflowjs_converter",
    "paddle": "x2paddle",
}


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file that was written, loaded again and found to answer as the model does."""

    format: str
    path: Path
    megabytes: float
    difference: Difference
    model_ms: float  # per batch, PyTorch with folded layers
    runtime_ms: float  # per batch, the file in its runtime


def run_export(config: FullExportConfig) -> list[ExportedFile]:
    """Export as ``config`` says; a table of the files and how they compare with the model goes to the log.

    Raises:
        UserError: see ``export_model``; a frame, format or device that cannot be had.
    """
    check_formats(config.include)
    device = select_device(config.device)
    settings = ExportSettings(
        frame=FrameSize(*square_or_rectangle(config.imgsz)),
        batch_size=config.batch_size,
        dynamic=config.dynamic,
        simplify=config.simplify,
        opset=config.opset,
        suppression=_suppression(config),
    )
    pictures = _pictures(config.data) if config.data else []
    files = export_model(find_weights(config.weights), config.include, settings, device, pictures)
    LOGGER.info("%s", format_table(files))
    LOGGER.info("exported: %s", ", ".join(str(file.path) for file in files))
    return files


def check_formats(names: Sequence[str]) -> tuple[str, ...]:
    """The formats asked for, each once.

    Raises:
        UsageError: a format that is not written here; names the way to it.
    """
    for name in names:
        if name in THROUGH_ONNX:
            raise UsageError(f"--include {name}: not written here; export onnx and convert it: {THROUGH_ONNX[name]}")
        if name not in FORMATS:
            raise UsageError(f"--include {name}: no such format; known are {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(names))


def export_model(
    weights: Path,
    formats: Sequence[str],
    settings: ExportSettings,
    device: torch.device,
    pictures: Sequence[np.ndarray] = (),
) -> list[ExportedFile]:
    """Write the detector in ``weights`` in every format, beside it, under its stem.

    A file gets its final name only after it was loaded in its runtime and compared with the model on ``pictures``
    (H, W, 3) uint8 RGB (noise without any), suppression included if embedded.

    Raises:
        UserError: unreadable weights, or an exported file that answers otherwise than the model; no file is left.
    """
    if settings.suppression is not None and (unable := [name for name in formats if name != "onnx"]):
        raise UsageError(f"--nms with --include {unable[0]}: suppression can be embedded in onnx only")
    if weights.suffix != ".pt":
        raise UsageError(f"--weights {weights}: only a .pt file can be exported")
    model = fused(load_model(weights)).eval().to(device)
    frame = FrameSize(*(multiple_of_stride(side, model.stride) for side in settings.frame))
    if frame != settings.frame:
        LOGGER.warning("--imgsz: taking %dx%d px, multiples of the stride %d", *frame, model.stride)
        settings = replace(settings, frame=frame)
    return [_export_one(weights, model, name, settings, pictures) for name in check_formats(formats)]


def format_table(files: Sequence[ExportedFile]) -> str:
    """The exported files as a table, one line each."""
    lines = [f"{'format':<12}{'MB':>8}{'diff px':>11}{'diff prob':>11}{'PyTorch ms':>12}{'file ms':>9}  file"]
    for file in files:
        lines.append(
            f"{file.format:<12}{file.megabytes:>8.1f}{file.difference.pixels:>11.1e}"
            f"{file.difference.probability:>11.1e}{file.model_ms:>12.1f}{file.runtime_ms:>9.1f}  {file.path}"
        )
    return "\n".join(lines)


def _suppression(config: FullExportConfig) -> EmbeddedSuppression | None:
    if not config.nms:
        return None
    return EmbeddedSuppression(
        conf_thres=config.conf_thres,
        iou_thres=config.iou_thres,
        topk_per_class=config.topk_per_class,
        topk_all=config.topk_all,
        agnostic=config.agnostic_nms,
    )


def _pictures(data: str) -> list[np.ndarray]:
    """Some pictures of the data set's val part, spread over it."""
    dataset = read_dataset_yaml(find_dataset_yaml(data))
    paths = list_images(dataset.val)
    return [read_image(path) for path in paths[:: max(len(paths) // CHECKED_PICTURES, 1)][:CHECKED_PICTURES]]


def _export_one(
    weights: Path, model: DetectionModel, name: str, settings: ExportSettings, pictures: Sequence[np.ndarray]
) -> ExportedFile:
    chosen = FORMATS[name]
    final = weights.with_name(weights.stem + chosen.ending)
    # Beside the final place: on the same file system, so that the last step is one rename.
    with tempfile.TemporaryDirectory(dir=weights.parent, prefix=f".{final.name}.") as folder:
        fresh = Path(folder) / final.name
        # A copy made first: an exporter that changes the model it is given must not change what it is compared with.
        reference = TorchBackend(copy.deepcopy(model), next(model.parameters()).device)
        try:
            chosen.write(model, fresh, settings)
            exported = _verified(fresh, reference, name, settings, pictures)
        except UserError as error:
            raise type(error)(f"{final}: not written, {error}".replace(f"{folder}/", "")) from None
        if final.is_dir():
            shutil.rmtree(final)
        exported.path.replace(final)
    return ExportedFile(name, final, exported.megabytes, exported.difference, exported.model_ms, exported.runtime_ms)


def _verified(
    fresh: Path, reference: TorchBackend, name: str, settings: ExportSettings, pictures: Sequence[np.ndarray]
) -> ExportedFile:
    """The facts of a fresh file that answers as the model does."""
    device = reference.device
    inputs = verification_inputs(settings, reference.stride, pictures, device)
    backend = load_backend(fresh, device)
    if backend.names != reference.names or backend.stride != reference.stride:
        raise UserError("its names or stride are not those of the model")
    difference = compare(backend, reference, inputs)
    _check(difference)
    if settings.suppression is not None:
        raw, fresh = fresh, fresh.with_stem(f"{fresh.stem}-suppressed")
        embed_suppression(raw, fresh, settings.suppression)
        suppressing = load_backend(fresh, device)
        _check(compare_suppressed(suppressing, backend, settings.suppression, inputs))
        backend = suppressing
    return ExportedFile(
        format=name,
        path=fresh,
        megabytes=size_in_megabytes(fresh),
        difference=difference,
        model_ms=fastest_milliseconds(reference, inputs[0]),
        runtime_ms=fastest_milliseconds(backend, inputs[0]),
    )


def _check(difference: Difference) -> None:
    if not difference.within_tolerance():
        raise UserError(
            f"it differs from PyTorch by {difference.pixels:.3g} px and {difference.probability:.3g} of a probability"
        )

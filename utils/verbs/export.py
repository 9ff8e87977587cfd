"""From a checkpoint to checked files in the formats asked for."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from models.classifier import is_classifier
from models.fuse import fused
from models.weights import load_model
from models.yolo import DetectionModel
from utils.config.dataset_yaml import DatasetSpec
from utils.config.export_flags import ExportConfig, flags_without_effect
from utils.config.shared_flags import square_or_rectangle
from utils.config.weights_by_name import find_weights
from utils.dataset.available_dataset import available_dataset
from utils.dataset.image_files import read_image
from utils.dataset.image_lists import list_images
from utils.exporting.classifier_export import export_classifier
from utils.exporting.export_settings import EmbeddedSuppression, ExportPrecision, ExportSettings
from utils.exporting.formats import (
    FORMATS,
    check_formats,
    check_settings,
    file_beside,
    folder_beside,
    put_in_place,
    say_how_to_open,
)
from utils.exporting.onnx import embed_suppression
from utils.exporting.quantization import LARGEST_LOSS, Accuracy, Int8Data
from utils.exporting.verification import (
    HALF_TOLERANCE,
    TOLERANCE,
    Difference,
    compare,
    compare_suppressed,
    fastest_milliseconds,
    size_in_megabytes,
    verification_inputs,
)
from utils.geometry.letterbox import FrameSize
from utils.inference.detector import OpenedDetector, fitting_frame
from utils.inference.model_files import GraphBackend, load_backend
from utils.inference.torch_backend import DetectionBackend, TorchBackend
from utils.runtime.device import select_device
from utils.user_error import UsageError, UserError

LOGGER = logging.getLogger(__name__)

CHECKED_IMAGES = 8


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file that was written, loaded again and found to answer as the model does."""

    format: str
    path: Path
    megabytes: float
    difference: Difference
    model_ms: float  # per batch, PyTorch with folded layers
    runtime_ms: float | None  # per batch, the file in its runtime; None where that is not
    accuracy: tuple[Accuracy, Accuracy] | None = None  # of the model and of the file, where bits were given up


def run_export(config: ExportConfig) -> None:
    """Export the detector or the classifier in ``--weights``.

    Raises:
        UserError: see ``export_model`` and ``export_classifier``; a frame, format or device that cannot be had.
    """
    weights = find_weights(config.weights)
    if weights.suffix == ".pt" and is_classifier(weights):
        export_classifier(weights, config)
    else:
        export_detector(config)


def export_detector(config: ExportConfig) -> list[ExportedFile]:
    """Export as ``config`` says; a table of the files and how they compare with the model goes to the log.

    Raises:
        UserError: see ``export_model``; a frame, format or device that cannot be had.
    """
    check_formats(config.include)
    for sentence in flags_without_effect(config):
        LOGGER.warning("%s", sentence)
    device = select_device(config.device)
    settings = ExportSettings(
        frame=FrameSize(*square_or_rectangle(config.imgsz)),
        batch_size=config.batch_size,
        dynamic=config.dynamic,
        simplify=config.simplify,
        opset=config.opset,
        suppression=_suppression(config),
        precision=_precision(config),
        workspace=config.workspace,
        verbose=config.verbose,
    )
    dataset = available_dataset(config.data) if config.data else None
    images = _images(dataset) if dataset else []
    int8_data = Int8Data.of(dataset) if dataset and config.int8 else None
    files = export_model(find_weights(config.weights), config.include, settings, device, images, int8_data)
    LOGGER.info("%s", format_table(files))
    LOGGER.info("exported: %s", ", ".join(str(file.path) for file in files))
    say_how_to_open([(file.format, file.path) for file in files])
    return files


def export_model(
    weights: Path,
    formats: Sequence[str],
    settings: ExportSettings,
    device: torch.device,
    images: Sequence[np.ndarray] = (),
    int8_data: Int8Data | None = None,
) -> list[ExportedFile]:
    """Write the detector in ``weights`` in every format, beside it (``file_beside``).

    A file gets its final name only after it was loaded in its runtime and compared with the model on ``images``
    (H, W, 3) uint8 RGB (noise without any), suppression included if embedded.

    Raises:
        UserError: unreadable weights, or an exported file that answers otherwise than the model; no file is left.
    """
    formats = check_formats(formats)
    check_settings(formats, settings, device)
    if weights.suffix != ".pt":
        raise UsageError(f"--weights {weights}: only a .pt file can be exported")
    model = fused(load_model(weights)).eval().to(device)
    if int8_data is not None:
        int8_data.check(len(model.names), settings.batch_size)
    settings = replace(settings, frame=fitting_frame(settings.frame, model.stride))
    files: list[ExportedFile] = []
    for name in formats:
        try:
            files.append(_export_one(weights, model, name, settings, images, int8_data))
        except UserError:
            if files:  # they stay, and their facts would be lost
                LOGGER.info("%s", format_table(files))
            raise
    return files


def format_table(files: Sequence[ExportedFile]) -> str:
    """The exported files as a table, one line each; accuracy on the val part where it was measured."""
    with_accuracy = any(file.accuracy is not None for file in files)
    accuracy = f"{'AP before':>11}{'after':>8}{'AP_S before':>13}{'after':>8}" if with_accuracy else ""
    lines = [f"{'format':<12}{'MB':>8}{'diff px':>11}{'diff prob':>11}{'PyTorch ms':>12}{'file ms':>9}{accuracy}  file"]
    for file in files:
        accuracy = ""
        if file.accuracy is not None:
            before, after = file.accuracy
            accuracy = f"{before.ap:>11.4f}{after.ap:>8.4f}{before.ap_small:>13.4f}{after.ap_small:>8.4f}"
        lines.append(
            f"{file.format:<12}{file.megabytes:>8.1f}{file.difference.pixels:>11.1e}"
            f"{file.difference.probability:>11.1e}{file.model_ms:>12.1f}"
            f"{'-' if file.runtime_ms is None else format(file.runtime_ms, '.1f'):>9}{accuracy}  {file.path}"
        )
    return "\n".join(lines)


def _suppression(config: ExportConfig) -> EmbeddedSuppression | None:
    if not config.nms:
        return None
    return EmbeddedSuppression(
        conf_thres=config.conf_thres,
        iou_thres=config.iou_thres,
        topk_per_class=config.topk_per_class,
        topk_all=config.topk_all,
        agnostic=config.agnostic_nms,
    )


def _precision(config: ExportConfig) -> ExportPrecision:
    if config.half and config.int8:
        raise UsageError("--half with --int8: take one of the two")
    if config.int8 and not config.data:
        raise UsageError("--int8 needs --data: a dataset YAML with images to calibrate on and to measure AP on")
    return "int8" if config.int8 else "fp16" if config.half else "fp32"


def _images(dataset: DatasetSpec) -> list[np.ndarray]:
    """Some images of the data set's val part, spread over it."""
    paths = list_images(dataset.having("val").val, dataset.root)
    return [read_image(path) for path in paths[:: max(len(paths) // CHECKED_IMAGES, 1)][:CHECKED_IMAGES]]


def _export_one(
    weights: Path,
    model: DetectionModel,
    name: str,
    settings: ExportSettings,
    images: Sequence[np.ndarray],
    int8_data: Int8Data | None,
) -> ExportedFile:
    chosen = FORMATS[name]
    final = file_beside(weights, name, settings)
    with folder_beside(final) as folder:
        fresh = folder / final.name
        # A copy made first: an exporter that changes the model it is given must not change what it is compared with.
        reference = TorchBackend(copy.deepcopy(model), next(model.parameters()).device)
        chosen.write(model, fresh, settings)
        exported = _verified(fresh, reference, name, settings, images)
        if settings.precision == "fp16" and not chosen.writes_half:
            exported = _halved(exported, reference, settings, images)
        elif settings.precision == "int8":
            assert int8_data is not None  # run_export has made it
            exported = _quantized(exported, reference, settings, int8_data)
        put_in_place(exported.path, final)
    return replace(exported, path=final)


def _verified(
    fresh: Path, reference: TorchBackend, name: str, settings: ExportSettings, images: Sequence[np.ndarray]
) -> ExportedFile:
    """The facts of a fresh file that answers as the model does."""
    device = reference.device
    inputs = verification_inputs(settings, reference.stride, images, device)
    backend = open_exported(fresh, name, device)
    if backend.names != reference.names or backend.stride != reference.stride:
        raise UserError("its names or stride are not those of the model")
    difference = compare(backend, reference, inputs)
    is_half = settings.precision != "fp32" and FORMATS[name].writes_half
    _check(difference, HALF_TOLERANCE if is_half else TOLERANCE)
    if settings.suppression is not None:
        raw, fresh = fresh, fresh.with_stem(f"{fresh.stem}-suppressed")
        embed_suppression(raw, fresh, settings.suppression)
        suppressing = load_backend(fresh, device)
        _check(compare_suppressed(suppressing, backend, settings.suppression, inputs), TOLERANCE)
        backend = suppressing
    return ExportedFile(
        format=name,
        path=fresh,
        megabytes=size_in_megabytes(fresh),
        difference=difference,
        model_ms=fastest_milliseconds(reference, inputs[0]),
        runtime_ms=_milliseconds(backend, name, inputs[0]),
    )


def open_exported(path: Path, name: str, device: torch.device) -> DetectionBackend:
    """A file of the format ``name``, ready to be compared: where its runtime is not, by what gives the same numbers.

    Raises:
        UserError: its runtime is not there.
    """
    elsewhere = FORMATS[name].open_elsewhere
    if elsewhere is None:
        return load_backend(path, device)
    graph = elsewhere(path)
    return GraphBackend(path, graph, graph.names)


def _milliseconds(backend: DetectionBackend, name: str, images: torch.Tensor) -> float | None:
    return fastest_milliseconds(backend, images) if FORMATS[name].open_elsewhere is None else None


def _halved(
    exported: ExportedFile, reference: TorchBackend, settings: ExportSettings, images: Sequence[np.ndarray]
) -> ExportedFile:
    """The FP16 form of a verified file, compared with the model like it."""
    halve = FORMATS[exported.format].halve
    assert halve is not None  # export_model has refused the others
    target = _second_place(exported.path)
    halve(exported.path, target)
    inputs = verification_inputs(settings, reference.stride, images, reference.device)
    backend = load_backend(target, reference.device)
    difference = compare(backend, reference, inputs)
    _check(difference, HALF_TOLERANCE)
    return replace(
        exported,
        path=target,
        megabytes=size_in_megabytes(target),
        difference=difference,
        runtime_ms=fastest_milliseconds(backend, inputs[0]),
    )


def _quantized(
    exported: ExportedFile, reference: TorchBackend, settings: ExportSettings, data: Int8Data
) -> ExportedFile:
    """The INT8 form of a verified file, held to its AP: eight bits change every number, what is found has to stay."""
    quantize = FORMATS[exported.format].quantize
    assert quantize is not None  # export_model has refused the others
    target = _second_place(exported.path)
    quantize(exported.path, target, data.batches(settings))
    backend = open_exported(target, exported.format, reference.device)
    before, after = (data.accuracy(OpenedDetector(one, reference.device), settings) for one in (reference, backend))
    if before.ap < 0:
        raise UserError("INT8 is held to its AP, and the val part has no object to measure it on")
    if before.ap - after.ap > LARGEST_LOSS:
        raise UserError(f"INT8 lowers AP from {before.ap:.4f} to {after.ap:.4f}, by more than {LARGEST_LOSS}")
    inputs = verification_inputs(settings, reference.stride, [], reference.device)
    return replace(
        exported,
        path=target,
        megabytes=size_in_megabytes(target),
        difference=compare(backend, reference, inputs),
        runtime_ms=_milliseconds(backend, exported.format, inputs[0]),
        accuracy=(before, after),
    )


def _second_place(path: Path) -> Path:
    """The same name in a new folder beside ``path``."""
    folder = path.with_name("reduced")
    folder.mkdir()
    return folder / path.name


def _check(difference: Difference, tolerance: Difference) -> None:
    if not difference.within(tolerance):
        raise UserError(
            f"it differs from PyTorch by {difference.pixels:.3g} px and {difference.probability:.3g} of a probability"
        )

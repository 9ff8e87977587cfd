"""The formats that are written here, what each can do, and the way to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.yolo import DetectionModel
from utils.exporting.export_settings import ExportSettings
from utils.exporting.half_precision import halve_onnx, halve_openvino
from utils.exporting.onnx import write_onnx
from utils.exporting.openvino import write_openvino
from utils.exporting.quantization import quantize_onnx, quantize_openvino
from utils.exporting.tensorrt import write_tensorrt
from utils.exporting.torchscript import write_torchscript
from utils.inference.graph_runtimes import OPENVINO_SUFFIX
from utils.inference.tensorrt_runtime import tensorrt_module
from utils.user_error import UsageError, UserError

Writer = Callable[[DetectionModel, Path, ExportSettings], None]
Halver = Callable[[Path, Path], None]
Quantizer = Callable[[Path, Path, Iterator[np.ndarray]], None]


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format that is written here: the end of the file's name and the functions that write it."""

    ending: str
    write: Writer
    halve: Halver | None = None  # from the fp32 file
    quantize: Quantizer | None = None  # from the fp32 file
    writes_half: bool = False  # the writer itself gives the precision of its settings

    @property
    def can_halve(self) -> bool:
        return self.halve is not None or self.writes_half


FORMATS = {
    "torchscript": ExportFormat(".torchscript", write_torchscript),
    "onnx": ExportFormat(".onnx", write_onnx, halve_onnx, quantize_onnx),
    "openvino": ExportFormat(OPENVINO_SUFFIX, write_openvino, halve_openvino, quantize_openvino),
    "engine": ExportFormat(".engine", write_tensorrt, writes_half=True),
}

# Formats of YOLOv5 that are not written here, and the program that makes each from ONNX.
THROUGH_ONNX = {
    "coreml": "coremltools",
    "saved_model": "onnx2tf",
    "pb": "onnx2tf",
    "tflite": "onnx2tf",
    "edgetpu": "onnx2tf, then edgetpu_compiler",
    "tfjs": "onnx2tf, then tensorflowjs_converter",
    "paddle": "x2paddle",
}


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


def check_settings(names: Sequence[str], settings: ExportSettings, device: torch.device) -> None:
    """Hold the settings against what the formats ``names`` can do.

    Raises:
        UsageError: one of them cannot be had.
    """
    if settings.suppression is not None and (unable := [name for name in names if name != "onnx"]):
        raise UsageError(f"--nms with --include {unable[0]}: suppression can be embedded in onnx only")
    if settings.precision != "fp32" and settings.suppression is not None:
        raise UsageError("--nms with --half or --int8: suppression is embedded in fp32 graphs only")
    if settings.precision == "fp16" and (unable := [name for name in names if not FORMATS[name].can_halve]):
        raise UsageError(f"--half with --include {unable[0]}: --half is for onnx, openvino and engine")
    if settings.precision == "int8" and (unable := [name for name in names if FORMATS[name].quantize is None]):
        raise UsageError(f"--int8 with --include {unable[0]}: --int8 is for onnx and openvino")
    if "engine" in names:
        try:
            tensorrt_module(device)
        except UserError as error:
            raise UsageError(f"--include engine: {error}") from None

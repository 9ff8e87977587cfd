"""LiteRT (TensorFlow Lite) files on the CPU, and the metadata in them.

Both are as YOLOv5 writes them: images (B, H, W, 3), boxes as shares of the frame, and behind the graph a zip archive
whose first member is the Python literal of the metadata.
"""

from __future__ import annotations

import ast
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.inference.runtime_graph import RuntimeGraph, Tensors, described_graph, first_line
from utils.runtime.console_log import unheard
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

METADATA_NAME = "metadata.txt"
LONGEST_METADATA = 1 << 24  # bytes


def open_litert(path: Path, device: torch.device) -> RuntimeGraph:
    """A LiteRT file on the CPU; the graph takes and gives what every other runtime's does.

    Raises:
        UserError: not readable, no detector, or LiteRT is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError(f"{path}: needs LiteRT (pip install ai-edge-litert)") from None
    if device.type != "cpu":
        LOGGER.warning("%s: LiteRT runs on the CPU", path)
    try:
        with unheard():
            interpreter = Interpreter(str(path), num_threads=torch.get_num_threads())
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable LiteRT model ({first_line(error)})") from None
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    shape = [int(side) for side in inputs[0]["shape"]]
    if len(inputs) + len(outputs) != 2 or len(shape) != 4 or shape[3] != 3:
        sides = "; ".join(", ".join(map(str, one["shape"])) for one in inputs)
        raise UserError(f"{path}: takes ({sides}); a detector takes images (batch, height, width, 3) and gives rows")
    entry, result = inputs[0], outputs[0]

    def run(images: torch.Tensor) -> Tensors:
        height, width = images.shape[2:]
        interpreter.set_tensor(entry["index"], stored_numbers(images.permute(0, 2, 3, 1).cpu().numpy(), entry))
        interpreter.invoke()
        rows = torch.from_numpy(real_numbers(interpreter.get_tensor(result["index"]), result))
        if rows.ndim == 3:
            rows[..., :4] *= torch.tensor((width, height, width, height))[: rows.shape[2]]
        return {"output0": rows}

    return described_graph(path, run, litert_metadata(path), (shape[0], 3, *shape[1:3]))


def stored_numbers(values: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """Numbers as a tensor of the file holds them: as they are, or as integers of its scale."""
    scale, zero = tensor["quantization"]
    if scale:
        limits = np.iinfo(tensor["dtype"])
        values = np.clip(np.round(values / scale) + zero, limits.min, limits.max)
    return np.ascontiguousarray(values, dtype=tensor["dtype"])


def real_numbers(values: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """The numbers that a tensor of the file stands for, float32."""
    scale, zero = tensor["quantization"]
    real = values.astype(np.float32)
    return (real - zero) * np.float32(scale) if scale else real


def litert_metadata(path: Path) -> Mapping[str, Any]:
    """What a LiteRT file says of itself; nothing where no archive lies behind the graph.

    Raises:
        UserError: what the archive holds is no mapping.
    """
    if not zipfile.is_zipfile(path):
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            first = next(iter(archive.infolist()))
            content = ast.literal_eval(archive.read(first).decode()) if first.file_size <= LONGEST_METADATA else None
    except (zipfile.BadZipFile, StopIteration, ValueError, SyntaxError, RuntimeError, OSError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path}: its metadata are not the Python literal of a mapping")
    return content

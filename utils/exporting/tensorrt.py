"""TensorRT: an engine for the GPU at hand, built from ONNX."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from models.yolo import DetectionModel
from utils.exporting.export_settings import ExportSettings
from utils.exporting.graph_output import INPUT_NAME
from utils.exporting.half_precision import halve_onnx
from utils.exporting.onnx import write_onnx
from utils.inference.tensorrt_runtime import engine_name, tensorrt_module
from utils.user_error import UserError

FEWEST_MOST_IMAGES = 8  # a free batch goes up to this, or to one more than --batch-size


def write_tensorrt(model: DetectionModel, path: Path, settings: ExportSettings) -> None:
    """Write ``model`` (in evaluation mode, on a GPU) to ``path`` as an engine in the precision of ``settings``.

    With free sides batches go from 1 to ``FEWEST_MOST_IMAGES`` or more, height and width from one stride to twice
    the frame.

    Raises:
        UserError: no GPU, no TensorRT, or a graph that it cannot build.
    """
    device = next(model.parameters()).device
    tensorrt = tensorrt_module(device)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx.") as folder, torch.cuda.device(device):
        graph = Path(folder) / "whole.onnx"
        write_onnx(model, graph, settings)
        if settings.precision == "fp16":
            whole, graph = graph, Path(folder) / "half.onnx"
            halve_onnx(whole, graph)
        engine = _built(tensorrt, graph, settings, model)
    path.write_bytes(engine)


def _built(tensorrt: Any, graph: Path, settings: ExportSettings, model: DetectionModel) -> bytes:
    """The engine of an ONNX file; each tensor keeps the type that it has there."""
    logger = tensorrt.Logger(tensorrt.Logger.VERBOSE if settings.verbose else tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        problem = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise UserError(f"TensorRT cannot read the graph ({problem})")
    network.name = engine_name(model.names, model.stride)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, settings.workspace << 30)
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # its ten bits of mantissa are not the fp32 that was asked for
    if settings.dynamic:
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT_NAME, *profile_shapes(settings, model.stride))
        config.add_optimization_profile(profile)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise UserError("TensorRT could not build an engine; --verbose shows why")
    return bytes(serialized)


def profile_shapes(settings: ExportSettings, stride: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Smallest, best and largest input (B, 3, H, W) of an engine with free sides."""
    height, width = settings.frame
    most = max(settings.batch_size + 1, FEWEST_MOST_IMAGES)
    return (1, 3, stride, stride), settings.input_shape, (most, 3, 2 * height, 2 * width)

"""CoreML: the graph as an ML program for Apple's devices, in a package that is compared with PyTorch on any machine."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.yolo import DetectionModel
from utils.exporting.export_settings import ExportSettings
from utils.exporting.graph_output import OUTPUT_NAME, GraphOutput, file_metadata
from utils.exporting.mil_program import mil_program
from utils.inference.runtime_graph import RuntimeGraph, described_graph, first_line
from utils.runtime.console_log import unheard
from utils.user_error import UserError

IMAGE_NAME = "image"  # YOLOv5's
WHITE = 255  # an image's value that becomes 1


def write_coreml(model: DetectionModel, path: Path, settings: ExportSettings) -> None:
    """Write ``model`` (in evaluation mode) to the new package ``path``, for one RGB image of fixed size.

    In other than fp32 all up to the head's convolutions is fp16, the only numbers of the Neural Engine; the decoding
    stays float32.

    Raises:
        UserError: coremltools does not know an operation of the model.
    """
    coremltools = _coremltools()
    graph = GraphOutput(copy.deepcopy(model).cpu()).eval()
    precision: Any = coremltools.precision.FLOAT32
    if settings.precision != "fp32":
        precision = coremltools.transform.FP16ComputePrecision(op_selector=_is_before_a_convolution)
    try:
        with torch.no_grad(), unheard():
            traced = torch.export.export(graph, (torch.zeros(settings.input_shape),)).run_decompositions({})
            package = coremltools.convert(
                traced,
                inputs=[coremltools.ImageType(name=IMAGE_NAME, shape=settings.input_shape, scale=1 / WHITE)],
                outputs=[coremltools.TensorType(name=OUTPUT_NAME)],
                convert_to="mlprogram",
                compute_precision=precision,
                minimum_deployment_target=coremltools.target.iOS16,
                skip_model_load=True,
            )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"coremltools does not take the graph ({first_line(error)})") from None
    for key, value in file_metadata(model, settings).items():
        package.user_defined_metadata[key] = str(value)
    package.save(str(path))


def _coremltools() -> Any:
    with unheard():
        import coremltools
    return coremltools


def _is_before_a_convolution(operation: Any) -> bool:
    """Whether what an operation of a program gives goes through a convolution yet, or it is one."""
    waiting, met = [operation], set()
    while waiting:
        step = waiting.pop()
        if step.op_type == "conv":
            return True
        if id(step) not in met:
            met.add(id(step))
            waiting += [reader for output in step.outputs for reader in output.child_ops]
    return False


def quantize_coreml(source: Path, target: Path, batches: Iterator[np.ndarray]) -> None:
    """Write the INT8 form of a package: integers for the convolutions' weights, per channel; the maps stay fp16."""
    coremltools = _coremltools()
    from coremltools.optimize import coreml

    with unheard():
        package = coremltools.models.MLModel(str(source), skip_model_load=True)
        config = coreml.OptimizationConfig(coreml.OpLinearQuantizerConfig(mode="linear_symmetric"))
        coreml.linear_quantize_weights(package, config).save(str(target))


def opened_for_comparison(path: Path) -> RuntimeGraph:
    """A package whose program PyTorch computes, where Apple's runtime is not.

    Raises:
        UserError: an operation that cannot be computed here.
    """
    coremltools = _coremltools()
    with unheard():
        package = coremltools.models.MLModel(str(path), skip_model_load=True)
        run = mil_program(path, WHITE)
    image = package.get_spec().description.input[0].type.imageType
    shape = (1, 3, image.height, image.width)
    return described_graph(path, run, package.user_defined_metadata, shape)

"""ONNX: the graph in standard operators, with YOLOv5's metadata."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch

from utils.exporting.export_settings import ExportSettings
from utils.exporting.graph_output import INPUT_NAME, OUTPUT_NAME, ExportableModel, GraphOutput
from utils.user_error import UsageError

LOGGER = logging.getLogger(__name__)

USUAL_OPSET = 17
TRACED_OPSET = 18  # torch writes this one and later; earlier ones are converted from it


def write_onnx(model: ExportableModel, path: Path, settings: ExportSettings) -> None:
    """Write ``model`` (in evaluation mode) to ``path``: input ``images``, output ``output0`` (``GraphOutput``).

    Raises:
        UsageError: the graph cannot be expressed in ``settings.opset``.
    """
    graph = _expressed(model, path, settings, settings.opset or USUAL_OPSET)
    if graph is None and settings.opset is None:
        LOGGER.info("ONNX: this graph needs operator set %d", TRACED_OPSET)
        graph = _expressed(model, path, settings, TRACED_OPSET)
    if graph is None:
        raise UsageError(f"--opset {settings.opset}: this graph cannot be expressed in it; {TRACED_OPSET} always can")
    if settings.simplify:
        import onnxslim

        graph = onnxslim.slim(graph)
    onnx.helper.set_model_props(graph, {"stride": str(model.stride), "names": str(dict(enumerate(model.names)))})
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def _expressed(model: ExportableModel, path: Path, settings: ExportSettings, opset: int) -> onnx.ModelProto | None:
    """The graph in an operator set, by way of the file ``path``; None where that set cannot express it."""
    device = next(model.parameters()).device
    batch_size, channels, height, width = settings.input_shape
    if settings.dynamic:
        batch_size = max(batch_size, 2)  # torch.export takes a side of 1 as a constant
    axes = ({0: "batch", 2: "height", 3: "width"},) if settings.dynamic else None
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            GraphOutput(model),
            (torch.zeros(batch_size, channels, height, width, device=device),),
            str(path),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=opset,
            dynamic_shapes=axes,
            # The older exporter (dynamo=False) writes wrong answers without a word: it takes the grid of the head for
            # a constant under dynamic axes, and changes the weights of the model that it is given.
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        graph = onnx.load(path)
    return graph if opset_of(graph) == opset and _is_valid(graph) else None


def opset_of(graph: onnx.ModelProto) -> int:
    """Version of the standard operators that a graph uses."""
    return int(next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")))


def _is_valid(graph: onnx.ModelProto) -> bool:
    """Whether it keeps to its own operator set: the conversion leaves what it does not know as it was."""
    try:
        onnx.checker.check_model(graph)
    except onnx.checker.ValidationError:
        return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own remarks off the console: what it got wrong is measured afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

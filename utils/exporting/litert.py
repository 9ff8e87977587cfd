"""LiteRT (TensorFlow Lite): the graph in YOLOv5's layout, with its metadata; its FP16 form and its INT8 form."""

from __future__ import annotations

import copy
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.yolo import DetectionModel
from utils.exporting.decoding_nodes import head_of_litert
from utils.exporting.export_settings import ExportSettings
from utils.exporting.graph_output import INPUT_NAME, OUTPUT_NAME, GraphOutput, file_metadata
from utils.geometry.letterbox import FrameSize
from utils.inference.litert_runtime import METADATA_NAME, litert_metadata
from utils.inference.runtime_graph import first_line
from utils.runtime.console_log import unheard
from utils.user_error import UserError

SIGNATURE = "serving_default"  # the name under which a program calls the graph


class _SharesOfTheFrame(nn.Module):
    """Images (B, H, W, 3) to rows (B, N, 5 + C) whose ``cx cy w h`` are shares of the frame's sides."""

    shares: torch.Tensor

    def __init__(self, model: DetectionModel, frame: FrameSize) -> None:
        super().__init__()
        self.detector = GraphOutput(model)
        shares = [1 / side for side in (frame.width, frame.height) * 2] + [1.0] * (1 + len(model.names))
        self.register_buffer("shares", torch.tensor(shares))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {OUTPUT_NAME: self.detector(images.permute(0, 3, 1, 2)) * self.shares}


def write_litert(model: DetectionModel, path: Path, settings: ExportSettings) -> None:
    """Write ``model`` (in evaluation mode) to ``path``, of fixed size, weights in fp32.

    Raises:
        UserError: the converter does not know an operation of the model.
    """
    with unheard():
        import litert_torch
    litert_torch.config.show_progress = False
    batch_size, _, height, width = settings.input_shape
    images = torch.zeros(batch_size, height, width, 3)
    module = _SharesOfTheFrame(copy.deepcopy(model).cpu(), settings.frame).eval()
    try:
        with torch.no_grad(), unheard():
            # Folded, the grid of the head is a constant, which not every accelerator could compute.
            converted = litert_torch.convert(module, sample_kwargs={INPUT_NAME: images}, runtime_constant_folding=True)
            path.write_bytes(converted.model_content())
    except (ValueError, RuntimeError) as error:
        raise UserError(f"LiteRT's converter does not take the graph ({first_line(error)})") from None
    _append_metadata(path, file_metadata(model, settings))


def _append_metadata(path: Path, metadata: Mapping[str, object]) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(METADATA_NAME), repr(dict(metadata)))


def halve_litert(source: Path, target: Path) -> None:
    """Write the FP16 form of a LiteRT file: the weights of its convolutions are halved, all else stays float32."""
    from ai_edge_quantizer import qtyping, quantizer

    half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    work = quantizer.Quantizer(str(source))
    work.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.CONV_2D,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=half,
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING,
    )
    _write_reduced(work, source, target)


def quantize_litert(source: Path, target: Path, batches: Iterator[np.ndarray]) -> None:
    """Write the INT8 form of a LiteRT file; input, output, the head's convolutions and its decoding stay in float32."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_quantizer import qtyping, quantizer

    work = quantizer.Quantizer(str(source))
    everything = qtyping.TFLOperationName.ALL_SUPPORTED
    work.add_static_config(".*", everything, activation_num_bits=8, weight_num_bits=8)
    kept = head_of_litert(schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0))
    for operation in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        work.update_quantization_recipe(".*", operation, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
    work.update_quantization_recipe(
        f"^(?:{'|'.join(map(re.escape, kept))});$", everything, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE
    )
    images = ({INPUT_NAME: np.ascontiguousarray(batch.transpose(0, 2, 3, 1))} for batch in batches)
    with unheard():
        ranges = work.calibrate({SIGNATURE: list(images)}, num_threads=torch.get_num_threads())
    _write_reduced(work, source, target, ranges)


def _write_reduced(work: Any, source: Path, target: Path, ranges: Any = None) -> None:
    """Write what a quantizer makes of the graph in ``source``, with the metadata of that."""
    with unheard():
        made = work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    target.write_bytes(made.quantized_model)
    _append_metadata(target, litert_metadata(source))

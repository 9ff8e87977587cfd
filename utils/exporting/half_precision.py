"""FP16 files of ONNX and OpenVINO: half the size; input, output and decoding stay in float32."""

from __future__ import annotations

from pathlib import Path

import onnx

from utils.exporting.decoding_nodes import decoding_of_onnx


def halve_onnx(source: Path, target: Path) -> None:
    """Write the FP16 form of an ONNX file."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(source)
    kept = decoding_of_onnx(model.graph)
    onnx.save(convert_float_to_float16(model, keep_io_types=True, node_block_list=kept), target)


def halve_openvino(source: Path, target: Path) -> None:
    """Write an OpenVINO folder again, its weights in FP16, into the new folder ``target``."""
    import openvino

    (graph,) = source.glob("*.xml")
    target.mkdir()
    openvino.save_model(openvino.Core().read_model(graph), target / graph.name, compress_to_fp16=True)
    for metadata in source.glob("*.yaml"):
        (target / metadata.name).write_bytes(metadata.read_bytes())

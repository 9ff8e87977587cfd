"""Operations of an exported file by kind, counted in the file itself: what it moves to make maps smaller is seen there.

A format without an entry in ``COUNTERS`` is not counted.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import torch

from utils.exporting.ncnn import layer_kinds
from utils.inference.ncnn_runtime import NCNN_GRAPH

# Of the names that the formats give to what takes a map apart or moves places into channels.
MOVES = ("slice", "gather", "spacetodepth", "space_to_depth", "unshuffle", "reorg", "crop", "split", "select", "unfold")


def of_torchscript(path: Path) -> Counter[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch announces the end of TorchScript
        module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    graph = module.inlined_graph
    return Counter(node.kind().removeprefix("aten::") for node in graph.nodes() if node.kind().startswith("aten::"))


def of_onnx(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def of_openvino(path: Path) -> Counter[str]:
    import openvino

    (graph,) = path.glob("*.xml")
    kinds = Counter(one.get_type_name() for one in openvino.Core().read_model(graph).get_ops())
    return Counter({kind: count for kind, count in kinds.items() if kind not in ("Constant", "Parameter", "Result")})


def of_ncnn(path: Path) -> Counter[str]:
    """A ``Split`` only lets several layers read one map."""
    kinds = layer_kinds((path / NCNN_GRAPH).read_text(encoding="utf-8"))
    return Counter(kind for kind in kinds if kind not in ("Input", "MemoryData", "Split"))


def of_tflite(path: Path) -> Counter[str]:
    from ai_edge_litert.interpreter import Interpreter

    return Counter(operation["op_name"] for operation in Interpreter(str(path))._get_ops_details())


def of_coreml(path: Path) -> Counter[str]:
    import coremltools

    program = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec().mlProgram
    blocks = [block for one in program.functions.values() for block in one.block_specializations.values()]
    return Counter(one.type for block in blocks for one in block.operations if one.type != "const")


COUNTERS: dict[str, Callable[[Path], Counter[str]]] = {
    "torchscript": of_torchscript,
    "onnx": of_onnx,
    "openvino": of_openvino,
    "ncnn": of_ncnn,
    "tflite": of_tflite,
    "coreml": of_coreml,
}


def convolutions(counts: Counter[str]) -> int:
    """``Conv``, ``Convolution``, ``CONV_2D``, ``DEPTHWISE_CONV_2D``, ..., but no ``Convert``."""
    return sum(count for kind, count in counts.items() if re.search(r"conv(?!ert)", kind.lower()))


def moving(counts: Counter[str]) -> str:
    """Those that take maps apart, as text: ``9 Slice``."""
    found = sorted((kind, count) for kind, count in counts.items() if any(word in kind.lower() for word in MOVES))
    return ", ".join(f"{count} {kind}" for kind, count in found) or "none"


def beside(counts: Counter[str], other: Counter[str]) -> str:
    """What one graph has more or fewer of than another, as text: ``+4 Slice, -1 Conv``."""
    different = sorted(kind for kind in counts | other if counts[kind] != other[kind])
    return ", ".join(f"{counts[kind] - other[kind]:+d} {kind}" for kind in different) or "the same"

"""The end of an exported graph: from the head's convolutions to the rows in pixels.

It is small work on large numbers: coordinates of hundreds of pixels keep float32 in files of lower precision.
"""

from __future__ import annotations

from typing import Any

import onnx

LITERT_CONVOLUTION = 3  # CONV_2D in the schema's list of operators


def decoding_of_onnx(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes between the head's convolutions and the outputs."""
    return _walk_back(graph)[0]


def head_convolutions_of_onnx(graph: onnx.GraphProto) -> list[str]:
    """Names of the head's own convolutions, whose outputs are decoded."""
    return _walk_back(graph)[1]


def _walk_back(graph: onnx.GraphProto) -> tuple[list[str], list[str]]:
    """Nodes met from the outputs backwards up to the first convolutions, and those convolutions."""
    maker = {output: node for node in graph.node for output in node.output}
    decoding: dict[str, None] = {}
    convolutions: dict[str, None] = {}
    waiting = [output.name for output in graph.output]
    while waiting:
        node = maker.get(waiting.pop())
        if node is None or node.name in decoding:
            continue
        if node.op_type == "Conv":
            convolutions[node.name] = None
            continue
        decoding[node.name] = None
        waiting += node.input
    return list(decoding), list(convolutions)


def decoding_of_openvino(model: Any) -> list[str]:
    """Names of the operations between the head's convolutions and the outputs of an ``openvino.Model``."""
    names: dict[str, None] = {}
    waiting = [result.input_value(0).get_node() for result in model.get_results()]
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name in names or node.get_type_name() in ("Convolution", "Constant", "Parameter"):
            continue
        names[name] = None
        waiting += [node.input_value(i).get_node() for i in range(node.get_input_size())]
    return list(names)


def head_of_litert(model: Any) -> list[str]:
    """Names of what the head's convolutions and the operations behind them give, in a parsed LiteRT file.

    ``model`` is a ``ModelT`` of LiteRT's schema, its one subgraph that of a detector.
    """
    (graph,) = model.subgraphs
    maker = {output: operator for operator in graph.operators for output in operator.outputs}
    met: dict[int, None] = {}
    waiting = [int(output) for output in graph.outputs]
    while waiting:
        tensor = waiting.pop()
        if tensor in met or tensor not in maker:
            continue
        met[tensor] = None
        operator = maker[tensor]
        if model.operatorCodes[operator.opcodeIndex].builtinCode != LITERT_CONVOLUTION:
            waiting += [int(source) for source in operator.inputs]
    return [graph.tensors[tensor].name.decode() for tensor in met]

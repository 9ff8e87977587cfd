"""Exported files that are no detectors: one line each, whatever of them does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from utils.inference.model_files import GraphBackend, load_backend
from utils.user_error import UserError

CPU = torch.device("cpu")
IMAGES = (1, 3, 32, 32)


def write_graph(
    path: Path,
    output: Sequence[int] = (1, 10, 7),
    inputs: Sequence[Sequence[int]] = (IMAGES,),
    kind: int = TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A graph that gives a constant of the shape ``output``, whatever it is shown."""
    value = helper.make_tensor("value", TensorProto.FLOAT, output, [0.5] * int(torch.Size(output).numel()))
    entries = [helper.make_tensor_value_info(f"input{i}", kind, shape) for i, shape in enumerate(inputs)]
    nodes = [helper.make_node("Constant", [], ["output0"], value=value)]
    graph = helper.make_graph(
        nodes, "constant", entries, [helper.make_tensor_value_info("output0", TensorProto.FLOAT, output)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"inputs": [(1, 8)]}, r"its input is \(1, 8\); a detector takes images \(batch, 3, height, width\)"),
        ({"inputs": [IMAGES, (1, 2)]}, r"its inputs are input0 tensor\(float\), input1 tensor\(float\)"),
        ({"kind": TensorProto.UINT8}, r"its inputs are input0 tensor\(uint8\)"),
        ({"metadata": {"stride": "0"}}, "stride in its metadata is not a number of pixels: '0'"),
        ({"metadata": {"stride": "inf"}}, "stride in its metadata is not a number of pixels: 'inf'"),
        ({"metadata": {"stride": "-32"}}, "stride in its metadata is not a number of pixels: '-32'"),
        ({"metadata": {"names": "{'x': 'a'}"}}, "class names in its metadata are not numbered"),
    ],
)
def test_a_file_that_cannot_be_opened(graph: dict[str, object], message: str, tmp_path: Path) -> None:
    path = write_graph(tmp_path / "foreign.onnx", **graph)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"^{path}: {message}"):
        load_backend(path, CPU)


@pytest.mark.parametrize("output", [(1, 80), (1, 10, 5), (1, 2, 3, 4)])
def test_an_output_that_is_no_detectors(output: tuple[int, ...], tmp_path: Path) -> None:
    backend = load_backend(write_graph(tmp_path / "foreign.onnx", output), CPU)
    sides = ", ".join(map(str, output))
    with pytest.raises(UserError, match=rf"foreign\.onnx: gives \({sides}\); a detector gives rows"):
        backend.predict(torch.zeros(IMAGES))


def test_opencv_is_given_no_graph_of_fewer_bits_and_none_that_suppresses(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "foreign.onnx")
    whole = onnx.load(path)
    half, suppressing, integers = onnx.ModelProto(), onnx.ModelProto(), onnx.ModelProto()
    for graph in (half, suppressing, integers):
        graph.CopyFrom(whole)
    half.graph.initializer.append(helper.make_tensor("half", TensorProto.FLOAT16, (1,), [0.5]))
    integers.graph.node.append(helper.make_node("QuantizeLinear", ["output0", "scale"], ["small"]))
    for name in ("boxes", "scores", "classes", "counts"):
        suppressing.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,)))
    for graph in (half, suppressing, integers):
        onnx.save(graph, path)
        with pytest.raises(UserError, match="an export without --half, --int8 and --nms"):
            load_backend(path, CPU, dnn=True)


def test_an_openvino_folder_without_its_weights(tmp_path: Path) -> None:
    folder = tmp_path / "net_openvino_model"
    folder.mkdir()
    (folder / "net.xml").write_text("<net/>", encoding="utf-8")
    with pytest.raises(UserError, match=r"net\.bin: missing; it holds the weights of net\.xml"):
        load_backend(folder, CPU)


def test_an_input_of_other_channels(tmp_path: Path) -> None:
    backend = load_backend(write_graph(tmp_path / "foreign.onnx", inputs=[(1, 1, 32, 32)]), CPU)
    with pytest.raises(UserError, match=r"foreign\.onnx: takes no such images"):
        backend.predict(torch.zeros(IMAGES))


def test_a_fitting_graph_of_whatever_origin_is_taken(tmp_path: Path) -> None:
    backend = load_backend(write_graph(tmp_path / "foreign.onnx"), CPU, fallback_names=lambda: ("a", "b"))
    assert isinstance(backend, GraphBackend) and not backend.suppresses
    assert backend.predict(torch.zeros(IMAGES)).class_probs.shape == (1, 10, 2)


class _Pair(torch.nn.Module):
    def forward(self, images: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return images + other


class _Named(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"rows": images}


def test_torchscript_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "foreign.torchscript"
    torch.jit.script(_Pair()).save(path)  # type: ignore[no-untyped-call]
    with pytest.raises(UserError, match="its forward takes other arguments than one batch of images"):
        load_backend(path, CPU)
    torch.jit.script(_Named()).save(path)  # type: ignore[no-untyped-call]
    with pytest.raises(UserError, match="gives a dict, not the rows of a detector"):
        load_backend(path, CPU).predict(torch.zeros(1, 3, 640, 640))

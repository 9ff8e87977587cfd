"""LiteRT files: layout and metadata as YOLOv5's, what the graph is made of, FP16, INT8, and what is no such file."""

from __future__ import annotations

import ast
import sys
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml

from models.architecture import Architecture
from models.fuse import fused
from models.yolo import DetectionModel
from tests.exporting.small_model import NAMES, STRIDE, small_model, write_small_checkpoint
from tests.shared_data import REPOSITORY
from tests.small_dataset import write_small_dataset
from tests.verbs.test_export import CPU, FRAME, run
from utils.exporting.decoding_nodes import head_of_litert
from utils.exporting.export_settings import ExportSettings
from utils.exporting.litert import write_litert
from utils.inference.litert_runtime import litert_metadata, real_numbers, stored_numbers
from utils.inference.model_files import load_backend
from utils.inference.torch_backend import TorchBackend
from utils.user_error import UsageError, UserError

needs_litert = pytest.mark.skipif(
    find_spec("litert_torch") is None or find_spec("ai_edge_litert") is None,
    reason="LiteRT's converter is not installed (pip install litert-torch)",
)


@pytest.mark.slow
@pytest.mark.kernels
@needs_litert
def test_the_file_is_as_yolov5s_and_answers_as_pytorch(tmp_path: Path) -> None:
    write_small_checkpoint(tmp_path / "a.pt")
    whole, *_ = run(tmp_path, "--include", "litert", "--img", *FRAME, "--batch", 2)
    (half,) = run(tmp_path, "--include", "tflite", "--img", *FRAME, "--batch", 2, "--half")
    assert (whole.path.name, half.path.name) == ("a.tflite", "a-fp16.tflite")
    assert half.megabytes < 0.8 * whole.megabytes
    with zipfile.ZipFile(whole.path) as archive:
        metadata = ast.literal_eval(archive.read(archive.namelist()[0]).decode())
    assert metadata == {"stride": STRIDE, "names": dict(enumerate(NAMES)), "imgsz": list(FRAME), "pad_value": 114}
    assert litert_metadata(half.path) == metadata

    images = torch.rand(3, 3, *FRAME)
    expected = TorchBackend(fused(small_model()), CPU).predict(images)
    for file, tolerance in ((whole, 1e-4), (half, 0.02)):
        backend = load_backend(file.path, CPU)
        assert (backend.names, backend.stride, backend.frame, backend.batch_size) == (NAMES, STRIDE, FRAME, 2)
        found = backend.predict(images)
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=100 * tolerance)
        torch.testing.assert_close(found.class_probs, expected.class_probs, rtol=0, atol=tolerance)

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(whole.path))
    (signature,) = interpreter.get_signature_list().values()
    assert signature == {"inputs": ["images"], "outputs": ["output0"]}
    rows = interpreter.get_signature_runner()(images=images[:2].permute(0, 2, 3, 1).contiguous().numpy())["output0"]
    widths = (expected.boxes[:2, :, 2] - expected.boxes[:2, :, 0]) / FRAME.width
    np.testing.assert_allclose(rows[..., 2], widths, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.kernels
@needs_litert
def test_int8_leaves_the_head_alone_and_is_held_to_its_ap(tmp_path: Path) -> None:
    write_small_checkpoint(tmp_path / "a.pt")
    dataset = write_small_dataset(tmp_path / "data")
    (file,) = run(tmp_path, "--include", "tflite", "--img", *FRAME, "--int8", "--data", dataset)
    assert file.path.name == "a-int8.tflite" and file.accuracy is not None
    assert file.accuracy[0].ap - file.accuracy[1].ap <= 0.02
    assert load_backend(file.path, CPU).predict(torch.rand(1, 3, *FRAME)).objectness.std() > 0.05
    convolutions = [step.types for step in steps(file.path) if step.kind == "CONV_2D"]
    int8, float32 = 9, 0  # in the schema's list of types
    assert Counter(convolutions) == {(int8, int8): len(convolutions) - 2, (float32, float32): 2}, "one for each level"


class Step(NamedTuple):
    """An operation of a LiteRT file."""

    kind: str
    types: tuple[int, int]  # of its first input and its output
    stride: int
    gives: str


def steps(path: Path) -> list[Step]:
    from ai_edge_litert import schema_py_generated as schema

    kinds = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    (graph,) = model.subgraphs
    return [
        Step(
            kinds[model.operatorCodes[operator.opcodeIndex].builtinCode],
            (graph.tensors[operator.inputs[0]].type, graph.tensors[operator.outputs[0]].type),
            getattr(operator.builtinOptions, "strideH", 1),
            graph.tensors[operator.outputs[0]].name.decode(),
        )
        for operator in graph.operators
    ]


@pytest.mark.slow
@needs_litert
@pytest.mark.parametrize("with_anchors", [True, False])
def test_downsampling_is_one_strided_convolution(tmp_path: Path, with_anchors: bool) -> None:
    """Nothing before the head cuts, gathers, transposes or pads a map; with anchors and without."""
    from ai_edge_litert import schema_py_generated as schema

    content = yaml.safe_load((REPOSITORY / "tests" / "exporting" / "small-detector.yaml").read_text(encoding="utf-8"))
    if not with_anchors:
        del content["anchors"]
        content["head"][-1][2:] = ["AnchorFreeDetect", ["nc"]]
    model, path = DetectionModel(Architecture.from_dict(content, "small"), names=NAMES), tmp_path / "a.tflite"
    write_litert(fused(model).eval(), path, ExportSettings(FRAME))
    behind = head_of_litert(schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0))
    before = [step for step in steps(path) if step.gives not in behind]
    assert {step.kind for step in before} == {
        "CONV_2D", "LOGISTIC", "MUL", "ADD", "CONCATENATION", "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR"
    }  # fmt: skip
    assert [step.kind for step in before if step.stride > 1] == ["CONV_2D"] * 3
    images = torch.rand(1, 3, *FRAME)
    found, expected = load_backend(path, CPU).predict(images), TorchBackend(fused(model), CPU).predict(images)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--dynamic",), "--dynamic with --include tflite: its files are of fixed size"),
        (("--nms",), "--nms with --include tflite"),
    ],
)
def test_what_the_format_cannot_do(tmp_path: Path, flags: tuple[str, ...], line: str) -> None:
    write_small_checkpoint(tmp_path / "a.pt")
    with pytest.raises(UsageError, match=line):
        run(tmp_path, "--include", "litert", *flags)


def test_without_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("litert_torch", "ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    write_small_checkpoint(tmp_path / "a.pt")
    with pytest.raises(UsageError, match=r"--include tflite: needs litert-torch and .*\(pip install litert-torch "):
        run(tmp_path, "--include", "tflite")
    (tmp_path / "b.tflite").write_bytes(b"")
    with pytest.raises(UserError, match=r"b\.tflite: needs LiteRT \(pip install ai-edge-litert\)"):
        load_backend(tmp_path / "b.tflite", CPU)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.tflite"]


@pytest.mark.slow
@needs_litert
def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    write_litert(fused(small_model()), tmp_path / "a.tflite", ExportSettings(FRAME))
    whole = (tmp_path / "a.tflite").read_bytes()
    for share in (0.0, 0.001, 0.5, 0.9):
        (tmp_path / "a.tflite").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match=r"a\.tflite: not a readable LiteRT model"):
            load_backend(tmp_path / "a.tflite", CPU)


def test_the_metadata_lie_behind_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    path.write_bytes(b"a graph" * 100)
    assert litert_metadata(path) == {}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("any name", "{'stride': 32, 'names': {0: 'ship'}}")
        archive.writestr("labels.txt", "ship")
    assert litert_metadata(path) == {"stride": 32, "names": {0: "ship"}}
    path.write_bytes(b"a graph" * 100)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("any name", "ship")
    with pytest.raises(UserError, match=r"a\.tflite: its metadata are not the Python literal of a mapping"):
        litert_metadata(path)


def test_numbers_in_eight_bits() -> None:
    """0.25 x (q - 2): what integers of YOLOv5's INT8 files stand for, and the integers nearest to numbers."""
    tensor = {"quantization": (0.25, 2), "dtype": np.uint8}
    values = np.array([-1.0, -0.5, 0.0, 0.3, 63.25, 99.0], np.float32)
    stored = stored_numbers(values, tensor)
    assert stored.dtype == np.dtype(np.uint8) and stored.tolist() == [0, 0, 2, 3, 255, 255]
    assert real_numbers(stored, tensor).tolist() == [-0.5, -0.5, 0.0, 0.25, 63.25, 63.25]
    plain = {"quantization": (0.0, 0), "dtype": np.float32}
    assert stored_numbers(values, plain).tolist() == real_numbers(values, plain).tolist() == values.tolist()

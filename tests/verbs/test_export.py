"""Exported files: what they answer at any size, what the graph holds, and that a wrong one is not left behind."""

from __future__ import annotations

import os
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
import torch

from models.fuse import fused
from models.head import Detect
from models.weights import checkpoint_fields, load_model
from models.yolo import DetectionModel, load_architecture, read_architecture
from tests.exporting.small_model import NAMES, STRIDE, write_small_checkpoint
from tests.shared_data import REPOSITORY
from tests.small_dataset import write_small_dataset
from utils.config.command_line import parse_command_line
from utils.config.export_flags import REFUSED_EXPORT_FLAGS, ExportConfig, flags_without_effect
from utils.exporting import formats
from utils.exporting.export_settings import EmbeddedSuppression, ExportSettings
from utils.exporting.formats import ExportFormat, Writer, check_formats, write_torchscript
from utils.exporting.onnx import opset_of, write_onnx
from utils.geometry.letterbox import FrameSize
from utils.inference.model_files import load_backend
from utils.inference.torch_backend import TorchBackend
from utils.runtime.console_log import run_verb
from utils.user_error import UsageError
from utils.verbs import export as export_run
from utils.verbs.export import export_model, format_table

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None or os.environ.get("ONEDNN_MAX_CPU_ISA") == "SSE41",
    reason="OpenVINO is not installed, or held to SSE4.1, for which it has no enlarging of maps ('bad combination')",
)
FRAME = FrameSize(64, 96)


@pytest.mark.parametrize("name", ["saved_model", "pb", "edgetpu", "tfjs", "paddle"])
def test_formats_of_others_are_refused_with_the_way_through_onnx(name: str) -> None:
    with pytest.raises(UsageError, match=f"--include {name}: .*export onnx and convert"):
        check_formats(["onnx", name])


def test_unknown_format_and_repeated_formats() -> None:
    with pytest.raises(UsageError, match="--include onx: no such format; known are torchscript, onnx, openvino, eng"):
        check_formats(["onx"])
    assert check_formats(["onnx", "torchscript", "onnx"]) == ("onnx", "torchscript")


def test_suppression_goes_into_onnx_only(tmp_path: Path) -> None:
    settings = ExportSettings(FRAME, suppression=EmbeddedSuppression())
    with pytest.raises(UsageError, match="--nms with --include torchscript"):
        export_model(tmp_path / "a.pt", ["onnx", "torchscript"], settings, CPU)


def test_only_checkpoints_are_exported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.onnx: only a \.pt file"):
        export_model(tmp_path / "a.onnx", ["onnx"], ExportSettings(FRAME), CPU)


def tampered_torchscript(model: DetectionModel, path: Path, settings: ExportSettings) -> None:
    """A writer that gets one weight of the head wrong."""
    assert isinstance(model.head, Detect)
    convolution = model.head.m[1]
    assert isinstance(convolution, torch.nn.Conv2d) and convolution.bias is not None
    convolution.bias[2] += 1
    write_torchscript(model, path, settings)


def tampered_onnx(model: DetectionModel, path: Path, settings: ExportSettings) -> None:
    """A writer whose graph multiplies one map by a little more than it should."""
    write_onnx(model, path, settings)
    graph = onnx.load(path)
    first = next(entry for entry in graph.graph.initializer if len(entry.dims) == 4)
    first.CopyFrom(onnx.numpy_helper.from_array(1.01 * onnx.numpy_helper.to_array(first), first.name))
    onnx.save(graph, path)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "write"), [("torchscript", tampered_torchscript), ("onnx", tampered_onnx)])
def test_wrong_file_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str, write: Writer
) -> None:
    """The whole verb: one line, exit code 1, nothing written; a file of an earlier run stays as it was."""
    monkeypatch.setitem(formats.FORMATS, form, ExportFormat(f".{form}", write))
    write_small_checkpoint(tmp_path / "a.pt")
    if form == "torchscript":
        (tmp_path / "a.torchscript").write_text("of an earlier run")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def verb() -> None:
        run(tmp_path, "--include", form, "--img", *FRAME)

    assert run_verb(verb) == 1
    error = capsys.readouterr().err
    assert re.match(rf"error: \S*a\.{form}: not written, it differs from PyTorch by \d", error)
    assert error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torchscript", "onnx", pytest.param("openvino", marks=needs_openvino)])
@pytest.mark.kernels
def test_file_of_free_size_gives_the_results_of_pytorch(tmp_path: Path, form: str) -> None:
    weights = write_small_checkpoint(tmp_path / "a.pt")
    (tmp_path / "a_openvino_model").mkdir()
    (tmp_path / "a_openvino_model" / "old.xml").write_text("of an earlier run")
    (file,) = files = export_model(weights, [form], ExportSettings(FRAME, dynamic=True, simplify=True), CPU)
    assert file.path.name == {"openvino": "a_openvino_model"}.get(form, f"a.{form}")
    assert len(format_table(files).splitlines()) == 2
    reference, backend = TorchBackend(load_model(weights), CPU), load_backend(file.path, CPU)
    assert (backend.names, backend.stride, backend.frame, backend.batch_size) == (NAMES, STRIDE, None, None)
    for shape in ((1, 3, 64, 96), (3, 3, 120, 32), (2, 3, 96, 224)):
        images = torch.rand(shape)
        found, expected = backend.predict(images), reference.predict(images)
        assert expected.objectness.std() > 0.2, "images must matter"
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=5e-3)
    assert (tmp_path / "a_openvino_model" / "old.xml").exists() == (form != "openvino")


@pytest.mark.slow
def test_file_of_fixed_size_says_so(tmp_path: Path) -> None:
    weights = write_small_checkpoint(tmp_path / "a.pt")
    for file in export_model(weights, ["torchscript", "onnx"], ExportSettings(FRAME, batch_size=2), CPU):
        backend = load_backend(file.path, CPU)
        assert (backend.frame, backend.batch_size) == (FRAME, 2)
        assert backend.predict(torch.rand(3, 3, *FRAME)).boxes.shape[0] == 3


@pytest.mark.slow
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.kernels
def test_embedded_suppression(tmp_path: Path, agnostic: bool) -> None:
    """``export_model`` itself compares the kept boxes with suppression outside; here: the file that it leaves."""
    weights = write_small_checkpoint(tmp_path / "a.pt")
    suppression = EmbeddedSuppression(0.3, 0.45, 20, 50, agnostic)
    (file,) = export_model(weights, ["onnx"], ExportSettings(FRAME, dynamic=True, suppression=suppression), CPU)
    assert file.path == tmp_path / "a_nms.onnx"
    found = load_backend(file.path, CPU).predict(torch.rand(2, 3, *FRAME))
    assert found.boxes.shape == (2, 50, 4)
    assert (found.objectness > 0.3).any(1).all()


def exported_nodes(name: str, folder: Path) -> Counter[str]:
    """How many nodes of each kind the exported graph of an architecture has; strided convolutions are a kind."""
    model = DetectionModel(load_architecture(name), class_count=3)
    write_onnx(fused(model), folder / "a.onnx", ExportSettings(FRAME))
    nodes = onnx.load(folder / "a.onnx").graph.node
    strides = [(node.op_type, a.ints) for node in nodes for a in node.attribute if a.name == "strides"]
    return Counter([node.op_type for node in nodes] + [f"strided {kind}" for kind, way in strides if max(way) > 1])


@pytest.mark.slow
def test_graph_moves_no_data_to_downsample(tmp_path: Path) -> None:
    """YOLOv5n-SPD's graph has node for node what YOLOv5n's has, which has no space-to-depth."""
    plain, spd = exported_nodes("yolov5n", tmp_path), exported_nodes("yolov5n-spd", tmp_path)
    assert spd == plain
    assert spd["SpaceToDepth"] == spd["BatchNormalization"] == 0
    assert spd["strided Conv"] == 7 and spd["strided MaxPool"] == 0
    # Slices: three of the head's decoding per level. Joins: four of the neck, SPPF, eight C3s, four of the decoding.
    assert (spd["Slice"], spd["Concat"]) == (9, 17)


@pytest.mark.slow
def test_graph_of_the_released_family_keeps_space_to_depth_only_before_joins(tmp_path: Path) -> None:
    """Space-to-depth by slices: four each for the two of the neck; none for the five of the backbone."""
    nodes = exported_nodes("yolov5n-spd-released", tmp_path)
    assert nodes["strided Conv"] == 1 + 2 * 4, "the stem, and two at the entrance of each C3 of the backbone"
    assert (nodes["Concat"], nodes["BatchNormalization"]) == (17 + 2, 0)


def run(folder: Path, *flags: object) -> list[export_run.ExportedFile]:
    words = ["--weights", folder / "a.pt", *flags]
    return export_run.export_detector(parse_command_line(ExportConfig, list(map(str, words)), prog="", description=""))


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--include", "tfjs"), "--include tfjs: not written here; export onnx"),
        (("--include", "onnx", "--opset", 11), r"a\.onnx: not written, --opset 11: this graph cannot"),
        (("--img", 64, 96, 128), "--imgsz 64 96 128"),
        (("--include", "torchscript", "--nms"), "--nms with --include torchscript"),
    ],
)
def test_wrong_usage_leaves_nothing(tmp_path: Path, flags: tuple[object, ...], line: str) -> None:
    write_small_checkpoint(tmp_path / "a.pt")
    with pytest.raises(UsageError, match=line):
        run(tmp_path, *flags)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.slow
@pytest.mark.parametrize("opset", [12, 13])
@pytest.mark.parametrize("flags", [(), ("--dynamic",), ("--simplify",)])
@pytest.mark.case("Export", "--opset 12 and 13, YOLOv5's", "the file is in that operator set, and equal to PyTorch")
def test_older_operator_sets(tmp_path: Path, opset: int, flags: tuple[str, ...]) -> None:
    write_small_checkpoint(tmp_path / "a.pt")
    (file,) = run(tmp_path, "--include", "onnx", "--opset", opset, "--img", *FRAME, *flags)
    graph = onnx.load(file.path)
    assert opset_of(graph) == opset
    assert graph.ir_version == 7, "as runtimes of its time take it"


@pytest.mark.slow
@pytest.mark.case("Export", "--opset 12 with --nms", "exit 2: “--nms --opset 12: suppression is written in”")
def test_suppression_needs_a_later_operator_set(tmp_path: Path) -> None:
    write_small_checkpoint(tmp_path / "a.pt")
    with pytest.raises(UsageError, match="--nms --opset 12: suppression is written in operator set 13 and later"):
        run(tmp_path, "--include", "onnx", "--opset", 12, "--img", *FRAME, "--nms")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.slow
def test_a_graph_that_needs_a_later_operator_set(tmp_path: Path) -> None:
    """Attention, which torch says to have converted to set 17 when it has not."""
    rows = (REPOSITORY / "tests" / "exporting" / "small-detector.yaml").read_text(encoding="utf-8")
    (tmp_path / "attention.yaml").write_text(rows.replace("SPPF, [32, 5]", "C3TR, [32]"), encoding="utf-8")
    model = DetectionModel(read_architecture(tmp_path / "attention.yaml"), names=("a", "b", "c")).eval()
    torch.save(checkpoint_fields(model), tmp_path / "a.pt")
    with pytest.raises(UsageError, match=r"a\.onnx: not written, --opset 17: this graph cannot be expressed in it"):
        run(tmp_path, "--include", "onnx", "--opset", 17, "--img", 64)
    (file,) = run(tmp_path, "--include", "onnx", "--img", 64)
    assert opset_of(onnx.load(file.path)) == 18


@pytest.mark.slow
def test_flags_reach_the_file(tmp_path: Path) -> None:
    """Checked on the images of a data set; suppression as the flags say."""
    write_small_checkpoint(tmp_path / "a.pt")
    dataset = write_small_dataset(tmp_path / "data")
    flags = ("--nms", "--conf", 0.7, "--topk-all", 30, "--topk-per-class", 2, "--data", dataset, "--batch", 2)
    (file,) = run(tmp_path, "--include", "onnx", "--img", 60, 90, "--simplify", *flags)
    backend = load_backend(file.path, CPU)
    assert (backend.frame, backend.batch_size) == (FRAME, 2), "rounded up to the stride"
    found = backend.predict(torch.rand(2, 3, *FRAME))
    kept = found.objectness > 0
    assert found.boxes.shape == (2, 30, 4) and kept.any()
    assert (found.objectness[kept] > 0.7).all()
    assert (found.class_probs * kept[..., None]).sum(1).max() <= 2


@pytest.mark.parametrize(
    ("flags", "sentences"),
    [
        (("--include", "onnx", "--opset", 18, "--simplify"), []),
        (("--include", "onnx", "--nms", "--topk-all", 7, "--conf", 0.5), []),
        (("--include", "onnx", "--topk-all", 7), ["--topk-all: changes nothing without --nms"]),
        (("--include", "onnx", "--workspace", 8), ["--workspace: changes nothing without --include engine"]),
        (("--include", "torchscript", "--simplify"), ["--simplify: changes nothing for torchscript"]),
        (("--include", "engine", "--workspace", 8, "--verbose"), []),
    ],
)
def test_flags_that_change_nothing_are_said(flags: tuple[object, ...], sentences: list[str]) -> None:
    config = parse_command_line(ExportConfig, list(map(str, flags)), prog="", description="")
    assert flags_without_effect(config) == sentences


@pytest.mark.parametrize("name", ["--optimize", "--keras", "--inplace"])
def test_flags_of_yolov5_that_mean_nothing_here_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"export.py: {name}: "):
        parse_command_line(ExportConfig, [name], prog="export.py", description="", refused=REFUSED_EXPORT_FLAGS)

"""FP16 and INT8 files: what they hold, how near they are, what they cost in AP, and when none is written."""

from __future__ import annotations

import shutil
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
import torch

from tests.dataset.images import small_dataset
from tests.exporting.small_model import write_small_checkpoint
from tests.small_dataset import write_small_dataset
from tests.verbs.test_export import CPU, FRAME, needs_openvino, run
from utils.dataset.detection_dataset import open_dataset
from utils.exporting.decoding_nodes import decoding_of_onnx, head_convolutions_of_onnx
from utils.exporting.export_settings import ExportSettings
from utils.exporting.quantization import Int8Data
from utils.inference.model_files import load_backend
from utils.user_error import UsageError, UserError
from utils.verbs import export as export_run
from utils.verbs.export import export_model, format_table

needs_nncf = pytest.mark.skipif(find_spec("nncf") is None, reason="NNCF is not installed")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--include", "onnx", "--int8"), "--int8 needs --data"),
        (("--include", "onnx", "--int8", "--half"), "--half with --int8"),
        (("--include", "torchscript", "--half"), "--half with --include torchscript: --half is for"),
        (("--include", "onnx", "--half", "--nms"), "--nms with --half or --int8"),
    ],
)
def test_wrong_usage_leaves_nothing(tmp_path: Path, flags: tuple[object, ...], line: str) -> None:
    write_small_checkpoint(tmp_path / "a.pt")
    with pytest.raises(UsageError, match=line):
        run(tmp_path, *flags)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.slow
def test_the_decoding_lies_behind_the_heads_convolutions(tmp_path: Path) -> None:
    (file,) = export_model(write_small_checkpoint(tmp_path / "a.pt"), ["onnx"], ExportSettings(FRAME), CPU)
    graph = onnx.load(file.path).graph
    kinds = {node.name: node.op_type for node in graph.node}
    decoding, convolutions = decoding_of_onnx(graph), head_convolutions_of_onnx(graph)
    assert {kinds[name] for name in convolutions} == {"Conv"}
    assert len(convolutions) == 2, "one for each level of the small model"
    assert "Sigmoid" in {kinds[name] for name in decoding} and "Conv" not in {kinds[name] for name in decoding}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", pytest.param("openvino", marks=needs_openvino)])
@pytest.mark.kernels
def test_half_precision_halves_the_file_and_stays_near(tmp_path: Path, form: str) -> None:
    weights = write_small_checkpoint(tmp_path / "a.pt")
    (whole,) = export_model(weights, [form], ExportSettings(FRAME), CPU)
    images = torch.rand(1, 3, *FRAME)
    expected = load_backend(whole.path, CPU).predict(images)
    (half,) = export_model(weights, [form], ExportSettings(FRAME, precision="fp16"), CPU)
    assert half.path.name == whole.path.name.replace("a", "a_fp16", 1) and whole.path.exists()
    assert half.megabytes < 0.8 * whole.megabytes
    found = load_backend(half.path, CPU).predict(images)
    assert 0 < (found.class_probs - expected.class_probs).abs().max() < 0.05
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0.02, atol=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", pytest.param("openvino", marks=(needs_openvino, needs_nncf))])
@pytest.mark.kernels
def test_int8_is_calibrated_and_judged_by_ap(tmp_path: Path, form: str) -> None:
    write_small_checkpoint(tmp_path / "a.pt")
    dataset = write_small_dataset(tmp_path / "data")
    (file,) = files = run(tmp_path, "--include", form, "--img", *FRAME, "--int8", "--data", dataset)
    assert file.path.name == {"onnx": "a_int8.onnx", "openvino": "a_int8_openvino_model"}[form]
    assert file.accuracy is not None and file.accuracy[0].ap - file.accuracy[1].ap <= 0.02
    before, after = file.accuracy
    row = format_table(files).splitlines()[-1].split()
    assert row[6:10] == [f"{x:.4f}" for x in (before.ap, after.ap, before.ap_small, after.ap_small)]
    found = load_backend(file.path, CPU).predict(torch.rand(1, 3, *FRAME))
    assert found.objectness.std() > 0.05
    if form == "onnx":
        graph = onnx.load(file.path).graph
        kinds = Counter(node.op_type for node in graph.node)
        assert kinds["QuantizeLinear"] >= kinds["Conv"] - 2 > 0, "all convolutions but the head's two"
        assert {"names", "stride", "imgsz", "pad_value"} <= {entry.key for entry in onnx.load(file.path).metadata_props}


@pytest.mark.slow
def test_int8_that_costs_too_much_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_run, "LARGEST_LOSS", -2.0)
    write_small_checkpoint(tmp_path / "a.pt")
    dataset = write_small_dataset(tmp_path / "data")
    with pytest.raises(UserError, match=r"a_int8\.onnx: not written, INT8 lowers AP"):
        run(tmp_path, "--include", "onnx", "--img", *FRAME, "--int8", "--data", dataset)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "data"]


@pytest.mark.slow
@pytest.mark.kernels
def test_opencv_gives_the_results_of_onnx_runtime(tmp_path: Path) -> None:
    weights = write_small_checkpoint(tmp_path / "a.pt")
    (file,) = export_model(weights, ["onnx"], ExportSettings(FRAME), CPU)
    ours, reference = load_backend(file.path, CPU, dnn=True), load_backend(file.path, CPU)
    assert (ours.names, ours.stride, ours.frame, ours.batch_size) == (reference.names, reference.stride, FRAME, 1)
    images = torch.rand(2, 3, *FRAME)
    for found, expected in zip(ours.predict(images), reference.predict(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=5e-3)


def test_opencv_reads_onnx_only(tmp_path: Path) -> None:
    weights = write_small_checkpoint(tmp_path / "a.pt")
    with pytest.raises(UsageError, match=r"--dnn --weights .*a\.pt: OpenCV's DNN module is for \.onnx"):
        load_backend(weights, CPU, dnn=True)
    (tmp_path / "b.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"b\.onnx: not an ONNX model that OpenCV can read"):
        load_backend(tmp_path / "b.onnx", CPU, dnn=True)


def test_int8_is_refused_where_nothing_can_judge_it(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path, 3)
    paths = tuple(dataset.index.paths[place] for place in range(3))
    data = Int8Data(paths, dataset)
    classes = len(dataset.names)
    data.check(classes, batch_size=3)
    with pytest.raises(UserError, match="--batch-size 4: the train part has 3 images"):
        data.check(classes, batch_size=4)
    with pytest.raises(UserError, match=f"names {classes} classes, but the model has 80"):
        data.check(80, batch_size=1)
    unlabelled = open_dataset([_without_labels(tmp_path)], dataset.names)
    with pytest.raises(UserError, match="no image of the val part has labels"):
        Int8Data(paths, unlabelled).check(classes, batch_size=1)


def _without_labels(folder: Path) -> Path:
    copy = folder / "elsewhere" / "images"
    shutil.copytree(folder / "images", copy)
    return copy

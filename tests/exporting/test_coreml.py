"""CoreML packages: what their program holds and answers, computed here without Apple's runtime, and what is refused."""

from __future__ import annotations

import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
from utils.exporting.coreml import opened_for_comparison, write_coreml
from utils.exporting.export_settings import ExportSettings
from utils.exporting.mil_program import OPERATIONS
from utils.inference.model_files import GraphBackend, load_backend
from utils.inference.torch_backend import TorchBackend
from utils.user_error import UsageError, UserError
from utils.verbs.export import format_table

needs_coremltools = pytest.mark.skipif(find_spec("coremltools") is None, reason="coremltools is not installed")


def opened(path: Path) -> GraphBackend:
    graph = opened_for_comparison(path)
    return GraphBackend(path, graph, graph.names)


def program_of(path: Path) -> tuple[list[Any], set[str]]:
    """The operations of a package, constants left out, and names of what those behind the last convolutions give."""
    import coremltools

    specification = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()
    (block,) = specification.mlProgram.functions["main"].block_specializations.values()
    steps = [step for step in block.operations if step.type != "const"]
    maker = {output.name: step for step in steps for output in step.outputs}
    behind, waiting = set(), list(block.outputs)
    while waiting:
        name = waiting.pop()
        if name in behind or name not in maker or maker[name].type == "conv":
            continue
        behind.add(name)
        waiting += [source.name for given in maker[name].inputs.values() for source in given.arguments]
    return steps, behind


@pytest.mark.slow
@pytest.mark.kernels
@needs_coremltools
def test_the_program_answers_as_pytorch(tmp_path: Path) -> None:
    import coremltools

    write_small_checkpoint(tmp_path / "a.pt")
    (whole,) = files = run(tmp_path, "--include", "coreml", "--img", *FRAME)
    (half,) = run(tmp_path, "--include", "coreml", "--img", *FRAME, "--half")
    assert (whole.path.name, half.path.name) == ("a.mlpackage", "a_fp16.mlpackage")
    assert half.megabytes < 0.8 * whole.megabytes
    assert format_table(files).splitlines()[-1].split()[5] == "-", "nothing was timed"
    images = torch.randint(0, 256, (1, 3, *FRAME)) / 255
    expected = TorchBackend(fused(small_model()), CPU).predict(images)
    for file, tolerance in ((whole, 1e-4), (half, 0.02)):
        backend = opened(file.path)
        assert (backend.names, backend.stride, backend.frame, backend.batch_size) == (NAMES, STRIDE, FRAME, 1)
        found = backend.predict(images)
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=200 * tolerance)
        torch.testing.assert_close(found.class_probs, expected.class_probs, rtol=0, atol=tolerance)

    package = coremltools.models.MLModel(str(whole.path), skip_model_load=True)
    assert {"names", "stride", "imgsz", "pad_value"} <= set(package.user_defined_metadata)
    (entry,), (output,) = package.get_spec().description.input, package.get_spec().description.output
    assert (entry.name, entry.type.imageType.height, entry.type.imageType.width) == ("image", *FRAME)
    assert (output.name, list(output.type.multiArrayType.shape)) == ("output0", [1, 1440, 8])
    with pytest.raises(UserError, match=r"a\.mlpackage: runs on Apple's devices only"):
        load_backend(whole.path, CPU)


@pytest.mark.slow
@needs_coremltools
def test_int8_weights_are_held_to_their_ap(tmp_path: Path) -> None:
    write_small_checkpoint(tmp_path / "a.pt")
    dataset = write_small_dataset(tmp_path / "data")
    (file,) = run(tmp_path, "--include", "coreml", "--img", *FRAME, "--int8", "--data", dataset)
    assert file.path.name == "a_int8.mlpackage" and file.accuracy is not None
    assert file.accuracy[0].ap - file.accuracy[1].ap <= 0.02
    kinds = Counter(step.type for step in program_of(file.path)[0])
    assert kinds["constexpr_affine_dequantize"] == 2, "of SPD-Conv: the only ones of more than 2048 weights"


@pytest.mark.slow
@needs_coremltools
@pytest.mark.parametrize("with_anchors", [True, False])
def test_downsampling_is_one_strided_convolution(tmp_path: Path, with_anchors: bool) -> None:
    """Nothing before the last convolution cuts, gathers, transposes or pads a map; with anchors and without."""
    content = yaml.safe_load((REPOSITORY / "tests" / "exporting" / "small-detector.yaml").read_text(encoding="utf-8"))
    if not with_anchors:
        del content["anchors"]
        content["head"][-1][2:] = ["AnchorFreeDetect", ["nc"]]
    model, path = DetectionModel(Architecture.from_dict(content, "small"), names=NAMES), tmp_path / "a.mlpackage"
    write_coreml(fused(model).eval(), path, ExportSettings(FRAME))
    steps, behind = program_of(path)
    before = Counter(step.type for step in steps if step.outputs[0].name not in behind)
    assert set(before) == {"conv", "silu", "add", "concat", "max_pool", "upsample_nearest_neighbor", "mul"}
    assert before["mul"] == 1, "of the image, from 0-255 to 0-1"
    images = torch.rand(1, 3, *FRAME)
    found, expected = opened(path).predict(images), TorchBackend(fused(model), CPU).predict(images)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=0.01)


@needs_coremltools
def test_what_the_format_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_checkpoint(tmp_path / "a.pt")
    with pytest.raises(UsageError, match="--dynamic with --include coreml: its files are of fixed size"):
        run(tmp_path, "--include", "coreml", "--dynamic")
    with pytest.raises(UsageError, match="--batch-size 2 with --include coreml: its files take one image"):
        run(tmp_path, "--include", "coreml", "--batch", 2)
    (tmp_path / "a.mlpackage").mkdir()
    (tmp_path / "a.mlpackage" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"a\.mlpackage: holds notes\.txt, which no export has written"):
        run(tmp_path, "--include", "coreml")


@pytest.mark.slow
@needs_coremltools
def test_a_program_that_cannot_be_computed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(OPERATIONS, "silu")
    write_small_checkpoint(tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.mlpackage: not written, its operations silu cannot be computed here"):
        run(tmp_path, "--include", "coreml", "--img", *FRAME)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    write_small_checkpoint(tmp_path / "a.pt")
    with pytest.raises(UsageError, match=r"--include coreml: needs coremltools \(pip install coremltools\)"):
        run(tmp_path, "--include", "coreml")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_integers_stand_for_weights() -> None:
    """Per channel 0.5 x (q - 1) and 2 x (q - 1); per tensor 0.5 x q."""
    integers = torch.tensor([[[[3]]], [[[-1]]]], dtype=torch.int8)
    given = {"quantized_data": integers, "scale": torch.tensor([0.5, 2.0]), "zero_point": torch.tensor(1), "axis": 0}
    dequantized = OPERATIONS["constexpr_affine_dequantize"]
    assert torch.equal(torch.as_tensor(dequantized(given)), torch.tensor([[[[1.0]]], [[[-4.0]]]]))
    given |= {"scale": torch.tensor(0.5), "zero_point": torch.tensor(0)}
    assert torch.equal(torch.as_tensor(dequantized(given)), torch.tensor([[[[1.5]]], [[[-0.5]]]]))

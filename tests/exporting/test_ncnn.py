"""ncnn folders: what they answer, what their graphs hold, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml

from models.fuse import fused
from models.weights import load_model
from models.yolo import DetectionModel, load_architecture
from tests.end_to_end.scripts import run_script
from tests.exporting.small_model import NAMES, STRIDE, small_model, write_small_checkpoint
from tests.models.test_fuse import disturb_norms
from tests.small_dataset import write_small_dataset
from tests.verbs.test_export import CPU, FRAME, run
from utils.exporting import formats
from utils.exporting.export_settings import ExportSettings
from utils.exporting.ncnn import layer_kinds, write_ncnn
from utils.exporting.verification import TOLERANCE, compare
from utils.inference.model_files import load_backend
from utils.inference.ncnn_runtime import NCNN_GRAPH, NCNN_METADATA, NCNN_WEIGHTS
from utils.inference.torch_backend import TorchBackend
from utils.user_error import UsageError, UserError
from utils.verbs.export import export_model

needs_ncnn = pytest.mark.skipif(
    find_spec("ncnn") is None or find_spec("pnnx") is None, reason="ncnn or pnnx is not installed"
)
# ncnn's layers that take maps apart or move places into channels; `Split` only names a map that several layers read.
MOVES_DATA = {"Slice", "Crop", "Reorg", "PixelShuffle", "ShuffleChannel", "Packing", "Fold", "Unfold", "Gather"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small detector's folder, and its checkpoint ``a.pt`` beside it."""
    weights = write_small_checkpoint(tmp_path_factory.mktemp("ncnn") / "a.pt")
    (file,) = export_model(weights, ["ncnn"], ExportSettings(FRAME), CPU)
    return file.path


def copied(folder: Path, to: Path) -> Path:
    copy = to / folder.name
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def raw_rows(folder: Path, images: torch.Tensor) -> torch.Tensor:
    found = load_backend(folder, CPU).predict(images)
    return torch.cat((found.boxes, found.objectness[..., None], found.class_probs), dim=2)


@needs_ncnn
@pytest.mark.slow
@pytest.mark.kernels
def test_a_folder_gives_the_results_of_pytorch_image_by_image(exported: Path) -> None:
    assert exported.name == "a_ncnn_model"
    assert {file.name for file in exported.iterdir()} == {NCNN_GRAPH, NCNN_WEIGHTS, NCNN_METADATA}
    metadata = yaml.safe_load((exported / NCNN_METADATA).read_text(encoding="utf-8"))
    assert metadata["pad_value"] == 114
    reference, backend = TorchBackend(load_model(exported.with_name("a.pt")), CPU), load_backend(exported, CPU)
    assert (backend.names, backend.stride, backend.frame, backend.batch_size) == (NAMES, STRIDE, FRAME, 1)
    images = torch.rand(3, 3, *FRAME).contiguous(memory_format=torch.channels_last)
    found, expected = backend.predict(images), reference.predict(images)
    assert expected.objectness.std() > 0.2, "images must matter"
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=5e-3)


@needs_ncnn
@pytest.mark.slow
@pytest.mark.kernels
def test_half_precision_halves_the_weights_and_stays_near(exported: Path, tmp_path: Path) -> None:
    weights = write_small_checkpoint(tmp_path / "a.pt")
    (half,) = export_model(weights, ["ncnn"], ExportSettings(FRAME, precision="fp16"), CPU)
    assert half.path.name == "a_fp16_ncnn_model"
    assert (half.path / NCNN_WEIGHTS).stat().st_size < 0.55 * (exported / NCNN_WEIGHTS).stat().st_size
    images = torch.rand(1, 3, *FRAME)
    difference = (raw_rows(half.path, images) - raw_rows(exported, images)).abs().amax((0, 1))
    assert 0 < difference[4:].max() < 0.05 and difference[:4].max() < 2


def written(name: str, folder: Path) -> tuple[str, DetectionModel]:
    """The graph of an architecture with other than fresh norms, written to ``folder``, and the model in one piece."""
    torch.manual_seed(0)
    model = DetectionModel(load_architecture(name), names=("a", "b", "c")).eval()
    disturb_norms(model)
    whole = fused(model).eval()
    write_ncnn(whole, folder, ExportSettings(FRAME_OF_ALL))
    return (folder / NCNN_GRAPH).read_text(encoding="utf-8"), whole


FRAME_OF_ALL = FRAME._replace(height=64, width=128)


@needs_ncnn
@pytest.mark.slow
@pytest.mark.kernels
@pytest.mark.parametrize(
    ("name", "stages"), [("yolov5n", 7), ("yolov5n-u", 7), ("yolov5n-p234", 6), ("yolov5n-small", 4)]
)
def test_space_to_depth_leaves_as_strided_convolutions(name: str, stages: int, tmp_path: Path) -> None:
    """Layer by layer the plain model's graph, both heads and other levels; nothing takes maps apart in either."""
    counts = []
    for each in (name, name.replace("yolov5n", "yolov5n-spd", 1)):
        folder = tmp_path / f"{each}_ncnn_model"
        graph, whole = written(each, folder)
        strided = [line for line in graph.splitlines() if line.startswith("Convolution") and " 3=2 " in line]
        counts.append(Counter(layer_kinds(graph)) + Counter(strided=len(strided)))
        assert counts[-1].keys().isdisjoint(MOVES_DATA)
        difference = compare(load_backend(folder, CPU), TorchBackend(whole, CPU), [torch.rand(1, 3, *FRAME_OF_ALL)])
        assert difference.within(TOLERANCE), difference
    assert counts[0] == counts[1] and counts[0]["strided"] == stages
    assert counts[0]["Permute"] == 1, "the columns of all levels are turned to rows at the end"


@needs_ncnn
@pytest.mark.slow
def test_space_to_depth_that_is_joined_with_another_map_is_made_of_convolutions(tmp_path: Path) -> None:
    """The released family's two in the neck: four phases each."""
    folder = tmp_path / "a_ncnn_model"
    graph, whole = written("yolov5n-spd-released", folder)
    counts = Counter(layer_kinds(graph))
    assert counts["ConvolutionDepthWise"] == 8 and counts.keys().isdisjoint(MOVES_DATA)
    difference = compare(load_backend(folder, CPU), TorchBackend(whole, CPU), [torch.rand(1, 3, *FRAME_OF_ALL)])
    assert difference.within(TOLERANCE), difference


@needs_ncnn
@pytest.mark.slow
def test_val_and_detect_open_a_folder(exported: Path, tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path / "data")
    side = ("--img", FRAME.width)  # of the frame, which the folder names
    common = ("--weights", exported, "--project", tmp_path, "--name", "run", "--exist-ok")
    run_script("val.py", *common, "--data", dataset, *side, "--batch", 3, "--workers", 0, folder=tmp_path)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["images"] == 8
    done = run_script("detect.py", *common, "--source", tmp_path / "data" / "images" / "val", *side, folder=tmp_path)
    assert "taking 64x96 px, the only size that the model file takes" in done.stdout + done.stderr
    assert len(list((tmp_path / "run").glob("0*.png"))) == 8


@needs_ncnn
@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--dynamic",), "--dynamic with --include ncnn: its files are of fixed size"),
        (("--batch", 2), "--batch-size 2 with --include ncnn: its files take one image"),
        (("--nms",), "--nms with --include ncnn: suppression can be embedded in onnx only"),
        (("--int8",), "--int8 with --include ncnn: --int8 is for onnx, openvino"),
    ],
)
def test_what_an_ncnn_file_cannot_be_is_one_line(tmp_path: Path, flags: tuple[object, ...], line: str) -> None:
    write_small_checkpoint(tmp_path / "a.pt")
    data = ("--data", write_small_dataset(tmp_path / "data")) if "--int8" in flags else ()
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=line):
        run(tmp_path, "--include", "ncnn", *flags, *data)
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("there", "line"),
    [
        ({"ncnn"}, r"--include ncnn: needs pnnx \(pip install pnnx\)"),
        (set(), r"--include ncnn: needs pnnx and ncnn \(pip install pnnx ncnn\)"),
    ],
)
@pytest.mark.case("Export", "--include ncnn without its packages", "exit 2: “needs pnnx and ncnn (pip install”")
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, there: set[str], line: str) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: object() if name in there else None)
    with pytest.raises(UsageError, match=line):
        formats.check_settings(["ncnn"], ExportSettings(FRAME), CPU)


@needs_ncnn
def test_a_layer_that_ncnn_does_not_know_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaves_a_slice(folder: Path, *_: str) -> None:
        (folder / NCNN_GRAPH).write_text("7767517\n1 1\nTensor.slice s 1 1 in0 out0 dims=(2,3)\n", encoding="utf-8")

    monkeypatch.setattr("utils.exporting.ncnn._run_pnnx", leaves_a_slice)
    with pytest.raises(UserError, match=r"ncnn has no layer for Tensor\.slice"):
        write_ncnn(fused(small_model()), tmp_path / "a_ncnn_model", ExportSettings(FRAME))
    assert not list(tmp_path.iterdir())


@needs_ncnn
def test_a_failure_of_pnnx_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pnnx.EXEC_PATH", "/bin/false")
    with pytest.raises(UserError, match=r"pnnx ended with code 1 \(no reason given\)"):
        write_ncnn(fused(small_model()), tmp_path / "a_ncnn_model", ExportSettings(FRAME))


@needs_ncnn
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        (NCNN_GRAPH, b"no graph", r"model\.ncnn\.param: not a graph that this ncnn \(.*\) can read"),
        (NCNN_WEIGHTS, b"\0" * 500, r"model\.ncnn\.bin: not the weights of model\.ncnn\.param"),
        (NCNN_WEIGHTS, None, r"model\.ncnn\.bin: missing; an ncnn export has it"),
        (NCNN_METADATA, b"stride: [", r"metadata\.yaml: not readable YAML"),
        (NCNN_METADATA, b"640", r"metadata\.yaml: holds no metadata of a model"),
        (NCNN_METADATA, b"imgsz: 640", r"metadata\.yaml: imgsz is 640; height and width of the graph's input"),
    ],
)
def test_a_damaged_folder_is_one_line(
    exported: Path, tmp_path: Path, name: str, content: bytes | None, line: str
) -> None:
    folder = copied(exported, tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=line):
        load_backend(folder, CPU)


def test_a_folder_without_the_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_ncnn_model").mkdir()
    monkeypatch.setattr("utils.inference.ncnn_runtime.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"a_ncnn_model: needs ncnn \(pip install ncnn\)"):
        load_backend(tmp_path / "a_ncnn_model", CPU)

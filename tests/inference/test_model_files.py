"""Model files in their runtimes: what they say of themselves, how batches reach them, what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest
import torch

from utils.geometry.letterbox import FrameSize
from utils.inference.model_files import GraphBackend, load_backend, suppressed_predictions
from utils.inference.runtime_graph import RuntimeGraph
from utils.user_error import UserError

CPU = torch.device("cpu")
# One place per image: a box of 10 x 20 px around (50, 60), objectness 0.5; the two class probabilities are the
# means of the image's red and green.
ONNX_DETECTOR = """<ir_version: 8, opset_import: ["" : 17]>
detector (float[{batch}, 3, {height}, {width}] images) => (float[{batch}, 1, 7] output0)
<float[1, 1, 5] box = {{50.0, 60.0, 10.0, 20.0, 0.5}}, int64[1] zero = {{0}}, int64[1] one = {{1}},
 int64[1] two = {{2}}, int64[3] ones = {{1, 1, 1}}>
{{
    means = ReduceMean <axes = [2, 3], keepdims = 0> (images)
    classes = Slice (means, zero, two, one)
    class_rows = Unsqueeze (classes, one)
    shape = Shape (images)
    batch_size = Slice (shape, zero, one)
    box_shape = Concat <axis = 0> (batch_size, one, one)
    boxes = Expand (box, box_shape)
    output0 = Concat <axis = 2> (boxes, class_rows)
}}"""


class TracedDetector(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        box = torch.tensor([50.0, 60.0, 10.0, 20.0, 0.5]).expand(images.shape[0], 1, 5)
        return torch.cat((box, images.mean((2, 3))[:, None, :2]), 2)


def write_onnx(path: Path, properties: Mapping[str, str], sides: tuple[object, object, object] = (1, 64, 96)) -> Path:
    batch, height, width = sides
    graph = onnx.parser.parse_model(ONNX_DETECTOR.format(batch=batch, height=height, width=width))
    onnx.helper.set_model_props(graph, dict(properties))
    onnx.save(graph, path)
    return path


def write_torchscript(path: Path, metadata: str) -> Path:
    traced = torch.jit.trace(TracedDetector(), torch.zeros(2, 3, 64, 96), check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(path), _extra_files={"config.txt": metadata})
    return path


def images(count: int) -> torch.Tensor:
    """Images (count, 3, 64, 96), red 0.1, 0.2, ..., green 0.9."""
    batch = torch.zeros(count, 3, 64, 96)
    batch[:, 0] = torch.arange(1, count + 1).view(-1, 1, 1) / 10
    batch[:, 1] = 0.9
    return batch


def test_onnx_metadata_and_rows(tmp_path: Path) -> None:
    backend = load_backend(write_onnx(tmp_path / "a.onnx", {"stride": "16", "names": "{0: 'a', 1: 'b'}"}), CPU)
    assert (backend.names, backend.stride, backend.frame, backend.batch_size) == (("a", "b"), 16, (64, 96), 1)
    found = backend.predict(images(3))  # the file takes one image at a time
    torch.testing.assert_close(found.boxes, torch.tensor([45.0, 50, 55, 70]).expand(3, 1, 4))
    torch.testing.assert_close(found.objectness, torch.full((3, 1), 0.5))
    torch.testing.assert_close(found.class_probs[:, 0], torch.tensor([[0.1, 0.9], [0.2, 0.9], [0.3, 0.9]]))


def test_onnx_of_free_size_takes_any(tmp_path: Path) -> None:
    backend = load_backend(write_onnx(tmp_path / "a.onnx", {"names": "['a', 'b']"}, ("b", "h", "w")), CPU)
    assert (backend.names, backend.stride, backend.frame, backend.batch_size) == (("a", "b"), 32, None, None)
    assert backend.predict(torch.rand(5, 3, 32, 32)).boxes.shape == (5, 1, 4)


@pytest.mark.filterwarnings("ignore")  # torch announces the end of TorchScript
def test_torchscript_metadata_and_rows(tmp_path: Path) -> None:
    text = json.dumps({"shape": [2, 3, 64, 96], "stride": 32, "names": {"1": "b", "0": "a"}})
    backend = load_backend(write_torchscript(tmp_path / "a.torchscript", text), CPU)
    assert (backend.names, backend.frame, backend.batch_size) == (("a", "b"), FrameSize(64, 96), 2)
    found = backend.predict(images(3))
    assert found.boxes.shape == (3, 1, 4)
    torch.testing.assert_close(found.class_probs[2, 0], torch.tensor([0.3, 0.9]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", ["{", "[1]", '{"shape": [1, 3, 640]}', '{"shape": [1, 3, "a", 640]}'])
def test_damaged_torchscript_metadata_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"a\.torchscript: its config\.txt is not the JSON of a detector"):
        load_backend(write_torchscript(tmp_path / "a.torchscript", text), CPU)


def test_names_come_from_elsewhere_only_if_the_file_has_none(tmp_path: Path) -> None:
    named = write_onnx(tmp_path / "named.onnx", {"names": "['a', 'b']"})
    bare = write_onnx(tmp_path / "bare.onnx", {})
    assert load_backend(named, CPU, fallback_names=lambda: ("x", "y")).names == ("a", "b")
    assert load_backend(bare, CPU, fallback_names=lambda: ("x", "y")).names == ("x", "y")
    unnamed = load_backend(bare, CPU)
    unnamed.predict(images(1))
    assert unnamed.names == ("class0", "class1")


def test_wrong_number_of_names_is_an_error(tmp_path: Path) -> None:
    backend = load_backend(write_onnx(tmp_path / "a.onnx", {"names": "['a', 'b', 'c']"}), CPU)
    with pytest.raises(UserError, match=r"a\.onnx: gives 2 classes, but 3 names"):
        backend.predict(images(1))


def test_wrong_image_size_is_an_error(tmp_path: Path) -> None:
    backend = load_backend(write_onnx(tmp_path / "a.onnx", {"names": "['a', 'b']"}), CPU)
    with pytest.raises(UserError, match=r"64x96 px .* not 96x64"):
        backend.predict(torch.zeros(1, 3, 96, 64))


@pytest.mark.parametrize("name", ["a.onnx", "a.torchscript", "a.weights", "a_openvino_model"])
def test_what_cannot_be_opened_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(UserError, match="no such model file"):
        load_backend(path, CPU)
    if name.endswith("_model"):
        path.mkdir()
    else:
        path.write_bytes(b"this is no model")
    with pytest.raises(UserError) as error:
        load_backend(path, CPU)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("names", ["__import__('os').getcwd()", "{0: 'a'", "7"])
def test_names_are_read_as_data_only(tmp_path: Path, names: str) -> None:
    with pytest.raises(UserError, match="class names in its metadata"):
        load_backend(write_onnx(tmp_path / "a.onnx", {"names": names}), CPU)


def test_incomplete_batch_is_filled_up_and_cut() -> None:
    seen: list[int] = []

    def run(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(len(batch))
        return {"output0": batch.mean((2, 3))[:, None, :1].expand(-1, 2, 6)}

    graph = RuntimeGraph(run, ("a",), 32, None, 4)
    found = GraphBackend(Path("a.onnx"), graph, graph.names).predict(images(6))
    assert seen == [4, 4]
    torch.testing.assert_close(found.objectness[:, 0], torch.arange(1, 7) / 10)


def test_suppressed_outputs_become_certain_predictions() -> None:
    outputs = {
        "boxes": torch.tensor([[[1.0, 2, 3, 4], [5, 6, 7, 8]]]),
        "scores": torch.tensor([[0.9, 0.4]]),
        "classes": torch.tensor([[2, 0]]),
        "counts": torch.tensor([1]),
    }
    found = suppressed_predictions(outputs, 3)
    torch.testing.assert_close(found.objectness, torch.tensor([[0.9, 0.0]]))  # beyond the count nothing is there
    torch.testing.assert_close(found.class_probs[0, 0], torch.tensor([0.0, 0.0, 1.0]))

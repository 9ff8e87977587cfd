"""Suppression in standard ONNX operators keeps what suppression outside of the graph keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from utils.exporting.export_settings import EmbeddedSuppression
from utils.exporting.onnx import embed_suppression
from utils.exporting.verification import compare_suppressed
from utils.inference.model_files import load_backend
from utils.inference.torch_backend import DetectionBackend

CPU = torch.device("cpu")
CLASSES = 3
# A "detector" whose input images hold the rows (B, N, 5 + C) themselves, as one channel of height N.
PASS_THROUGH = f"""<ir_version: 8, opset_import: ["" : 17]>
detector (float[b, 1, n, {5 + CLASSES}] images) => (float[b, n, {5 + CLASSES}] output0)
<int64[1] one = {{1}}> {{ output0 = Squeeze (images, one) }}"""


def backends(folder: Path, suppression: EmbeddedSuppression) -> tuple[DetectionBackend, DetectionBackend]:
    """The pass-through graph with suppression and without."""
    graph = onnx.parser.parse_model(PASS_THROUGH)
    onnx.helper.set_model_props(graph, {"stride": "32", "names": str(["a", "b", "c"])})
    onnx.save(graph, folder / "raw.onnx")
    embed_suppression(folder / "raw.onnx", folder / "suppressed.onnx", suppression)
    return load_backend(folder / "suppressed.onnx", CPU), load_backend(folder / "raw.onnx", CPU)


def random_rows(batch: int, places: int, seed: int) -> torch.Tensor:
    """Rows as images (B, 1, N, 5 + C): boxes of 10 to 60 px crowded in 200 px, so that many overlap."""
    rng = np.random.default_rng(seed)
    boxes = np.concatenate((rng.uniform(0, 200, (batch, places, 2)), rng.uniform(10, 60, (batch, places, 2))), axis=2)
    scores = rng.uniform(0, 1, (batch, places, 1 + CLASSES))
    return torch.from_numpy(np.concatenate((boxes, scores), axis=2).astype(np.float32))[:, None]


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize(("per_class", "all_classes"), [(100, 100), (5, 100), (100, 7), (1, 2)])
def test_keeps_what_suppression_outside_keeps(tmp_path: Path, agnostic: bool, per_class: int, all_classes: int) -> None:
    suppression = EmbeddedSuppression(0.3, 0.4, per_class, all_classes, agnostic)
    inside, outside = backends(tmp_path, suppression)
    inputs = [random_rows(3, 120, seed=1), random_rows(1, 1, seed=2), torch.zeros(2, 1, 9, 5 + CLASSES)]
    difference = compare_suppressed(inside, outside, suppression, inputs)
    assert difference.pixels < 1e-3 and difference.probability < 1e-6


def test_outputs_by_hand(tmp_path: Path) -> None:
    rows = torch.tensor(
        [
            [50.0, 60, 20, 40, 0.8, 0.5, 0.0, 0.0],  # class 0, score 0.4
            [50.0, 60, 20, 40, 1.0, 0.9, 0.5, 0.0],  # the same box: class 0 at 0.9, class 1 at 0.5
            [150.0, 60, 20, 40, 0.5, 0.0, 0.0, 0.4],  # class 2, score 0.2: below the threshold
        ]
    )
    inside, _ = backends(tmp_path, EmbeddedSuppression(0.25, 0.45, 10, 4, agnostic=False))
    found = inside.predict(rows[None, None])
    assert found.boxes.shape == (1, 4, 4)
    torch.testing.assert_close(found.objectness, torch.tensor([[0.9, 0.5, 0.0, 0.0]]))
    assert found.class_probs[0, :2].argmax(1).tolist() == [0, 1]
    torch.testing.assert_close(found.boxes[0, :2], torch.tensor([[40.0, 40, 60, 80]]).expand(2, 4))


def test_metadata_and_standard_operators(tmp_path: Path) -> None:
    inside, _ = backends(tmp_path, EmbeddedSuppression())
    assert inside.names == ("a", "b", "c")
    graph = onnx.load(tmp_path / "suppressed.onnx")
    assert [output.name for output in graph.graph.output] == ["boxes", "scores", "classes", "counts"]
    assert {node.domain for node in graph.graph.node} == {""}
    assert {entry.domain for entry in graph.opset_import} == {""}

"""The programs in ``examples`` find what this project's own pipeline finds, and need nothing of it."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from models.fuse import fused
from tests.end_to_end.scripts import environment
from tests.exporting.small_model import NAMES, small_model
from tests.shared_data import REPOSITORY
from utils.dataset.image_files import read_image
from utils.exporting.export_settings import EmbeddedSuppression, ExportSettings
from utils.exporting.formats import write_openvino
from utils.exporting.litert import write_litert
from utils.exporting.ncnn import write_ncnn
from utils.exporting.onnx import embed_suppression, write_onnx
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections
from utils.inference.model_files import load_backend
from utils.inference.nms import NmsSettings
from utils.inference.predictor import Predictor, PredictorSettings

CPU = torch.device("cpu")
FRAME = FrameSize(96, 128)
CONFIDENCE, IOU = 0.8, 0.45
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
needs_ncnn = pytest.mark.skipif(
    find_spec("ncnn") is None or find_spec("pnnx") is None, reason="ncnn or pnnx is not installed"
)
needs_litert = pytest.mark.skipif(
    find_spec("litert_torch") is None or find_spec("ai_edge_litert") is None, reason="LiteRT is not installed"
)
OURS = {"models", "utils", "classify", "benchmarks", "tests", "train", "val", "detect", "export", "hubconf"}


@pytest.mark.parametrize("program", EXAMPLES, ids=lambda path: path.name)
def test_a_program_is_short_and_stands_alone(program: Path) -> None:
    source = program.read_text(encoding="utf-8")
    assert source.count("\n") <= 80
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }
    assert "cv2" in imported and not imported & OURS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small detector of fixed and free size, with suppression, with older metadata; and two images."""
    folder = tmp_path_factory.mktemp("files")
    model, fixed = fused(small_model()).eval(), ExportSettings(FRAME)
    write_onnx(model, folder / "best.onnx", fixed)
    write_onnx(model, folder / "free.onnx", ExportSettings(FRAME, dynamic=True))
    embed_suppression(folder / "best.onnx", folder / "best_nms.onnx", EmbeddedSuppression(CONFIDENCE, IOU, 999, 999))
    older = onnx.load(folder / "best.onnx")
    onnx.helper.set_model_props(older, {"stride": "8", "names": str(dict(enumerate(NAMES)))})
    onnx.save(older, folder / "older.onnx")
    if find_spec("openvino") is not None:
        write_openvino(model, folder / "best_openvino_model", fixed)
        write_openvino(model, folder / "free_openvino_model", ExportSettings(FRAME, dynamic=True))
    if find_spec("ncnn") is not None and find_spec("pnnx") is not None:
        write_ncnn(model, folder / "best_ncnn_model", fixed)
    if find_spec("litert_torch") is not None:
        write_litert(model, folder / "best.tflite", fixed)
    images = REPOSITORY / "data" / "images"
    (folder / "wide.jpg").write_bytes((images / "harbour.jpg").read_bytes())
    cv2.imwrite(str(folder / "tall.png"), read_image(images / "villages.jpg")[:, 300:817, ::-1])
    return folder


def run_program(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(REPOSITORY / "examples" / program), *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)


def expected_in(image: Path, model: Path) -> Detections:
    """What ``detect.py`` finds with the same file."""
    nms = NmsSettings(CONFIDENCE, IOU, max_det=1000)
    (found,) = Predictor(load_backend(model, CPU), PredictorSettings(nms, FRAME), CPU)([read_image(image)])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("image", ["wide.jpg", "tall.png"])
@pytest.mark.parametrize(
    ("program", "model"),
    [
        ("detect_onnxruntime.py", "best.onnx"),
        ("detect_onnxruntime.py", "free.onnx"),
        ("detect_onnxruntime.py", "best_nms.onnx"),
        ("detect_opencv.py", "best.onnx"),
        pytest.param("detect_openvino.py", "best_openvino_model", marks=needs_openvino),
        pytest.param("detect_openvino.py", "free_openvino_model", marks=needs_openvino),
        pytest.param("detect_ncnn.py", "best_ncnn_model", marks=needs_ncnn),
        pytest.param("detect_litert.py", "best.tflite", marks=needs_litert),
    ],
)
def test_the_boxes_are_those_of_detect(program: str, model: str, image: str, files: Path) -> None:
    done = run_program(program, files / model, files / image, "--conf", CONFIDENCE, "--iou", IOU)
    assert done.returncode == 0, done.stderr
    lines = [line.rsplit(" ", 5) for line in done.stdout.splitlines()]
    found = np.array([line[1:] for line in lines], dtype=np.float64)
    expected = expected_in(files / image, files / model)
    assert 5 < len(expected.scores) < 300, "there is something to compare"
    assert [line[0] for line in lines] == [NAMES[kind] for kind in expected.classes.tolist()]
    np.testing.assert_allclose(found[:, 0], expected.scores, rtol=0, atol=0.01)
    np.testing.assert_allclose(found[:, 1:], expected.boxes, rtol=0, atol=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "model", "message"),
    [
        ("detect_onnxruntime.py", "older.onnx", "its metadata lack imgsz, pad_value; export it again"),
        ("detect_opencv.py", "best_nms.onnx", "has suppression inside; OpenCV needs an export without --nms"),
        ("detect_opencv.py", "free.onnx", "takes other than one image of fixed size; export it without --dynamic"),
    ],
)
def test_what_a_program_cannot_take_is_one_line(program: str, model: str, message: str, files: Path) -> None:
    done = run_program(program, files / model, files / "wide.jpg")
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1

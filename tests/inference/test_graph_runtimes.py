"""ONNX Runtime on the GPU that was asked for, or in a line why not; no GPU is needed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from utils.inference.graph_runtimes import open_onnx


def write_identity(path: Path) -> Path:
    """A graph that gives its images (1, 3, 4, 4) back."""
    images, output = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 4, 4)) for name in ("images", "out")
    )
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["out"])], "identity", [images], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"stride": "4", "names": "{0: 'ship'}"})
    onnx.save(model, str(path))
    return path


def test_a_cuda_provider_that_does_not_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in the package, but a library of CUDA is missing: the session then has the CPU's provider alone."""
    asked: list[Any] = []
    real = onnxruntime.InferenceSession

    def session(path: str, options: Any, providers: list[Any]) -> Any:
        asked.extend(providers)
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    path = write_identity(tmp_path / "a.onnx")
    with caplog.at_level(logging.WARNING):
        open_onnx(path, torch.device("cuda", 1))
    assert asked == [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: ONNX Runtime could not start its CUDA provider; runs on the CPU"
    ]


@pytest.mark.parametrize(("policy", "spins"), [("", "0"), ("passive", "0"), ("active", "1"), ("ACTIVE", "1")])
def test_threads_that_wait_leave_the_processor_unless_the_user_says_otherwise(
    policy: str, spins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[onnxruntime.SessionOptions] = []
    real = onnxruntime.InferenceSession

    def session(path: str, options: onnxruntime.SessionOptions, providers: list[Any]) -> Any:
        asked.append(options)
        return real(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    open_onnx(write_identity(tmp_path / "a.onnx"), torch.device("cpu"))
    assert asked[0].get_session_config_entry("session.intra_op.allow_spinning") == spins


def test_on_the_cpu_nothing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_onnx(write_identity(tmp_path / "a.onnx"), torch.device("cpu"))
    assert not caplog.records

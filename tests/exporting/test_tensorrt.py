"""TensorRT: refused where it cannot run; elsewhere the right graph, limits and tensors reach it (by a stand-in)."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from models.weights import load_model
from tests.exporting import stand_in_tensorrt
from tests.exporting.small_model import NAMES, STRIDE, write_small_checkpoint
from tests.verbs.test_export import CPU, FRAME, run
from utils.exporting import formats
from utils.exporting.export_settings import ExportSettings
from utils.inference import tensorrt_runtime
from utils.inference.model_files import load_backend
from utils.inference.torch_backend import TorchBackend
from utils.user_error import UsageError, UserError
from utils.verbs.export import export_model


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in in the place of the package, the CPU in the place of the GPU."""
    for module in (formats, tensorrt_runtime):
        monkeypatch.setattr(module, "tensorrt_module", lambda device: stand_in_tensorrt)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    stream = SimpleNamespace(cuda_stream=0, synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)


def test_refused_without_a_gpu(tmp_path: Path) -> None:
    write_small_checkpoint(tmp_path / "a.pt")
    with pytest.raises(UsageError, match="--include engine: TensorRT runs on NVIDIA GPUs only: it needs --device 0"):
        run(tmp_path, "--include", "onnx", "engine")
    (tmp_path / "b.engine").write_bytes(b"")
    with pytest.raises(UserError, match=r"b\.engine: TensorRT runs on NVIDIA GPUs only"):
        load_backend(tmp_path / "b.engine", CPU)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.engine"]


def test_refused_without_the_package_or_with_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_runtime, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"TensorRT is not installed \(pip install tensorrt\)"):
        tensorrt_runtime.tensorrt_module(torch.device("cuda", 0))
    monkeypatch.setattr(tensorrt_runtime, "find_spec", lambda name: "there")
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", SimpleNamespace(__version__="8.6.1"))
    with pytest.raises(UserError, match=r"TensorRT 8\.6\.1 is too old: it needs version 10"):
        tensorrt_runtime.tensorrt_module(torch.device("cuda", 0))


def test_int8_engines_are_refused(tmp_path: Path) -> None:
    settings = ExportSettings(FRAME, precision="int8")
    with pytest.raises(UsageError, match="--int8 with --include engine: --int8 is for onnx, openvino"):
        export_model(tmp_path / "a.pt", ["engine"], settings, CPU)


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.kernels
def test_engine_of_free_size_gives_the_results_of_pytorch(tmp_path: Path, precision: str) -> None:
    weights = write_small_checkpoint(tmp_path / "a.pt")
    settings = ExportSettings(FRAME, dynamic=True, workspace=2, precision="fp16" if precision == "fp16" else "fp32")
    (file,) = export_model(weights, ["engine"], settings, CPU)
    assert file.path == tmp_path / ("a_fp16.engine" if precision == "fp16" else "a.engine")
    config = stand_in_tensorrt.Builder.last_config
    assert config.pools == {stand_in_tensorrt.MemoryPoolType.WORKSPACE: 2 * 2**30}
    assert config.cleared == [stand_in_tensorrt.BuilderFlag.TF32]
    assert config.profile is not None
    assert config.profile.shapes == [[1, 3, STRIDE, STRIDE], [1, 3, 64, 96], [8, 3, 128, 192]]

    reference, backend = TorchBackend(load_model(weights), CPU), load_backend(file.path, CPU)
    assert (backend.names, backend.stride, backend.frame, backend.batch_size) == (NAMES, STRIDE, None, None)
    images = torch.rand(10, 3, 120, 32)  # more than the engine takes at once
    found, expected = backend.predict(images), reference.predict(images)
    tolerance = 0.02 if precision == "fp16" else 1e-4
    torch.testing.assert_close(found.class_probs, expected.class_probs, rtol=1e-3, atol=tolerance)
    assert (found.class_probs - expected.class_probs).abs().max() > (1e-5 if precision == "fp16" else -1)
    with pytest.raises(UserError, match=r"a\w*\.engine: was not made for an input of 1 x 3 x 256 x 96"):
        backend.predict(torch.rand(1, 3, 256, 96))


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
def test_engine_of_fixed_size_says_so(tmp_path: Path) -> None:
    weights = write_small_checkpoint(tmp_path / "a.pt")
    (file,) = export_model(weights, ["engine"], ExportSettings(FRAME, batch_size=2), CPU)
    assert stand_in_tensorrt.Builder.last_config.profile is None
    backend = load_backend(file.path, CPU)
    assert (backend.frame, backend.batch_size) == (FRAME, 2)
    assert backend.predict(torch.rand(3, 3, *FRAME)).boxes.shape[0] == 3


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("refuses_graphs", r"a\.engine: not written, TensorRT cannot read the graph \(unsupported operator\)"),
        ("builds_nothing", r"a\.engine: not written, TensorRT could not build an engine"),
    ],
)
def test_what_tensorrt_does_not_build_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, line: str
) -> None:
    monkeypatch.setattr(stand_in_tensorrt.Builder, fault, True)
    monkeypatch.setattr(formats, "write_onnx", lambda model, path, settings: path.write_bytes(b"a graph"))
    weights = write_small_checkpoint(tmp_path / "a.pt")
    with pytest.raises(UserError, match=line):
        export_model(weights, ["engine"], ExportSettings(FRAME), CPU)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.usefixtures("stand_in")
def test_what_is_no_engine_of_this_machine_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.engine").write_bytes(b"of another GPU")
    with pytest.raises(UserError, match=r"a\.engine: not an engine of this TensorRT \(10\.0\.0\) and this GPU"):
        load_backend(tmp_path / "a.engine", CPU)

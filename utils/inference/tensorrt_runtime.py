"""TensorRT engines, on CUDA.

An engine carries its metadata as JSON in its own name, so that it stays a plain plan file that ``trtexec`` and YOLOv5
open too. The interface is that of TensorRT 10 and later: tensors by name, networks strongly typed.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.inference.runtime_graph import RuntimeGraph, Tensors, described_graph, first_line
from utils.user_error import UserError

OLDEST = 10  # version; older ones name tensors by number


def tensorrt_module(device: torch.device) -> Any:
    """The ``tensorrt`` package, for work on ``device``.

    Raises:
        UserError: the device is no GPU, or the package is missing or too old.
    """
    if device.type != "cuda":
        raise UserError("TensorRT runs on NVIDIA GPUs only: it needs --device 0 and the tensorrt package")
    if find_spec("tensorrt") is None:
        raise UserError("TensorRT is not installed (pip install tensorrt)")
    import tensorrt

    if int(tensorrt.__version__.split(".")[0]) < OLDEST:
        raise UserError(f"TensorRT {tensorrt.__version__} is too old: it needs version {OLDEST} or later")
    return tensorrt


def engine_name(names: tuple[str, ...], stride: int) -> str:
    """The name that an engine gets: its metadata as JSON."""
    return json.dumps({"stride": stride, "names": dict(enumerate(names))})


def open_tensorrt(path: Path, device: torch.device) -> RuntimeGraph:
    """An engine on the GPU ``device``.

    Raises:
        UserError: no GPU, no TensorRT, or an engine that this version or GPU does not take.
    """
    try:
        tensorrt = tensorrt_module(device)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    with torch.cuda.device(device):
        runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        context = engine.create_execution_context() if engine is not None else None
    if context is None:
        raise UserError(f"{path}: not an engine of this TensorRT ({tensorrt.__version__}) and this GPU; export it here")
    tensors = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    entry = next(name for name in tensors if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT)
    types = {name: _torch_type(tensorrt.nptype(engine.get_tensor_dtype(name))) for name in tensors}

    def run(images: torch.Tensor) -> Tensors:
        images = images.to(device, types[entry]).contiguous()
        stream = torch.cuda.current_stream(device)
        if not context.set_input_shape(entry, tuple(images.shape)):
            shape = " x ".join(map(str, images.shape))
            raise UserError(f"{path}: was not made for an input of {shape}; export it with a larger --img")
        buffers = {
            name: torch.empty(tuple(context.get_tensor_shape(name)), dtype=types[name], device=device)
            for name in tensors
            if name != entry
        }
        for name, tensor in {entry: images, **buffers}.items():
            context.set_tensor_address(name, tensor.data_ptr())
        with torch.cuda.device(device):  # TensorRT launches on the current one, whatever the stream's is
            started = context.execute_async_v3(stream.cuda_stream)
        if not started:
            raise UserError(f"{path}: TensorRT could not run it")
        stream.synchronize()
        return buffers

    most_images, *_ = engine.get_tensor_profile_shape(entry, 0)[2]  # smallest, best, largest
    shape = [side if side > 0 else None for side in engine.get_tensor_shape(entry)]
    return described_graph(path, run, _metadata(path, engine.name), shape, most_images)


def _metadata(path: Path, name: str) -> dict[str, Any]:
    """What stands in the engine's name; nothing in one of another program."""
    if not name.startswith("{"):
        return {}
    try:
        content: dict[str, Any] = json.loads(name)
    except ValueError as error:
        raise UserError(f"{path}: metadata in its name is not JSON ({first_line(error)})") from None
    return content


def _torch_type(kind: Any) -> torch.dtype:
    return torch.from_numpy(np.empty(0, kind)).dtype

"""Exported files opened in their runtimes, which the end of the name says: TorchScript, ONNX, OpenVINO and others.

An ONNX model has its metadata in its properties, a TorchScript archive as JSON in the ``config.txt`` inside, OpenVINO
in the graph's runtime info or in a YAML file beside it.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.inference.litert_runtime import open_litert
from utils.inference.ncnn_runtime import NCNN_SUFFIX, open_ncnn
from utils.inference.runtime_graph import RuntimeGraph, Tensors, described_graph, first_line
from utils.inference.tensorrt_runtime import open_tensorrt
from utils.runtime.threads import others_may_spin
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

ON_CUDA = "CUDAExecutionProvider"
OPENVINO_SUFFIX = "_openvino_model"
READABLE = f".pt, .torchscript, .onnx, .engine, .tflite, *{OPENVINO_SUFFIX}, *{NCNN_SUFFIX}"  # .pt not by this module
COREML_SUFFIX = ".mlpackage"
TORCHSCRIPT_METADATA = "config.txt"
SUPPRESSED_OUTPUTS = {"boxes", "scores", "classes", "counts"}  # of a graph with suppression in it


def open_graph(
    weights: Path, device: torch.device, *, dnn: bool = False, precision: torch.dtype = torch.float32
) -> RuntimeGraph:
    """An exported file in its runtime.

    ``dnn`` and ``precision`` as in ``load_backend``.

    Raises:
        UserError: an ending that no runtime here reads, or a damaged file.
    """
    if weights.suffix == COREML_SUFFIX:
        raise UserError(f"{weights}: runs on Apple's devices only; take the .pt file, or an export that runs here")
    opener = open_onnx_in_opencv if dnn else _opener(weights, precision)
    if opener is None:
        raise UserError(f"{weights}: not a model file that can be run here; known endings are {READABLE}")
    return opener(weights, device)


def _opener(weights: Path, precision: torch.dtype) -> Callable[[Path, torch.device], RuntimeGraph] | None:
    if weights.is_dir():
        if weights.name.endswith(NCNN_SUFFIX):
            return open_ncnn
        return partial(open_openvino, precision=precision) if weights.name.endswith(OPENVINO_SUFFIX) else None
    by_ending = {
        ".torchscript": open_torchscript,
        ".onnx": open_onnx,
        ".engine": open_tensorrt,
        ".tflite": open_litert,
    }
    return by_ending.get(weights.suffix)


def open_torchscript(path: Path, device: torch.device) -> RuntimeGraph:
    """A TorchScript archive on ``device``.

    Raises:
        UserError: not readable, or with metadata that no detector writes.
    """
    extra = {TORCHSCRIPT_METADATA: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch announces the end of TorchScript
            module = torch.jit.load(str(path), device, extra)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not a readable TorchScript file ({first_line(error)})") from None
    module.eval()
    if len(module.forward.schema.arguments) != 2:  # itself and the images
        raise UserError(f"{path}: its forward takes other arguments than one batch of images")
    metadata, shape = _torchscript_metadata(path, extra[TORCHSCRIPT_METADATA])

    @torch.inference_mode()
    def run(images: torch.Tensor) -> Tensors:
        output = module(images.to(device))
        first = output[0] if isinstance(output, tuple | list) else output
        if not isinstance(first, torch.Tensor):
            raise UserError(f"{path}: gives a {type(first).__name__}, not the rows of a detector")
        return {"output0": first}

    return described_graph(path, run, metadata, [None] * 4 if metadata.get("dynamic", False) else shape)


def _torchscript_metadata(path: Path, text: str | bytes) -> tuple[dict[str, Any], list[int]]:
    """The JSON in an archive and the input shape (B, 3, H, W) that it names; 640 x 640 where it names none."""
    try:
        metadata = json.loads(text) if text else {}
        shape = [int(side) for side in metadata.get("shape") or (1, 3, 640, 640)]
        _, _, _, _ = shape
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{path}: its {TORCHSCRIPT_METADATA} is not the JSON of a detector") from None
    return metadata, shape


def open_onnx(path: Path, device: torch.device) -> RuntimeGraph:
    """An ONNX model in ONNX Runtime, on CUDA where ``device`` is one and the runtime has it.

    Raises:
        UserError: not readable.
    """
    import onnxruntime  # loads a large shared library
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(others_may_spin())))
    providers: list[str | tuple[str, dict[str, int]]] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if ON_CUDA in onnxruntime.get_available_providers():
            providers.insert(0, (ON_CUDA, {"device_id": device.index or 0}))
        else:
            LOGGER.warning("%s: this ONNX Runtime has no CUDA (pip install onnxruntime-gpu); runs on the CPU", path)
    elif device.type != "cpu":
        LOGGER.warning("%s: ONNX Runtime runs on the CPU", path)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except (
        states.Fail,
        states.InvalidArgument,
        states.InvalidProtobuf,
        states.InvalidGraph,
        states.NoSuchFile,
    ) as error:
        raise UserError(f"{path}: not a readable ONNX model ({first_line(error)})") from None
    if len(providers) > len(session.get_providers()):  # a library of CUDA was not found: ONNX Runtime goes on without
        LOGGER.warning("%s: ONNX Runtime could not start its CUDA provider; runs on the CPU", path)
    entry, *others = session.get_inputs()
    if others or entry.type not in ("tensor(float)", "tensor(float16)"):
        kinds = ", ".join(f"{one.name} {one.type}" for one in (entry, *others))
        raise UserError(f"{path}: its inputs are {kinds}; a detector takes one batch of images in float")
    outputs = [output.name for output in session.get_outputs()]
    half = entry.type == "tensor(float16)"

    def run(images: torch.Tensor) -> Tensors:
        array = images.cpu().numpy().astype(np.float16 if half else np.float32, copy=False)
        try:
            results = session.run(outputs, {entry.name: np.ascontiguousarray(array)})
        except states.InvalidArgument as error:
            raise UserError(f"{path}: takes no such images ({first_line(error)})") from None
        return {name: torch.from_numpy(result) for name, result in zip(outputs, results, strict=True)}

    described = described_graph(path, run, session.get_modelmeta().custom_metadata_map, entry.shape)
    return replace(described, suppresses=set(outputs) >= SUPPRESSED_OUTPUTS)


def open_onnx_in_opencv(path: Path, device: torch.device) -> RuntimeGraph:
    """An ONNX model in OpenCV's DNN module.

    Raises:
        UserError: not readable there, or with free sides.
    """
    import cv2
    import onnx  # for the metadata, which OpenCV does not give
    from google.protobuf.message import DecodeError

    if device.type != "cpu":
        LOGGER.warning("%s: OpenCV's DNN module runs on the CPU", path)
    try:
        graph = onnx.load(path)
        if _is_reduced(graph) or {output.name for output in graph.graph.output} >= SUPPRESSED_OUTPUTS:
            raise UserError(f"{path}: OpenCV's DNN module needs an export without --half, --int8 and --nms")
        network = cv2.dnn.readNetFromONNX(str(path))
    except (cv2.error, DecodeError) as error:
        raise UserError(f"{path}: not an ONNX model that OpenCV can read ({first_line(error)})") from None
    sides = graph.graph.input[0].type.tensor_type.shape.dim
    if not all(side.dim_value for side in sides):
        raise UserError(f"{path}: its input has free sides; OpenCV's DNN module needs an export without --dynamic")
    name = graph.graph.output[0].name
    properties = {entry.key: entry.value for entry in graph.metadata_props}

    def run(images: torch.Tensor) -> Tensors:
        network.setInput(np.ascontiguousarray(images.cpu().numpy()))
        return {name: torch.from_numpy(np.array(network.forward()))}

    return described_graph(path, run, properties, [side.dim_value for side in sides])


def _is_reduced(graph: Any) -> bool:
    """Whether an ONNX graph computes in fewer than 32 bits."""
    half = any(tensor.data_type == 10 for tensor in graph.graph.initializer)  # FLOAT16 in ONNX's list of types
    return half or any(node.op_type == "QuantizeLinear" for node in graph.graph.node)


def open_openvino(path: Path, device: torch.device, precision: torch.dtype = torch.float32) -> RuntimeGraph:
    """An OpenVINO folder on the CPU, computing in float32 or, where the file leaves it open, in bfloat16.

    Raises:
        UserError: not readable, or OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise UserError(f"{path}: needs OpenVINO (pip install openvino)") from None
    files = sorted(path.glob("*.xml"))
    if not files:
        raise UserError(f"{path}: holds no OpenVINO model (*.xml)")
    if not files[0].with_suffix(".bin").exists():
        raise UserError(f"{files[0].with_suffix('.bin')}: missing; it holds the weights of {files[0].name}")
    if device.type != "cpu":
        LOGGER.warning("%s: OpenVINO runs on the CPU", path)
    settings = {
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
        "INFERENCE_PRECISION_HINT": "bf16" if precision == torch.bfloat16 else "f32",
        "ENABLE_CPU_PINNING": "NO",  # every process pins to the same first cores: two of them would share one
    }
    try:
        model = openvino.Core().read_model(files[0])
        compiled = openvino.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise UserError(f"{files[0]}: not a readable OpenVINO model ({first_line(error)})") from None
    outputs = [output.get_any_name() if output.get_names() else f"output{i}" for i, output in enumerate(model.outputs)]

    def run(images: torch.Tensor) -> Tensors:
        # The images are read where they are; the outputs come as copies of the runtime's own memory.
        results = compiled([np.ascontiguousarray(images.cpu().numpy())], share_inputs=True, share_outputs=False)
        return {name: torch.from_numpy(results[i]) for i, name in enumerate(outputs)}

    sides = model.inputs[0].get_partial_shape()
    shape = [None if side.is_dynamic else side.get_length() for side in sides]
    return described_graph(path, run, _openvino_metadata(path, model), shape)


def _openvino_metadata(path: Path, model: Any) -> dict[str, object]:
    """What the model says of itself: its runtime info, or the YAML that YOLOv5 puts beside it."""
    metadata = {
        key: model.get_rt_info(["model_info", key]).astype(str)
        for key in ("names", "stride")
        if model.has_rt_info(["model_info", key])
    }
    if metadata:
        return metadata
    import yaml

    for file in sorted(path.glob("*.yaml")):
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError:
            raise UserError(f"{file}: not readable YAML") from None
        if isinstance(content, dict):
            return content
    return {}

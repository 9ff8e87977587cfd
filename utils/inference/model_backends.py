"""One face for every file a detector may come in: PyTorch checkpoint, TorchScript, ONNX, OpenVINO.

``load_backend`` picks the runtime by the file's name. An exported file says what it is in its metadata, under the
keys that YOLOv5 writes: ``stride`` and ``names`` in an ONNX model's properties, the same as JSON in the
``config.txt`` inside a TorchScript archive.
"""

from __future__ import annotations

import ast
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from models.fuse import fused
from models.weights import load_model
from models.yolo import DetectionModel
from utils.geometry.boxes import cxcywh_to_xyxy
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.runtime.device import placed
from utils.user_error import UsageError, UserError

LOGGER = logging.getLogger(__name__)

OPENVINO_SUFFIX = "_openvino_model"
TORCHSCRIPT_METADATA = "config.txt"
READABLE = f".pt, .torchscript, .onnx, *{OPENVINO_SUFFIX}"

Tensors = Mapping[str, torch.Tensor]


class DetectionBackend(Protocol):
    """A detector in some runtime."""

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, by class id."""

    @property
    def stride(self) -> int:
        """Sides of the input are multiples of this many pixels."""

    @property
    def frame(self) -> FrameSize | None:
        """The only input size that the file takes, or None if any multiple of the stride will do."""

    @property
    def batch_size(self) -> int | None:
        """The batch size that the file was made for, or None; ``predict`` takes any, in steps of this one."""

    def predict(self, images: torch.Tensor) -> Predictions:
        """Predictions, on the device of the images, for images (B, 3, H, W) float RGB 0-1.

        Raises:
            UserError: the file takes pictures of another size.
        """


def load_backend(
    weights: Path,
    device: torch.device,
    *,
    fallback_names: Callable[[], tuple[str, ...]] | None = None,
    dnn: bool = False,
) -> DetectionBackend:
    """The detector in ``weights``, ready to predict.

    Args:
        weights: a file or folder ending in one of ``READABLE``.
        device: where to compute; a runtime without this device falls back to the CPU and says so.
        fallback_names: called for the class names if the file has none; without it they are ``class0``, ...
        dnn: run an ONNX file in OpenCV's DNN module instead of ONNX Runtime.

    Raises:
        UserError: no such file, an ending that no runtime here reads, or a damaged file.
    """
    if not weights.exists():
        raise UserError(f"{weights}: no such model file")
    if dnn and weights.suffix != ".onnx":
        raise UsageError(f"--dnn --weights {weights}: OpenCV's DNN module is for .onnx files here")
    if weights.suffix == ".pt":
        return TorchBackend(fused(load_model(weights)), device)
    graph = open_graph(weights, device, dnn=dnn)
    names = graph.names or (fallback_names() if fallback_names else ())
    return GraphBackend(weights, graph, names)


def open_graph(weights: Path, device: torch.device, *, dnn: bool = False) -> RuntimeGraph:
    """An exported file in its runtime, see ``load_backend``.

    Raises:
        UserError: an ending that no runtime here reads, or a damaged file.
    """
    opener = _open_onnx_in_opencv if dnn else _opener(weights)
    if opener is None:
        raise UserError(f"{weights}: not a model file that can be run here; known endings are {READABLE}")
    return opener(weights, device)


class TorchBackend:
    """A PyTorch detector in evaluation mode on one device."""

    frame: FrameSize | None = None
    batch_size: int | None = None

    def __init__(self, model: DetectionModel, device: torch.device) -> None:
        placed(model.eval(), device)
        self.model = model
        self.device = device
        self.names = model.names
        self.stride = model.stride

    @torch.inference_mode()
    def predict(self, images: torch.Tensor) -> Predictions:
        """See ``DetectionBackend``; computed on the model's device in fp32."""
        predictions: Predictions = self.model.predict(images.contiguous(memory_format=torch.channels_last))
        return predictions


@dataclass(frozen=True, slots=True)
class RuntimeGraph:
    """An exported file opened in its runtime."""

    run: Callable[[torch.Tensor], Tensors]  # images (B, 3, H, W) to outputs by name
    names: tuple[str, ...]  # empty if the file has none
    stride: int
    frame: FrameSize | None
    batch_size: int | None


class GraphBackend:
    """An exported graph: raw rows ``output0`` (B, N, 5 + C), or suppressed ``boxes scores classes counts``."""

    def __init__(self, path: Path, graph: RuntimeGraph, names: tuple[str, ...]) -> None:
        self.path = path
        self.names = names
        self.stride = graph.stride
        self.frame = graph.frame
        self.batch_size = graph.batch_size
        self._run = graph.run

    def predict(self, images: torch.Tensor) -> Predictions:
        """See ``DetectionBackend``; an incomplete last batch is filled up with black pictures."""
        size = FrameSize(*images.shape[2:])
        if self.frame is not None and size != self.frame:
            raise UserError(
                f"{self.path}: takes pictures of {self.frame.height}x{self.frame.width} px (height x width), "
                f"not {size.height}x{size.width}"
            )
        step = self.batch_size or max(len(images), 1)
        parts = [self._predict_batch(part, step) for part in torch.split(images, step)]
        whole = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return Predictions(*(tensor.to(images.device, torch.float32) for tensor in whole))

    def _predict_batch(self, images: torch.Tensor, batch_size: int) -> Predictions:
        missing = batch_size - len(images)
        padded = torch.cat((images, images.new_zeros((missing, *images.shape[1:])))) if missing else images
        outputs = self._run(padded)
        if "counts" in outputs:
            self._name_classes(None)
            predictions = suppressed_predictions(outputs, len(self.names))
        else:
            rows = next(iter(outputs.values())).float()  # files in half precision are decoded in full
            self._name_classes(rows.shape[2] - 5)
            predictions = Predictions(cxcywh_to_xyxy(rows[..., :4]), rows[..., 4], rows[..., 5:])
        return Predictions(*(tensor[: len(images)] for tensor in predictions))

    def _name_classes(self, count: int | None) -> None:
        """Hold the names against the number of classes that the graph gives."""
        if not self.names and count is not None:
            self.names = tuple(f"class{i}" for i in range(count))
        if not self.names or (count is not None and len(self.names) != count):
            raise UserError(f"{self.path}: gives {count or 'unnamed'} classes, but {len(self.names)} names are known")


def suppressed_predictions(outputs: Tensors, class_count: int) -> Predictions:
    """Predictions (B, K) out of the outputs of a graph that suppresses by itself.

    Each detection becomes a prediction whose objectness is its score and whose one class is certain, so that a
    further suppression with the same settings keeps it as it is; empty places have the score 0.
    """
    classes = outputs["classes"].to(torch.int64).clamp(0, class_count - 1)
    certain = torch.nn.functional.one_hot(classes, class_count).to(torch.float32)
    place = torch.arange(classes.shape[1], device=classes.device)
    filled = place[None, :] < outputs["counts"].reshape(-1, 1)
    return Predictions(outputs["boxes"], outputs["scores"] * filled, certain)


def _opener(weights: Path) -> Callable[[Path, torch.device], RuntimeGraph] | None:
    if weights.suffix == ".torchscript":
        return _open_torchscript
    if weights.suffix == ".onnx":
        return _open_onnx
    if weights.is_dir() and weights.name.endswith(OPENVINO_SUFFIX):
        return _open_openvino
    return None


def _open_torchscript(path: Path, device: torch.device) -> RuntimeGraph:
    extra = {TORCHSCRIPT_METADATA: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch announces the end of TorchScript
            module = torch.jit.load(str(path), device, extra)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise UserError(f"{path}: not a readable TorchScript file ({_first_line(error)})") from None
    module.eval()
    metadata, shape = _torchscript_metadata(path, extra[TORCHSCRIPT_METADATA])
    fixed = not metadata.get("dynamic", False)

    @torch.inference_mode()
    def run(images: torch.Tensor) -> Tensors:
        output = module(images.to(device))
        return {"output0": output[0] if isinstance(output, tuple | list) else output}

    return RuntimeGraph(
        run=run,
        names=_names(path, metadata.get("names")),
        stride=_stride(path, metadata.get("stride")),
        frame=FrameSize(shape[2], shape[3]) if fixed else None,
        batch_size=shape[0] if fixed else None,
    )


def _torchscript_metadata(path: Path, text: str | bytes) -> tuple[dict[str, Any], list[int]]:
    """The JSON in an archive and the input shape (B, 3, H, W) that it names; 640 x 640 where it names none."""
    try:
        metadata = json.loads(text) if text else {}
        shape = [int(side) for side in metadata.get("shape") or (1, 3, 640, 640)]
        _, _, _, _ = shape
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{path}: its {TORCHSCRIPT_METADATA} is not the JSON of a detector") from None
    return metadata, shape


def _open_onnx(path: Path, device: torch.device) -> RuntimeGraph:
    import onnxruntime  # loads a large shared library
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        else:
            LOGGER.warning("%s: this ONNX Runtime has no CUDA (pip install onnxruntime-gpu); runs on the CPU", path)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except (
        states.Fail,
        states.InvalidArgument,
        states.InvalidProtobuf,
        states.InvalidGraph,
        states.NoSuchFile,
    ) as error:
        raise UserError(f"{path}: not a readable ONNX model ({_first_line(error)})") from None
    entry = session.get_inputs()[0]
    outputs = [output.name for output in session.get_outputs()]
    half = entry.type == "tensor(float16)"

    def run(images: torch.Tensor) -> Tensors:
        array = images.cpu().numpy().astype(np.float16 if half else np.float32, copy=False)
        results = session.run(outputs, {entry.name: np.ascontiguousarray(array)})
        return {name: torch.from_numpy(result) for name, result in zip(outputs, results, strict=True)}

    properties = session.get_modelmeta().custom_metadata_map
    batch_size, frame = _fixed_sizes(entry.shape)
    return RuntimeGraph(
        run=run,
        names=_names(path, properties.get("names")),
        stride=_stride(path, properties.get("stride")),
        frame=frame,
        batch_size=batch_size,
    )


def _open_onnx_in_opencv(path: Path, device: torch.device) -> RuntimeGraph:
    import cv2
    import onnx  # for the metadata, which OpenCV does not give
    from google.protobuf.message import DecodeError

    if device.type != "cpu":
        LOGGER.warning("%s: OpenCV's DNN module runs on the CPU", path)
    try:
        graph = onnx.load(path)
        network = cv2.dnn.readNetFromONNX(str(path))
    except (cv2.error, DecodeError) as error:
        raise UserError(f"{path}: not an ONNX model that OpenCV can read ({_first_line(error)})") from None
    sides = graph.graph.input[0].type.tensor_type.shape.dim
    batch_size, frame = _fixed_sizes([side.dim_value or side.dim_param for side in sides])
    if batch_size is None or frame is None:
        raise UserError(f"{path}: its input has free sides; OpenCV's DNN module needs an export without --dynamic")
    name = graph.graph.output[0].name
    properties = {entry.key: entry.value for entry in graph.metadata_props}

    def run(images: torch.Tensor) -> Tensors:
        network.setInput(np.ascontiguousarray(images.cpu().numpy()))
        return {name: torch.from_numpy(np.array(network.forward()))}

    return RuntimeGraph(
        run=run,
        names=_names(path, properties.get("names")),
        stride=_stride(path, properties.get("stride")),
        frame=frame,
        batch_size=batch_size,
    )


def _open_openvino(path: Path, device: torch.device) -> RuntimeGraph:
    try:
        import openvino
    except ImportError:
        raise UserError(f"{path}: needs OpenVINO (pip install openvino)") from None
    files = sorted(path.glob("*.xml"))
    if not files:
        raise UserError(f"{path}: holds no OpenVINO model (*.xml)")
    if device.type != "cpu":
        LOGGER.warning("%s: OpenVINO runs on the CPU", path)
    threads = {"INFERENCE_NUM_THREADS": str(torch.get_num_threads()), "INFERENCE_PRECISION_HINT": "f32"}
    try:
        model = openvino.Core().read_model(files[0])
        compiled = openvino.Core().compile_model(model, "CPU", threads)
    except RuntimeError as error:
        raise UserError(f"{files[0]}: not a readable OpenVINO model ({_first_line(error)})") from None
    outputs = [output.get_any_name() if output.get_names() else f"output{i}" for i, output in enumerate(model.outputs)]

    def run(images: torch.Tensor) -> Tensors:
        results = compiled([np.ascontiguousarray(images.cpu().numpy())])
        return {name: torch.from_numpy(np.array(results[i])) for i, name in enumerate(outputs)}

    shape = model.inputs[0].get_partial_shape()
    batch_size, frame = _fixed_sizes([None if side.is_dynamic else side.get_length() for side in shape])
    metadata = _openvino_metadata(path, model)
    return RuntimeGraph(
        run=run,
        names=_names(path, metadata.get("names")),
        stride=_stride(path, metadata.get("stride")),
        frame=frame,
        batch_size=batch_size,
    )


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


def _fixed_sizes(shape: list[object]) -> tuple[int | None, FrameSize | None]:
    """Batch size and frame out of an input shape (B, 3, H, W) whose free sides are no numbers."""
    batch, _, height, width = shape
    frame = FrameSize(height, width) if isinstance(height, int) and isinstance(width, int) else None
    return batch if isinstance(batch, int) else None, frame


def _names(path: Path, value: Any) -> tuple[str, ...]:
    """Class names out of a list, a mapping from ids, or the Python literal of either; empty if there are none."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise UserError(f"{path}: class names in its metadata are not readable: {value[:60]!r}") from None
    if isinstance(value, Mapping):
        value = [value[key] for key in sorted(value, key=int)]
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise UserError(f"{path}: class names in its metadata are not a list: {str(value)[:60]!r}")
    return tuple(str(name) for name in value)


def _stride(path: Path, value: object) -> int:
    if value is None:
        return 32  # every P5 model of the family
    try:
        return int(float(str(value)))
    except ValueError:
        raise UserError(f"{path}: stride in its metadata is not a number: {str(value)[:60]!r}") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]

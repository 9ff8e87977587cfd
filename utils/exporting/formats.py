"""The formats that are written here: their writers, what each can do, the way to the others, and the file's place."""

from __future__ import annotations

import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from models.yolo import DetectionModel
from utils.exporting.coreml import opened_for_comparison, quantize_coreml, write_coreml
from utils.exporting.export_settings import ExportSettings
from utils.exporting.graph_output import INPUT_NAME, ExportableModel, GraphOutput, file_metadata
from utils.exporting.litert import halve_litert, quantize_litert, write_litert
from utils.exporting.ncnn import write_ncnn
from utils.exporting.onnx import halve_onnx, write_onnx
from utils.exporting.quantization import quantize_onnx, quantize_openvino
from utils.inference.graph_runtimes import COREML_SUFFIX, OPENVINO_SUFFIX, TORCHSCRIPT_METADATA
from utils.inference.ncnn_runtime import NCNN_GRAPH, NCNN_SUFFIX, NCNN_WEIGHTS
from utils.inference.runtime_graph import RuntimeGraph
from utils.inference.tensorrt_runtime import engine_name, tensorrt_module
from utils.runtime.console_log import say_next
from utils.user_error import UsageError, UserError

LOGGER = logging.getLogger(__name__)

FEWEST_MOST_IMAGES = 8  # a free batch goes up to this, or to one more than --batch-size
# Ends of the names in a folder. The last of OpenVINO's is of its older converters, of ncnn's of YOLOv5's successors.
OPENVINO_FILES = (".xml", ".bin", ".yaml", ".mapping")
NCNN_FILES = (".param", ".bin", ".yaml", ".py")
COREML_FILES = ("Manifest.json", "Data")


def write_torchscript(model: ExportableModel, path: Path, settings: ExportSettings) -> None:
    """Write ``model`` (in evaluation mode) to ``path``; ``config.txt`` inside carries the shape and the metadata."""
    device = next(model.parameters()).device
    example = torch.zeros(settings.input_shape, device=device)
    with torch.no_grad(), warnings.catch_warnings():
        # torch announces the end of TorchScript at each call and warns of every shape read as a constant; whether the
        # graph is right at other shapes is measured afterwards.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(GraphOutput(model), example, check_trace=False)  # type: ignore[no-untyped-call]
        metadata = {
            "shape": list(settings.input_shape),
            "dynamic": settings.dynamic,
            **file_metadata(model, settings),
        }
        archive = io.BytesIO()  # on a full disk torch's own writer would end the program
        torch.jit.save(traced, archive, _extra_files={TORCHSCRIPT_METADATA: json.dumps(metadata)})
    path.write_bytes(archive.getvalue())


def write_openvino(model: ExportableModel, path: Path, settings: ExportSettings) -> None:
    """Write ``model`` (in evaluation mode) to the new folder ``path``, weights in fp32, by way of ONNX.

    The folder has the graph (``.xml``), the weights (``.bin``) and the metadata (``.yaml``).

    Raises:
        UserError: OpenVINO is not installed.
    """
    try:
        import openvino  # loads a large shared library
    except ImportError:
        raise UserError("it needs OpenVINO (pip install openvino)") from None

    path.mkdir()
    stem = path.name.removesuffix("_openvino_model")
    intermediate = path / f"{stem}.onnx"
    write_onnx(model, intermediate, replace(settings, suppression=None))
    openvino.save_model(openvino.convert_model(intermediate), path / f"{stem}.xml", compress_to_fp16=False)
    intermediate.unlink()
    metadata = file_metadata(model, settings)
    (path / f"{stem}.yaml").write_text(yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True), encoding="utf-8")


def halve_openvino(source: Path, target: Path) -> None:
    """Write an OpenVINO folder again, its weights in FP16, into the new folder ``target``."""
    import openvino

    (graph,) = source.glob("*.xml")
    target.mkdir()
    openvino.save_model(openvino.Core().read_model(graph), target / graph.name, compress_to_fp16=True)
    for metadata in source.glob("*.yaml"):
        (target / metadata.name).write_bytes(metadata.read_bytes())


def write_tensorrt(model: DetectionModel, path: Path, settings: ExportSettings) -> None:
    """Write ``model`` (in evaluation mode, on a GPU) to ``path`` as an engine in the precision of ``settings``.

    With free sides batches go from 1 to ``FEWEST_MOST_IMAGES`` or more, height and width from one stride to twice
    the frame.

    Raises:
        UserError: no GPU, no TensorRT, or a graph that it cannot build.
    """
    device = next(model.parameters()).device
    tensorrt = tensorrt_module(device)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx.") as folder, torch.cuda.device(device):
        graph = Path(folder) / "whole.onnx"
        write_onnx(model, graph, settings)
        if settings.precision == "fp16":
            whole, graph = graph, Path(folder) / "half.onnx"
            halve_onnx(whole, graph)
        engine = _built_engine(tensorrt, graph, settings, model)
    path.write_bytes(engine)


def _built_engine(tensorrt: Any, graph: Path, settings: ExportSettings, model: DetectionModel) -> bytes:
    """The engine of an ONNX file; each tensor keeps the type that it has there."""
    logger = tensorrt.Logger(tensorrt.Logger.VERBOSE if settings.verbose else tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        problem = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise UserError(f"TensorRT cannot read the graph ({problem})")
    network.name = engine_name(model.names, model.stride)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, settings.workspace << 30)
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # its ten bits of mantissa are not the fp32 that was asked for
    if settings.dynamic:
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT_NAME, *profile_shapes(settings, model.stride))
        config.add_optimization_profile(profile)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise UserError("TensorRT could not build an engine; --verbose shows why")
    return bytes(serialized)


def profile_shapes(settings: ExportSettings, stride: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Smallest, best and largest input (B, 3, H, W) of an engine with free sides."""
    height, width = settings.frame
    most = max(settings.batch_size + 1, FEWEST_MOST_IMAGES)
    return (1, 3, stride, stride), settings.input_shape, (most, 3, 2 * height, 2 * width)


Writer = Callable[[DetectionModel, Path, ExportSettings], None]
Halver = Callable[[Path, Path], None]
Quantizer = Callable[[Path, Path, Iterator[np.ndarray]], None]


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format that is written here: the end of the file's name and the functions that write it."""

    ending: str
    write: Writer
    halve: Halver | None = None  # from the fp32 file
    quantize: Quantizer | None = None  # from the fp32 file
    writes_half: bool = False  # the writer itself gives the precision of its settings
    can_be_free: bool = True  # batch, height and width, with --dynamic
    one_image: bool = False  # at a time, whatever --batch-size
    needs: tuple[str, ...] = ()  # packages that are no part of the requirements, as pip calls them
    files: tuple[str, ...] = ()  # endings of what is in it, where it is a folder
    separator: str = "_"  # in the file's name, before its precision
    open_elsewhere: Callable[[Path], RuntimeGraph] | None = None  # where its runtime is not: for the check alone

    @property
    def can_halve(self) -> bool:
        return self.halve is not None or self.writes_half


FORMATS = {
    "torchscript": ExportFormat(".torchscript", write_torchscript),
    "onnx": ExportFormat(".onnx", write_onnx, halve_onnx, quantize_onnx),
    "openvino": ExportFormat(OPENVINO_SUFFIX, write_openvino, halve_openvino, quantize_openvino, files=OPENVINO_FILES),
    "engine": ExportFormat(".engine", write_tensorrt, writes_half=True),
    "ncnn": ExportFormat(
        NCNN_SUFFIX,
        write_ncnn,
        writes_half=True,
        can_be_free=False,
        one_image=True,
        needs=("pnnx", "ncnn"),
        files=NCNN_FILES,
    ),
    "tflite": ExportFormat(
        ".tflite",
        write_litert,
        halve_litert,
        quantize_litert,
        can_be_free=False,
        needs=("litert-torch", "ai-edge-quantizer", "ai-edge-litert"),
        separator="-",
    ),
    "coreml": ExportFormat(
        COREML_SUFFIX,
        write_coreml,
        quantize=quantize_coreml,
        writes_half=True,
        can_be_free=False,
        one_image=True,
        needs=("coremltools",),
        files=COREML_FILES,
        open_elsewhere=opened_for_comparison,
    ),
}
ALSO_CALLED = {"litert": "tflite"}

# A line of Python that opens the file in its runtime.
OPENED = {
    "torchscript": "import torch; model = torch.jit.load({!r})",
    "onnx": "import onnxruntime; model = onnxruntime.InferenceSession({!r})",
    # Where it may choose, it computes in bfloat16 on some processors.
    "openvino": 'import openvino; model = openvino.compile_model({!r}, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})',
    "engine": "import tensorrt; "
    'model = tensorrt.Runtime(tensorrt.Logger()).deserialize_cuda_engine(open({!r}, "rb").read())',
    "ncnn": f"import ncnn; model = ncnn.Net(); model.load_param({{0!r}} + '/{NCNN_GRAPH}'); "
    f"model.load_model({{0!r}} + '/{NCNN_WEIGHTS}')",
    "coreml": "import coremltools; model = coremltools.models.MLModel({!r})",
    "tflite": "from ai_edge_litert.interpreter import Interpreter; model = Interpreter({!r})",
}

# Formats of YOLOv5 that are not written here, and the program that makes each from ONNX.
THROUGH_ONNX = {
    "saved_model": "onnx2tf",
    "pb": "onnx2tf",
    "edgetpu": "onnx2tf, then edgetpu_compiler",
    "tfjs": "onnx2tf, then tensorflowjs_converter",
    "paddle": "x2paddle",
}


def check_formats(names: Sequence[str]) -> tuple[str, ...]:
    """The formats asked for, each once, by their first names.

    Raises:
        UsageError: a format that is not written here; names the way to it.
    """
    names = [ALSO_CALLED.get(name, name) for name in names]
    for name in names:
        if name in THROUGH_ONNX:
            raise UsageError(f"--include {name}: not written here; export onnx and convert it: {THROUGH_ONNX[name]}")
        if name not in FORMATS:
            raise UsageError(f"--include {name}: no such format; known are {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(names))


def check_settings(names: Sequence[str], settings: ExportSettings, device: torch.device) -> None:
    """Hold the settings against what the formats ``names`` can do.

    Raises:
        UsageError: one of them cannot be had.
    """
    if settings.suppression is not None and (unable := [name for name in names if name != "onnx"]):
        raise UsageError(f"--nms with --include {unable[0]}: suppression can be embedded in onnx only")
    if settings.precision != "fp32" and settings.suppression is not None:
        raise UsageError("--nms with --half or --int8: suppression is embedded in fp32 graphs only")
    if settings.precision == "fp16" and (unable := [name for name in names if not FORMATS[name].can_halve]):
        able = ", ".join(name for name, chosen in FORMATS.items() if chosen.can_halve)
        raise UsageError(f"--half with --include {unable[0]}: --half is for {able}")
    if settings.precision == "int8" and (unable := [name for name in names if FORMATS[name].quantize is None]):
        able = ", ".join(name for name, chosen in FORMATS.items() if chosen.quantize is not None)
        raise UsageError(f"--int8 with --include {unable[0]}: --int8 is for {able}")
    if settings.dynamic and (unable := [name for name in names if not FORMATS[name].can_be_free]):
        raise UsageError(f"--dynamic with --include {unable[0]}: its files are of fixed size")
    if settings.batch_size > 1 and (unable := [name for name in names if FORMATS[name].one_image]):
        raise UsageError(f"--batch-size {settings.batch_size} with --include {unable[0]}: its files take one image")
    for name in names:
        _check_packages(name)
    if "engine" in names:
        try:
            tensorrt_module(device)
        except UserError as error:
            raise UsageError(f"--include engine: {error}") from None


def _check_packages(name: str) -> None:
    missing = [package for package in FORMATS[name].needs if find_spec(package.replace("-", "_")) is None]
    if missing:
        raise UsageError(f"--include {name}: needs {' and '.join(missing)} (pip install {' '.join(missing)})")


def file_beside(weights: Path, name: str, settings: ExportSettings) -> Path:
    """Where the export of ``weights`` in the format ``name`` goes: ``best_fp16.onnx`` for ``best.pt`` in FP16."""
    chosen = FORMATS[name]
    return weights.with_name(weights.stem + settings.name_ending.replace("_", chosen.separator) + chosen.ending)


def say_how_to_open(files: Sequence[tuple[str, Path]]) -> None:
    """Format and path of each file that was written: a line of Python for it in the log."""
    lines = []
    for name, path in files:
        graph = path / f"{path.name.removesuffix(OPENVINO_SUFFIX)}.xml" if name == "openvino" else path
        lines.append(OPENED[name].format(str(graph)))
    say_next(*lines, title="in Python")


@contextmanager
def folder_beside(final: Path) -> Iterator[Path]:
    """A folder on the file system of ``final`` to make the export in; it goes when the block ends.

    Raises:
        UserError: the block's own, naming ``final``; it cannot be written there, or stands where something else is.
    """
    _check_place(final)
    try:
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{final.name}.") as name:
            try:
                yield Path(name)
            except UserError as error:
                raise type(error)(f"{final}: not written, {error}".replace(f"{name}/", "")) from None
    except OSError as error:
        raise UserError(f"{final}: not written, {error.strerror or error}") from error


def put_in_place(fresh: Path, final: Path) -> None:
    """Give ``fresh``, in a folder of `folder_beside`, its final name; an older export makes room, which is said."""
    if final.exists():
        LOGGER.info("%s: replaces an earlier export", final)
    if final.is_dir():
        final.replace(fresh.with_name(f"older-{final.name}"))  # goes with the folder that it is now in
    fresh.replace(final)


def _check_place(final: Path) -> None:
    """Refuse a place that holds what no export has written."""
    endings = next((one.files for one in FORMATS.values() if one.files and final.name.endswith(one.ending)), ())
    if final.is_dir() and not endings:
        raise UserError(f"{final}: is a folder; the export would be a file of that name")
    if endings and final.exists():
        if not final.is_dir():
            raise UserError(f"{final}: is a file; the export would be a folder of that name")
        foreign = [path.name for path in sorted(final.iterdir()) if not path.name.endswith(endings)]
        if foreign:
            raise UserError(f"{final}: holds {foreign[0]}, which no export has written; move it away first")

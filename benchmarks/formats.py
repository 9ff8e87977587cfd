"""Every form of one detector on the same images in one run: difference, size, latency, AP, AP_S, operations.

The exported forms are those of the registry ``FORMATS``. With ``--cfg`` the detector as it was before the conversion is
exported too, and its files take turns with the others.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.format_operations import COUNTERS, beside, convolutions, moving
from benchmarks.measuring import Table
from models.common import SPD, Focus, SPDConv
from models.fuse import fused, spd_before_c3
from models.transfer import transfer_weights
from models.weights import checkpoint_fields, load_model, read_weights
from models.yolo import DetectionModel, load_architecture, zero_images
from utils.config.dataset_file import find_dataset_yaml
from utils.config.dataset_yaml import read_dataset_yaml
from utils.config.weights_by_name import find_weights
from utils.dataset.image_files import read_image
from utils.exporting.export_settings import ExportPrecision, ExportSettings
from utils.exporting.formats import FORMATS, file_beside
from utils.exporting.quantization import Accuracy, Int8Data
from utils.exporting.verification import Difference, size_in_megabytes
from utils.geometry.letterbox import FrameSize, letterbox
from utils.geometry.records import Predictions
from utils.inference.detector import OpenedDetector
from utils.inference.model_files import load_backend
from utils.inference.predictor import as_network_input
from utils.inference.torch_backend import DetectionBackend, TorchBackend
from utils.runtime.device import cpu_has_bf16
from utils.runtime.reused_memory import reuse_freed_memory
from utils.user_error import UserError
from utils.verbs.export import export_model

CPU = torch.device("cpu")
Seconds = dict[str, list[float]]  # per round, by form
CALLS_IN_TURN = 3  # after one that does not count: it finds the caches and the thread pools of the form before it
LAYER_REPEATS = 100  # of measuring which form of a layer is faster
CALIBRATION_BATCHES = 4  # of INT8 where only its latency is asked for
PYTORCH = "PyTorch, BN folded, strided"
KEPT = "PyTorch, BN folded, space-to-depth kept"
CHOSEN = "PyTorch, BN folded, chosen per layer"
EAGER = "PyTorch eager, default memory order"  # as a model runs that is loaded and called, and nothing else
UNFUSED = "PyTorch, unfused"  # channels last, as all forms of ours
OPENVINO = "OpenVINO"
TITLES = {
    "torchscript": "TorchScript",
    "onnx": "ONNX Runtime",
    "openvino": OPENVINO,
    "engine": "TensorRT",
    "ncnn": "ncnn",
    "tflite": "LiteRT",
    "coreml": "CoreML",
}
PRECISIONS: dict[ExportPrecision, str] = {"fp32": "", "fp16": ", FP16 weights", "int8": ", INT8"}
EXPORTED: dict[str, tuple[str, ExportPrecision]] = {
    TITLES[kind] + ending: (kind, precision)
    for kind, chosen in FORMATS.items()
    for precision, ending in PRECISIONS.items()
    if precision == "fp32" or (chosen.can_halve if precision == "fp16" else chosen.quantize is not None)
}
OF_PLAIN = " of the detector before its conversion"
COMPARED = {  # each within its rounds
    "BN folding": (PYTORCH, UNFUSED),
    "strided where it is faster, over space-to-depth kept": (CHOSEN, KEPT),
    "strided everywhere, over space-to-depth kept": (PYTORCH, KEPT),
    "OpenVINO fp32, over PyTorch folded and strided": (OPENVINO, PYTORCH),
    "OpenVINO fp32, over PyTorch unfused": (OPENVINO, UNFUSED),
    "OpenVINO fp32, over PyTorch eager in its default memory order": (OPENVINO, EAGER),
    "PyTorch folded and strided, over PyTorch eager in its default memory order": (PYTORCH, EAGER),
}


@dataclass(frozen=True, slots=True)
class Form:
    """The detector in one runtime."""

    name: str
    open: Callable[[], DetectionBackend]  # with as many threads as torch has at that moment
    megabytes: float  # of the file
    accuracy: Accuracy | None = None  # where making the file has measured it
    difference: Difference | None = None  # from PyTorch, where making the file has measured it


@dataclass(frozen=True, slots=True)
class Exports:
    """What the files are made from and where they go."""

    weights: Path
    settings: ExportSettings
    data: Int8Data
    latency_only: bool
    only: Sequence[str]  # of the registry's formats

    def form(self, name: str, kind: str, precision: ExportPrecision) -> Form | str:
        """The file of one format; or why it is not there."""
        place, accuracy, difference = self.place(kind, precision), None, None
        quantize = FORMATS[kind].quantize
        if precision == "int8" and self.latency_only and quantize is not None and self.place(kind).exists():
            batches = itertools.islice(self.data.batches(self.settings), CALIBRATION_BATCHES)
            quantize(self.place(kind), place, batches)
        else:
            settings = replace(self.settings, precision=precision)
            try:
                (file,) = export_model(self.weights, [kind], settings, CPU, (), self.data)
            except UserError as error:
                return f"{name}: {error}"
            accuracy, difference = file.accuracy[1] if file.accuracy else None, file.difference
        opened = partial(load_backend, place, CPU)
        return Form(name, opened, size_in_megabytes(place), accuracy, difference)

    def place(self, kind: str, precision: ExportPrecision = "fp32") -> Path:
        return file_beside(self.weights, kind, replace(self.settings, precision=precision))

    def forms(self) -> Iterator[Form | str]:
        """The files that are made here, and the further ways to run them."""
        for name, (kind, precision) in EXPORTED.items():
            if kind in self.only:
                yield self.form(name, kind, precision)
        onnx, openvino = self.place("onnx"), self.place("openvino")
        if onnx.is_file():
            in_opencv = partial(load_backend, onnx, CPU, dnn=True)
            yield Form("ONNX in OpenCV's DNN module", in_opencv, size_in_megabytes(onnx))
        if openvino.exists() and cpu_has_bf16():
            in_bf16 = partial(load_backend, openvino, CPU, precision=torch.bfloat16)
            yield Form("OpenVINO, bf16 arithmetic", in_bf16, size_in_megabytes(openvino))

    def evaluated(self, form: Form) -> tuple[str, str, str]:
        """Its name, AP and AP_S."""
        try:
            found = form.accuracy or self.data.accuracy(OpenedDetector(form.open(), CPU), self.settings)
        except UserError:
            return form.name, "", ""  # its runtime is not here
        return form.name, f"{found.ap:.4f}", f"{found.ap_small:.4f}"

    def operations(self, plain: Exports | None) -> Iterator[tuple[str, ...]]:
        """Of each fp32 file that can be counted: format, operations, convolutions, what takes maps apart, and how the
        same counts of another detector differ."""
        for name, (kind, precision) in EXPORTED.items():
            place = self.place(kind)
            if precision == "fp32" and kind in COUNTERS and place.exists():
                counts = COUNTERS[kind](place)
                other = COUNTERS[kind](plain.place(kind)) if plain and plain.place(kind).exists() else counts
                yield name, str(counts.total()), str(convolutions(counts)), moving(counts), beside(counts, other)


class EagerBackend(TorchBackend):
    """The model as it was trained, weights and images in PyTorch's default memory order."""

    def __init__(self, model: DetectionModel, device: torch.device) -> None:
        super().__init__(copy.deepcopy(model), device)
        self.model.to(memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def predict(self, images: torch.Tensor) -> Predictions:
        """See ``TorchBackend``."""
        return self.model.predict(images.contiguous())


def pytorch_forms(model: DetectionModel, size: float, frame: FrameSize) -> tuple[list[Form], Sequence[LayerChoice]]:
    """The model as it was trained and in its fused forms, and what measuring said about its layers."""
    models = {UNFUSED: model, PYTORCH: fused(model)}
    choices: Sequence[LayerChoice] = ()
    if any(isinstance(layer, SPD | SPDConv | Focus) for layer in model.model):
        best, choices = fused_by_measurement(model.to(memory_format=torch.channels_last), frame, LAYER_REPEATS)
        models |= {KEPT: fused(model, strided=False), CHOSEN: best}
    forms = [Form(EAGER, partial(EagerBackend, model, CPU), size)]
    forms += [Form(name, partial(TorchBackend, own, CPU), size) for name, own in models.items()]
    if cpu_has_bf16():
        backend = partial(TorchBackend, models[PYTORCH], CPU, torch.bfloat16)
        forms.append(Form("PyTorch, BN folded, bf16", backend, size))
    return forms, choices


def seconds_in_turn(forms: Sequence[Form], images: torch.Tensor, rounds: int) -> Seconds:
    """For each form that can be run here the median of its calls in each round; the forms take turns."""
    backends: dict[str, DetectionBackend] = {}
    for form in forms:
        with contextlib.suppress(UserError):
            backends[form.name] = form.open()
    seconds: Seconds = {name: [] for name in backends}
    for number in range(rounds + 1):
        for name, backend in backends.items():
            with torch.inference_mode():
                backend.predict(images)
                calls = [timed(backend, images) for _ in range(CALLS_IN_TURN)]
            if number:
                seconds[name].append(median(calls))
    return seconds


def timed(backend: DetectionBackend, images: torch.Tensor) -> float:
    start = time.perf_counter()
    backend.predict(images)
    return time.perf_counter() - start


def paired_ratio(seconds: Seconds, name: str, reference: str) -> float:
    """Median over the rounds of the ratio within a round: a busy minute hits both."""
    return median(own / other for own, other in zip(seconds[name], seconds[reference], strict=True))


def tables(flags: Namespace) -> Iterator[Table]:
    """Make the forms, time them in turn, evaluate them, count their operations."""
    reuse_freed_memory(CPU)  # as val.py and detect.py do
    frame = FrameSize(flags.img, flags.img)
    torch.set_num_threads(flags.threads[0])
    with tempfile.TemporaryDirectory() as folder:
        data = Int8Data.of(read_dataset_yaml(find_dataset_yaml(flags.data)))
        weights, plain_weights = Path(folder) / "model.pt", Path(folder) / "plain.pt"
        torch.save(checkpoint_fields(converted(find_weights(flags.weights), flags.cfg)), weights)
        exports, plain = Exports(weights, ExportSettings(frame), data, flags.no_ap, flags.only), None
        forms, choices = pytorch_forms(load_model(weights).eval(), size_in_megabytes(weights), frame)
        made = list(exports.forms())
        forms += [one for one in made if isinstance(one, Form)]
        if flags.cfg:
            torch.save(checkpoint_fields(converted(find_weights(flags.weights), "")), plain_weights)
            plain = replace(exports, weights=plain_weights, latency_only=True)
        twins = twins_of(forms, plain) if plain else []
        if missing := [(one,) for one in made if isinstance(one, str)]:
            yield Table(("not made",), missing)
        yield from layers_table(choices)
        images = as_network_input([letterbox(read_image(data.evaluated.index.paths[0]), frame)[0]], CPU)
        for threads in flags.threads:
            torch.set_num_threads(threads)
            title = f"{flags.cfg or flags.weights}, {flags.img} px, batch 1, {threads} threads, {flags.rounds} rounds"
            yield from latency_tables(forms, seconds_in_turn([*forms, *twins], images, flags.rounds), title)
        operations = list(exports.operations(plain))
        yield Table(("format", "operations", "convolutions", "taking maps apart", "than before conversion"), operations)
        if not flags.no_ap:
            yield Table(("form", "AP", "AP_S"), map(exports.evaluated, forms))


def twins_of(forms: Sequence[Form], plain: Exports) -> list[Form]:
    """The same forms of the detector before its conversion, those that it has."""
    model = fused(load_model(plain.weights).eval())
    own = [Form(PYTORCH, partial(TorchBackend, model, CPU), size_in_megabytes(plain.weights))]
    own += [one for one in plain.forms() if isinstance(one, Form)]
    names = {form.name for form in forms}
    return [replace(one, name=one.name + OF_PLAIN) for one in own if one.name in names]


def converted(weights: Path, cfg: str) -> DetectionModel:
    """The detector in a file, in another architecture if one is named."""
    if not cfg:
        return load_model(weights)
    official = read_weights(weights)
    model = DetectionModel(load_architecture(cfg), names=official.names)
    transfer_weights(model, official)
    return model


def latency_tables(forms: Sequence[Form], seconds: Seconds, title: str) -> Iterator[Table]:
    """Every form, and the comparisons that matter."""
    rows = []
    for form in forms:
        own, plain, times = seconds.get(form.name), seconds.get(form.name + OF_PLAIN), ("", "", "")
        if own:
            ratio = paired_ratio(seconds, form.name, PYTORCH)
            times = (f"{1e3 * median(own):.1f}", f"{1e3 * min(own):.1f}", f"{ratio:.2f}")
        far = (f"{form.difference.pixels:.1e}", f"{form.difference.probability:.1e}") if form.difference else ("", "")
        rows.append((form.name, f"{form.megabytes:.1f}", *far, *times, f"{1e3 * median(plain):.1f}" if plain else ""))
    head = ("form", "MB", "px", "probability", "ms", "fastest ms", f"of {PYTORCH}", "ms before conversion")
    yield Table(head, rows, title)
    pairs = {what: pair for what, pair in COMPARED.items() if all(name in seconds for name in pair)}
    ratios = [(what, f"{paired_ratio(seconds, *pair):.3f}") for what, pair in pairs.items()]
    yield Table(("compared", "of the time"), ratios)


def layers_table(choices: Sequence[LayerChoice]) -> Iterator[Table]:
    if choices:
        cells = [(", ".join(map(str, one.layers)), f"{one.strided_ms:.3f}", f"{one.kept_ms:.3f}") for one in choices]
        rows = [(*own, "strided" if one.is_strided else "kept") for own, one in zip(cells, choices, strict=True)]
        yield Table(("layers", "strided ms", "space-to-depth kept ms", "chosen"), rows)


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """What measuring said about the space-to-depth of one layer (of two layers for SPD and the C3 behind it)."""

    layers: tuple[int, ...]
    strided_ms: float
    kept_ms: float

    @property
    def is_strided(self) -> bool:
        return self.strided_ms <= self.kept_ms


def fused_by_measurement(
    model: DetectionModel, size: FrameSize, repeats: int = 20
) -> tuple[DetectionModel, tuple[LayerChoice, ...]]:
    """A fused copy in which each layer has the faster form on this machine, and the measurements, in milliseconds.

    Measured on one image of ``size`` on the model's device; the best of ``repeats`` runs counts for each form.
    """
    strided, kept = fused(model), fused(model, strided=False)
    inputs = _recorded_inputs(kept, size)
    units = [(index,) for index, layer in enumerate(model.model) if isinstance(layer, (SPDConv, Focus))]
    choices = []
    for unit in sorted([*units, *((index, index + 1) for index in spd_before_c3(model))]):
        forms = [[owner.model[index] for index in unit] for owner in (strided, kept)]
        choices.append(LayerChoice(unit, *best_milliseconds(forms, inputs[unit[0]], repeats)))
        if not choices[-1].is_strided:
            for index in unit:
                strided.model[index] = kept.model[index]
    return strided, tuple(choices)


@torch.no_grad()
def _recorded_inputs(model: DetectionModel, size: FrameSize) -> dict[int, Tensor]:
    """The map that each single-input layer reads for one image."""
    found: dict[int, Tensor] = {}

    def recorder(index: int) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def record(_: nn.Module, inputs: tuple[object, ...]) -> None:
            if isinstance(inputs[0], Tensor):
                found[index] = inputs[0].clone(memory_format=torch.preserve_format)

        return record

    hooks = [layer.register_forward_pre_hook(recorder(index)) for index, layer in enumerate(model.model)]
    model(zero_images(model, *size).contiguous(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def best_milliseconds(forms: Sequence[Sequence[nn.Module]], x: Tensor, repeats: int) -> list[float]:
    """Shortest time of each form; the forms take turns, so that a busy moment does not meet only one of them."""
    best = [float("inf")] * len(forms)
    for _ in range(repeats + 2):
        for place, layers in enumerate(forms):
            start = time.perf_counter()
            out = x
            for layer in layers:
                out = layer(out)
            if out.is_cuda:
                torch.cuda.synchronize(out.device)
            best[place] = min(best[place], 1e3 * (time.perf_counter() - start))
    return best

"""Every form of one detector on the same images in one run: difference, size, latency, AP, AP_S, operations.

The exported forms are those of the registry ``FORMATS``. With ``--cfg`` the detector as it was before the conversion is
exported too, and its files take turns with the others. With ``--folder`` the files stay there and what is known of them
so that forms made and evaluated before are timed with ``--no-ap`` when nothing else runs.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch

from benchmarks.format_operations import COUNTERS, beside, convolutions, moving
from benchmarks.layer_forms import LayerChoice, fused_by_measurement, layers_table
from benchmarks.measuring import Table
from models.common import SPD, Focus, SPDConv
from models.fuse import fused
from models.transfer import transfer_weights
from models.weights import checkpoint_fields, load_model, read_weights
from models.yolo import DetectionModel, load_architecture
from utils.config.dataset_file import find_dataset_yaml
from utils.config.dataset_yaml import read_dataset_yaml
from utils.config.weights_by_name import find_weights
from utils.dataset.image_files import read_image
from utils.exporting.export_settings import ExportPrecision, ExportSettings
from utils.exporting.formats import FORMATS, file_beside
from utils.exporting.quantization import Int8Data
from utils.exporting.verification import compare, size_in_megabytes
from utils.geometry.letterbox import FrameSize, letterbox
from utils.geometry.records import Predictions
from utils.inference.detector import OpenedDetector
from utils.inference.model_files import load_backend
from utils.inference.predictor import as_network_input
from utils.inference.torch_backend import DetectionBackend, TorchBackend
from utils.runtime.atomic_files import write_text
from utils.runtime.device import cpu_has_bf16
from utils.runtime.reused_memory import reuse_freed_memory
from utils.user_error import UserError
from utils.verbs.export import export_model, open_exported

CPU = torch.device("cpu")
Seconds = dict[str, list[float]]  # per round, by form
CALLS_IN_TURN = 3  # after one that does not count: it finds the caches and the thread pools of the form before it
LAYER_REPEATS = 100  # of measuring which form of a layer is faster
CALIBRATION_BATCHES = 4  # of INT8 where only its latency is asked for
COMPARED_IMAGES = 4  # of the val part
FIGURES = {"px": ".1e", "probability": ".1e", "AP": ".4f", "AP_S": ".4f"}  # of each form, and how they are written
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
    check: Callable[[], DetectionBackend] | None = None  # opens what gives the same numbers where its runtime is not


class Facts:
    """What is known of the forms by their names, in a file that a later call for the same detector goes on with.

    Raises:
        UserError: the file is of another detector.
    """

    def __init__(self, path: Path, made_from: Mapping[str, object]) -> None:
        self._path = path
        self._content: dict[str, Any] = {"made from": made_from, "forms": {}}
        if path.is_file():
            self._content = json.loads(path.read_text(encoding="utf-8"))
            if self._content["made from"] != made_from:
                before = self._content["made from"]
                changed = ", ".join(key for key, value in made_from.items() if before.get(key) != value)
                raise UserError(f"{path}: is of another detector ({changed} differs); take another --folder")

    def of(self, form: str) -> Mapping[str, float]:
        return cast(Mapping[str, float], self._content["forms"].get(form, {}))

    def learn(self, form: str, **figures: float) -> None:
        self._content["forms"][form] = {**self.of(form), **figures}
        write_text(self._path, json.dumps(self._content, indent=1))

    def text(self, form: str, figure: str, how: str) -> str:
        """The figure, formatted so; nothing where it is not known."""
        return format(self.of(form)[figure], how) if figure in self.of(form) else ""


@dataclass(frozen=True, slots=True)
class Exports:
    """What the files are made from and where they go."""

    weights: Path
    settings: ExportSettings
    data: Int8Data
    latency_only: bool
    only: Sequence[str]  # of the registry's formats
    facts: Facts  # of the forms

    def form(self, name: str, kind: str, precision: ExportPrecision) -> Form | str:
        """The file of one format; or why it is not there."""
        place = self.place(kind, precision)
        quantize = FORMATS[kind].quantize
        if place.exists():
            pass  # from an earlier call
        elif precision == "int8" and self.latency_only and quantize is not None and self.place(kind).exists():
            batches = itertools.islice(self.data.batches(self.settings), CALIBRATION_BATCHES)
            quantize(self.place(kind), place, batches)
        else:
            settings = replace(self.settings, precision=precision)
            try:
                (file,) = export_model(self.weights, [kind], settings, CPU, (), self.data)
            except UserError as error:
                return f"{name}: {error}"
            if file.accuracy and not self.latency_only:
                self.facts.learn(name, AP=file.accuracy[1].ap, AP_S=file.accuracy[1].ap_small)
        check = partial(open_exported, place, kind, CPU)
        return Form(name, partial(load_backend, place, CPU), size_in_megabytes(place), check)

    def place(self, kind: str, precision: ExportPrecision = "fp32") -> Path:
        return file_beside(self.weights, kind, replace(self.settings, precision=precision))

    def forms(self) -> Iterator[Form | str]:
        """The files that are made here, and the further ways to run them."""
        for name, (kind, precision) in EXPORTED.items():
            if kind in self.only:
                yield self.form(name, kind, precision)
        onnx, openvino = self.place("onnx"), self.place("openvino")
        if onnx.is_file() and "onnx" in self.only:
            in_opencv = partial(load_backend, onnx, CPU, dnn=True)
            yield Form("ONNX in OpenCV's DNN module", in_opencv, size_in_megabytes(onnx))
        if openvino.exists() and cpu_has_bf16() and "openvino" in self.only:
            in_bf16 = partial(load_backend, openvino, CPU, precision=torch.bfloat16)
            yield Form("OpenVINO, bf16 arithmetic", in_bf16, size_in_megabytes(openvino))

    def learn(self, form: Form, reference: DetectionBackend) -> None:
        """Its difference from the model and, unless latency is all that is asked for, its AP, where they are not known.

        A form that cannot be opened here has neither.
        """
        known = self.facts.of(form.name)
        if "px" in known and (self.latency_only or "AP" in known):
            return
        try:
            backend = (form.check or form.open)()
        except UserError:
            return
        images = itertools.islice(self.data.evaluated.index.paths, COMPARED_IMAGES)
        inputs = [network_input(path, self.settings.frame) for path in images]
        difference = compare(backend, reference, inputs)
        self.facts.learn(form.name, px=difference.pixels, probability=difference.probability)
        if not self.latency_only and "AP" not in known:
            found = self.data.accuracy(OpenedDetector(backend, CPU), self.settings)
            self.facts.learn(form.name, AP=found.ap, AP_S=found.ap_small)

    def operations(self, plain: Exports | None) -> Iterator[tuple[str, ...]]:
        """Of each fp32 file that can be counted: format, operations, convolutions, what takes maps apart, and how the
        same counts of another detector differ."""
        for name, (kind, precision) in EXPORTED.items():
            place = self.place(kind)
            if precision == "fp32" and kind in self.only and kind in COUNTERS and place.exists():
                counts = COUNTERS[kind](place)
                other = COUNTERS[kind](plain.place(kind)) if plain and plain.place(kind).exists() else counts
                yield name, str(counts.total()), str(convolutions(counts)), moving(counts), beside(counts, other)


def network_input(path: Path, frame: FrameSize) -> torch.Tensor:
    """The image in the frame: (1, 3, H, W) float32 0-1."""
    return as_network_input([letterbox(read_image(path), frame)[0]], CPU)


class EagerBackend(TorchBackend):
    """The model as it was trained, weights and images in PyTorch's default memory order."""

    def __init__(self, model: DetectionModel, device: torch.device) -> None:
        super().__init__(copy.deepcopy(model), device)
        self.model.to(memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        """See ``TorchBackend``."""
        return self.model.predict(images.contiguous(), least_score)


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
    with tempfile.TemporaryDirectory() as new:
        folder = Path(flags.folder or new)
        folder.mkdir(parents=True, exist_ok=True)
        facts = Facts(folder / "facts.json", made_from(flags))
        data = Int8Data.of(read_dataset_yaml(find_dataset_yaml(flags.data)))
        weights, plain_weights = folder / "model.pt", folder / "plain.pt"
        torch.save(checkpoint_fields(converted(find_weights(flags.weights), flags.cfg)), weights)
        exports, plain = Exports(weights, ExportSettings(frame), data, flags.no_ap, flags.only, facts), None
        forms, choices = pytorch_forms(load_model(weights).eval(), size_in_megabytes(weights), frame)
        made = list((replace(exports, latency_only=False) if flags.folder else exports).forms())
        forms += [one for one in made if isinstance(one, Form)]
        if flags.cfg:
            torch.save(checkpoint_fields(converted(find_weights(flags.weights), "")), plain_weights)
            plain = replace(exports, weights=plain_weights, latency_only=True)
        twins = twins_of(forms, plain) if plain else []
        if missing := [(one,) for one in made if isinstance(one, str)]:
            yield Table(("not made",), missing)
        yield from layers_table(choices)
        reference = TorchBackend(fused(load_model(weights).eval()), CPU)
        for form in forms:
            exports.learn(form, reference)
        images = network_input(data.evaluated.index.paths[0], frame)
        for threads in flags.threads:
            torch.set_num_threads(threads)
            title = f"{flags.cfg or flags.weights}, {flags.img} px, batch 1, {threads} threads, {flags.rounds} rounds"
            yield from latency_tables(forms, seconds_in_turn([*forms, *twins], images, flags.rounds), facts, title)
        operations = list(exports.operations(plain))
        yield Table(("format", "operations", "convolutions", "taking maps apart", "than before conversion"), operations)


def made_from(flags: Namespace) -> dict[str, object]:
    """What the files and what is known of them depend on."""
    weights = find_weights(flags.weights)
    written = weights.stat().st_mtime_ns
    network = load_architecture(flags.cfg).as_dict() if flags.cfg else None
    made = {"weights": str(weights), "written": written, "cfg": flags.cfg, "network": network}
    return made | {"img": flags.img, "data": flags.data}


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


def latency_tables(forms: Sequence[Form], seconds: Seconds, facts: Facts, title: str) -> Iterator[Table]:
    """Every form, and the comparisons that matter."""
    rows = []
    for form in forms:
        own, plain, times = seconds.get(form.name), seconds.get(form.name + OF_PLAIN), ("", "", "")
        if own:
            ratio = paired_ratio(seconds, form.name, PYTORCH)
            times = (f"{1e3 * median(own):.1f}", f"{1e3 * min(own):.1f}", f"{ratio:.2f}")
        before = f"{1e3 * median(plain):.1f}" if plain else ""
        known = [facts.text(form.name, figure, how) for figure, how in FIGURES.items()]
        rows.append((form.name, f"{form.megabytes:.1f}", *known, *times, before))
    head = ("form", "MB", *FIGURES, "ms", "fastest ms", f"of {PYTORCH}", "ms before conversion")
    yield Table(head, rows, title)
    pairs = {what: pair for what, pair in COMPARED.items() if all(name in seconds for name in pair)}
    ratios = [(what, f"{paired_ratio(seconds, *pair):.3f}") for what, pair in pairs.items()]
    yield Table(("compared", "of the time"), ratios)

"""Every form of one detector on the same images in one run: size, latency, AP, AP_S.

python -m benchmarks.formats --weights yolov5n.pt --data coco128.yaml                          YOLOv5n
python -m benchmarks.formats --weights yolov5n.pt --cfg yolov5n-spd.yaml --data coco128.yaml    the same in SPD
python -m benchmarks.formats --weights yolov5n.pt --data coco128.yaml --no-ap --threads 1 2    latency only
"""

from __future__ import annotations

import argparse
import copy
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks.measuring import machine
from models.common import SPD, Focus, SPDConv
from models.fuse import LayerChoice, fused, fused_by_measurement
from models.transfer import transfer_weights
from models.weights import checkpoint_fields, load_model, read_weights
from models.yolo import DetectionModel, load_architecture
from utils.config.dataset_file import find_dataset_yaml
from utils.config.dataset_yaml import read_dataset_yaml
from utils.config.weights_by_name import find_weights
from utils.dataset.image_files import read_image
from utils.exporting.export_settings import ExportPrecision, ExportSettings
from utils.exporting.formats import FORMATS
from utils.exporting.quantization import Accuracy, Int8Data
from utils.exporting.verification import size_in_megabytes
from utils.geometry.letterbox import FrameSize, letterbox
from utils.geometry.records import Predictions
from utils.inference.detector import OpenedDetector
from utils.inference.model_backends import DetectionBackend, TorchBackend, load_backend
from utils.inference.predictor import as_network_input
from utils.runtime.device import autocast, cpu_has_bf16
from utils.runtime.reused_memory import reuse_freed_memory
from utils.user_error import UserError
from utils.verbs.export import export_model

CPU = torch.device("cpu")
Seconds = dict[str, list[float]]  # per round, by form
CALLS_IN_TURN = 3  # after one that does not count: it finds the caches and the thread pools of the form before it
PYTORCH = "PyTorch, BN folded, strided"
KEPT = "PyTorch, BN folded, space-to-depth kept"
CHOSEN = "PyTorch, BN folded, chosen per layer"
EAGER = "PyTorch eager, default memory order"  # as a model runs that is loaded and called, and nothing else
UNFUSED = "PyTorch, unfused"  # channels last, as all forms of ours
OPENVINO = "OpenVINO"


@dataclass(frozen=True, slots=True)
class Form:
    """The detector in one runtime."""

    name: str
    open: Callable[[], DetectionBackend]  # with as many threads as torch has at that moment
    megabytes: float | None = None  # of the file
    precision: torch.dtype = torch.float32  # of PyTorch's autocast
    judged: Accuracy | None = None  # where making the file has measured it


@dataclass(frozen=True, slots=True)
class Exports:
    """What the files are made from and where they go."""

    weights: Path
    settings: ExportSettings
    data: Int8Data
    is_judged: bool  # otherwise INT8 is calibrated on a few images, for its latency only

    def form(self, name: str, kind: str, precision: ExportPrecision = "fp32") -> Form | str:
        """The file of one format; or why it is not there."""
        place = self.place(kind, precision)
        if precision == "int8" and not self.is_judged:
            quantize = FORMATS[kind].quantize
            assert quantize is not None
            quantize(self.place(kind), place, itertools.islice(self.data.batches(self.settings), 4))
            return Form(name, partial(load_backend, place, CPU), size_in_megabytes(place))
        try:
            (file,) = export_model(
                self.weights, [kind], replace(self.settings, precision=precision), CPU, (), self.data
            )
        except UserError as error:
            return f"{name}: {error}"
        file.path.rename(place)  # the next precision of the format would take its place
        judged = file.accuracy[1] if file.accuracy else None
        return Form(name, partial(load_backend, place, CPU), file.megabytes, judged=judged)

    def place(self, kind: str, precision: ExportPrecision = "fp32") -> Path:
        return self.weights.with_name(f"{precision}{FORMATS[kind].ending}")

    def accuracy(self, form: Form) -> Accuracy:
        return form.judged or self.data.accuracy(OpenedDetector(form.open(), CPU, form.precision), self.settings)


class EagerBackend(TorchBackend):
    """The model as it was trained, weights and images in PyTorch's default memory order."""

    def __init__(self, model: DetectionModel, device: torch.device) -> None:
        super().__init__(copy.deepcopy(model), device)
        self.model.to(memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def predict(self, images: torch.Tensor) -> Predictions:
        """See ``TorchBackend``."""
        return self.model.predict(images.contiguous())


def pytorch_forms(model: DetectionModel, file: Path, frame: FrameSize) -> tuple[list[Form], tuple[LayerChoice, ...]]:
    """The model as it was trained and in its fused forms, and what measuring said about its layers."""
    models = {UNFUSED: model, PYTORCH: fused(model)}
    choices: tuple[LayerChoice, ...] = ()
    if any(isinstance(layer, SPD | SPDConv | Focus) for layer in model.model):
        best, choices = fused_by_measurement(model.to(memory_format=torch.channels_last), frame, repeats=100)
        models |= {KEPT: fused(model, strided=False), CHOSEN: best}
    size = size_in_megabytes(file)
    forms = [Form(EAGER, partial(EagerBackend, model, CPU), size)]
    forms += [Form(name, partial(TorchBackend, own, CPU), size) for name, own in models.items()]
    if cpu_has_bf16():
        backend = partial(TorchBackend, models[PYTORCH], CPU)
        forms.append(Form("PyTorch, BN folded, bf16", backend, size, torch.bfloat16))
    return forms, choices


def exported_forms(exports: Exports) -> tuple[list[Form], list[str]]:
    """The files that are made here, and a sentence for each that is not."""
    made: list[Form | str] = [
        exports.form("TorchScript", "torchscript"),
        exports.form("ONNX Runtime", "onnx"),
        exports.form("ONNX Runtime, FP16 weights", "onnx", "fp16"),
        exports.form("ONNX Runtime, INT8", "onnx", "int8"),
        exports.form(OPENVINO, "openvino"),
        exports.form("OpenVINO, FP16 weights", "openvino", "fp16"),
        exports.form("OpenVINO, INT8", "openvino", "int8"),
    ]
    forms = [form for form in made if isinstance(form, Form)]
    onnx, openvino = exports.place("onnx"), exports.place("openvino")
    in_opencv = partial(load_backend, onnx, CPU, dnn=True)
    forms.append(Form("ONNX in OpenCV's DNN module", in_opencv, size_in_megabytes(onnx)))
    if cpu_has_bf16():
        in_bf16 = partial(load_backend, openvino, CPU, precision=torch.bfloat16)
        forms.append(Form("OpenVINO, bf16 arithmetic", in_bf16, size_in_megabytes(openvino)))
    return forms, [form for form in made if isinstance(form, str)]


def seconds_in_turn(forms: Sequence[Form], images: torch.Tensor, rounds: int) -> Seconds:
    """For each form the median of its calls in each round; the forms take turns."""
    backends = {form.name: form.open() for form in forms}
    seconds: Seconds = {form.name: [] for form in forms}
    for number in range(rounds + 1):
        for form in forms:
            with torch.inference_mode(), autocast(CPU, form.precision):
                backends[form.name].predict(images)
                calls = [timed(backends[form.name], images) for _ in range(CALLS_IN_TURN)]
            if number:
                seconds[form.name].append(median(calls))
    return seconds


def timed(backend: DetectionBackend, images: torch.Tensor) -> float:
    start = time.perf_counter()
    backend.predict(images)
    return time.perf_counter() - start


def paired_ratio(seconds: Seconds, name: str, reference: str) -> float:
    """Median over the rounds of the ratio within a round: a busy minute hits both."""
    return median(own / other for own, other in zip(seconds[name], seconds[reference], strict=True))


def main() -> None:
    """Make the forms, time them in turn, evaluate them, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--cfg", help="architecture that the weights are converted to first")
    parser.add_argument("--data", required=True, help="dataset YAML")
    parser.add_argument("--img", type=int, default=640, help="pixels, square")
    parser.add_argument("--threads", type=int, nargs="+", default=[2], help="one table each")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-ap", action="store_true", help="latency only")
    flags = parser.parse_args()
    reuse_freed_memory(CPU)  # as val.py and detect.py do
    frame = FrameSize(flags.img, flags.img)
    torch.set_num_threads(flags.threads[0])
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.pt"
        torch.save(checkpoint_fields(converted(find_weights(flags.weights), flags.cfg)), weights)
        data = Int8Data.of(read_dataset_yaml(find_dataset_yaml(flags.data)))
        exports = Exports(weights, ExportSettings(frame), data, is_judged=not flags.no_ap)
        forms, choices = pytorch_forms(load_model(weights).eval(), weights, frame)
        files, missing = exported_forms(exports)
        forms += files
        print("\n".join(["", f"{flags.cfg or flags.weights}, {flags.img} px, batch 1", *missing]))
        print_layers(choices)
        images = as_network_input([letterbox(read_image(data.evaluated.index.paths[0]), frame)[0]], CPU)
        for threads in flags.threads:
            torch.set_num_threads(threads)
            print_latency(forms, seconds_in_turn(forms, images, flags.rounds), flags.rounds)
        if not flags.no_ap:
            print("\n| form | AP | AP_S |\n|---|---:|---:|")
            for form in forms:
                accuracy = exports.accuracy(form)
                print(f"| {form.name} | {accuracy.ap:.4f} | {accuracy.ap_small:.4f} |", flush=True)


def converted(weights: Path, cfg: str | None) -> DetectionModel:
    """The detector in a file, in another architecture if one is named."""
    if cfg is None:
        return load_model(weights)
    official = read_weights(weights)
    model = DetectionModel(load_architecture(cfg), names=official.names)
    transfer_weights(model, official)
    return model


def print_latency(forms: Sequence[Form], seconds: Seconds, rounds: int) -> None:
    print(f"\n{machine()}, median of {rounds} rounds\n")
    print(f"| form | MB | ms | fastest ms | of {PYTORCH} |\n|---|---:|---:|---:|---:|")
    for form in forms:
        size = "" if form.megabytes is None else f"{form.megabytes:.1f}"
        own, ratio = seconds[form.name], paired_ratio(seconds, form.name, PYTORCH)
        print(f"| {form.name} | {size} | {1e3 * median(own):.1f} | {1e3 * min(own):.1f} | {ratio:.2f} |")
    print("\n".join(["", *sentences(seconds)]), flush=True)


def print_layers(choices: Sequence[LayerChoice]) -> None:
    if choices:
        print("\n| layers | strided ms | space-to-depth kept ms | chosen |\n|---|---:|---:|---|")
    for choice in choices:
        layers = ", ".join(map(str, choice.layers))
        chosen = "strided" if choice.is_strided else "kept"
        print(f"| {layers} | {choice.strided_ms:.3f} | {choice.kept_ms:.3f} | {chosen} |")


def sentences(seconds: Seconds) -> list[str]:
    """The comparisons that matter, each within its rounds."""
    pairs = {
        "BN folding": (PYTORCH, UNFUSED),
        "strided where it is faster, over space-to-depth kept": (CHOSEN, KEPT),
        "strided everywhere, over space-to-depth kept": (PYTORCH, KEPT),
        "OpenVINO fp32, over PyTorch folded and strided": (OPENVINO, PYTORCH),
        "OpenVINO fp32, over PyTorch unfused": (OPENVINO, UNFUSED),
        "OpenVINO fp32, over PyTorch eager in its default memory order": (OPENVINO, EAGER),
        "PyTorch folded and strided, over PyTorch eager in its default memory order": (PYTORCH, EAGER),
    }
    return [
        f"{title}: {paired_ratio(seconds, *pair):.3f} of the time"
        for title, pair in pairs.items()
        if all(name in seconds for name in pair)
    ]


if __name__ == "__main__":
    main()

"""Every form of one detector on the same pictures in one run: size, latency, AP, AP_S.

python -m benchmarks.formats --weights yolov5n.pt --data coco128.yaml                          YOLOv5n
python -m benchmarks.formats --weights yolov5n.pt --cfg yolov5n-spd.yaml --data coco128.yaml    the same in SPD
python -m benchmarks.formats --weights yolov5n.pt --data coco128.yaml --no-ap --rounds 60      latency only
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from benchmarks.measuring import machine
from models.fuse import LayerChoice, fused, fused_by_measurement
from models.transfer import transfer_weights
from models.weights import checkpoint_fields, load_model, read_weights
from models.yolo import DetectionModel, load_architecture
from utils.config.dataset_yaml import read_dataset_yaml
from utils.dataset.image_files import read_image
from utils.exporting.export_run import export_model
from utils.exporting.export_settings import ExportPrecision, ExportSettings
from utils.exporting.formats import FORMATS
from utils.exporting.quantization import Accuracy, Int8Data
from utils.exporting.verification import size_in_megabytes
from utils.geometry.letterbox import FrameSize, letterbox
from utils.geometry.records import Predictions
from utils.inference.model_backends import DetectionBackend, TorchBackend, load_backend
from utils.inference.predictor import as_network_input
from utils.runtime.device import autocast, cpu_has_bf16
from utils.user_error import UserError

CPU = torch.device("cpu")
CALLS_IN_TURN = 3  # after one that does not count: it finds the caches and the thread pools of the form before it
PYTORCH = "PyTorch, BN folded, strided"
KEPT = "PyTorch, BN folded, space-to-depth kept"
CHOSEN = "PyTorch, BN folded, chosen per layer"
UNFUSED = "PyTorch, unfused"
OPENVINO = "OpenVINO"


@dataclass(frozen=True, slots=True)
class Form:
    """The detector in one runtime."""

    name: str
    backend: DetectionBackend
    megabytes: float | None = None  # of the file
    precision: torch.dtype = torch.float32  # of PyTorch's autocast
    judged: Accuracy | None = None  # where making the file has measured it

    def predict(self, images: torch.Tensor) -> Predictions:
        with autocast(CPU, self.precision):
            return self.backend.predict(images)


@dataclass(frozen=True, slots=True)
class Exports:
    """What the files are made from and where they go."""

    weights: Path
    settings: ExportSettings
    data: Int8Data

    def form(self, name: str, kind: str, precision: ExportPrecision = "fp32") -> Form | str:
        """The file of one format, opened; or why it is not there."""
        settings = replace(self.settings, precision=precision)
        try:
            (file,) = export_model(self.weights, [kind], settings, CPU, (), self.data)
        except UserError as error:
            return f"{name}: {error}"
        # The next precision of the format would take this one's place.
        file.path.rename(self.place(kind, precision))
        judged = file.accuracy[1] if file.accuracy else None
        return Form(name, load_backend(self.place(kind, precision), CPU), file.megabytes, judged=judged)

    def place(self, kind: str, precision: ExportPrecision = "fp32") -> Path:
        return self.weights.with_name(f"{precision}{FORMATS[kind].ending}")

    def accuracy(self, form: Form) -> Accuracy:
        return form.judged or self.data.accuracy(form.backend, self.settings, CPU, form.precision)


def pytorch_forms(model: DetectionModel, file: Path, frame: FrameSize) -> tuple[list[Form], tuple[LayerChoice, ...]]:
    """The model as it was trained and in its fused forms, and what measuring said about its layers."""
    has_choice = any("SPD" in type(layer).__name__ or "Focus" in type(layer).__name__ for layer in model.model)
    backend = TorchBackend(model, CPU)
    forms = [Form(UNFUSED, backend, size_in_megabytes(file)), Form(PYTORCH, TorchBackend(fused(model), CPU))]
    choices: tuple[LayerChoice, ...] = ()
    if has_choice:
        best, choices = fused_by_measurement(model.to(memory_format=torch.channels_last), frame, repeats=100)
        forms += [Form(KEPT, TorchBackend(fused(model, strided=False), CPU)), Form(CHOSEN, TorchBackend(best, CPU))]
    if cpu_has_bf16():
        forms.append(Form("PyTorch, BN folded, bf16", TorchBackend(fused(model), CPU), precision=torch.bfloat16))
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
    onnx = exports.place("onnx")
    forms.append(Form("ONNX in OpenCV's DNN module", load_backend(onnx, CPU, dnn=True), size_in_megabytes(onnx)))
    if cpu_has_bf16():
        folder = exports.place("openvino")
        backend = load_backend(folder, CPU, precision=torch.bfloat16)
        forms.append(Form("OpenVINO, bf16 arithmetic", backend, size_in_megabytes(folder)))
    return forms, [form for form in made if isinstance(form, str)]


def seconds_in_turn(forms: Sequence[Form], images: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """For each form the median of its calls in each round; the forms take turns."""
    seconds: dict[str, list[float]] = {form.name: [] for form in forms}
    for number in range(rounds + 1):
        for form in forms:
            form.predict(images)
            calls = [timed(form, images) for _ in range(CALLS_IN_TURN)]
            if number:
                seconds[form.name].append(median(calls))
    return seconds


def timed(form: Form, images: torch.Tensor) -> float:
    start = time.perf_counter()
    form.predict(images)
    return time.perf_counter() - start


def paired_ratio(seconds: dict[str, list[float]], name: str, reference: str) -> float:
    """Median over the rounds of the ratio within a round: a busy minute hits both."""
    return median(own / other for own, other in zip(seconds[name], seconds[reference], strict=True))


def main() -> None:
    """Make the forms, time them in turn, evaluate them, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cfg", help="architecture that the weights are converted to first")
    parser.add_argument("--data", type=Path, required=True, help="dataset YAML")
    parser.add_argument("--img", type=int, default=640, help="pixels, square")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-ap", action="store_true", help="latency only")
    flags = parser.parse_args()
    frame = FrameSize(flags.img, flags.img)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.pt"
        torch.save(checkpoint_fields(converted(flags.weights, flags.cfg)), weights)
        data = Int8Data.of(read_dataset_yaml(flags.data))
        exports = Exports(weights, ExportSettings(frame), data)
        torch.set_num_threads(flags.threads)
        forms, choices = pytorch_forms(load_model(weights).eval(), weights, frame)
        files, missing = exported_forms(exports)
        forms += files
        image = letterbox(read_image(data.judged.index.paths[0]), frame)[0]
        with torch.inference_mode():
            seconds = seconds_in_turn(forms, as_network_input([image], CPU), flags.rounds)
        title = flags.cfg or flags.weights.name
        print(f"\n{title}, {flags.img} px, batch 1, median of {flags.rounds} rounds ({machine()})", flush=True)
        print_layers(choices)
        print("\n".join(["", *missing, *sentences(seconds), ""]), flush=True)
        print_forms(forms, seconds, {} if flags.no_ap else {form.name: exports.accuracy(form) for form in forms})


def converted(weights: Path, cfg: str | None) -> DetectionModel:
    """The detector in a file, in another architecture if one is named."""
    if cfg is None:
        return load_model(weights)
    official = read_weights(weights)
    model = DetectionModel(load_architecture(cfg), names=official.names)
    transfer_weights(model, official)
    return model


def print_forms(forms: Sequence[Form], seconds: dict[str, list[float]], accuracies: dict[str, Accuracy]) -> None:
    print(f"| form | MB | ms | fastest ms | of {PYTORCH} | AP | AP_S |\n|---|---:|---:|---:|---:|---:|---:|")
    for form in forms:
        size = "" if form.megabytes is None else f"{form.megabytes:.1f}"
        found = accuracies.get(form.name)
        accuracy = f"{found.ap:.4f} | {found.ap_small:.4f}" if found else "|"
        own, ratio = seconds[form.name], paired_ratio(seconds, form.name, PYTORCH)
        print(f"| {form.name} | {size} | {1e3 * median(own):.1f} | {1e3 * min(own):.1f} | {ratio:.2f} | {accuracy} |")


def print_layers(choices: Sequence[LayerChoice]) -> None:
    if choices:
        print("\n| layers | strided ms | space-to-depth kept ms | chosen |\n|---|---:|---:|---|")
    for choice in choices:
        layers = ", ".join(map(str, choice.layers))
        chosen = "strided" if choice.is_strided else "kept"
        print(f"| {layers} | {choice.strided_ms:.3f} | {choice.kept_ms:.3f} | {chosen} |")


def sentences(seconds: dict[str, list[float]]) -> list[str]:
    """The comparisons that matter, each within its rounds."""
    pairs = {
        "BN folding": (PYTORCH, UNFUSED),
        "strided where it is faster, over space-to-depth kept": (CHOSEN, KEPT),
        "strided everywhere, over space-to-depth kept": (PYTORCH, KEPT),
        "OpenVINO fp32, over PyTorch folded and strided": (OPENVINO, PYTORCH),
        "OpenVINO fp32, over PyTorch unfused": (OPENVINO, UNFUSED),
    }
    return [
        f"{title}: {paired_ratio(seconds, *pair):.3f} of the time"
        for title, pair in pairs.items()
        if all(name in seconds for name in pair)
    ]


if __name__ == "__main__":
    main()

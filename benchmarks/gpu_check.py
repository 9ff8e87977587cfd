"""Whether everything works on a GPU: trains, evaluates, detects and exports there and on the CPU, in under 15 minutes.

    python -m benchmarks.gpu_check                   writes gpu-check.md, to be sent back
    python -m benchmarks.gpu_check --only training   the checks whose names have the word

Images are generated; nothing is downloaded. The exit code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.gpu_runs import (
    Bench,
    Sizes,
    as_flags,
    compiled_network,
    copies_beside_computation,
    hub_boxes,
    losses,
    stopped_training,
    timed_training,
)
from benchmarks.measuring import machine, python, table_line
from utils.geometry.boxes import pairwise_iou
from utils.inference.tensorrt_runtime import tensorrt_module
from utils.runtime.console_log import run_verb
from utils.user_error import UserError

HEAD = ("check", "result", "figures", "ms")
LOSS_TOLERANCE = {"fp32": 0.01, "bf16": 0.03, "fp16": 0.03}  # relative, of an epoch; fp32 on a GPU multiplies in TF32
AP_TOLERANCE = {"fp32": 0.001, "fp16": 0.005}
SAME_BOX = {"fp32": 0.95, "fp16": 0.8}  # least IoU
OVERLAPPED = 0.8  # of the time of copies and computation one after the other, which are about equal
COMPILED_TOLERANCE = 2.0  # pixels, in fp16
COMPILED_SHARE = 0.9  # of the time of the network as it is
EXPECTED = (RuntimeError, UserError, OSError, LookupError, ValueError, AssertionError)  # of a check that fails
UNMATCHED = 0.02  # share of the boxes that may be found on one device only: scores near the threshold


class Outcome(NamedTuple):
    """What a check found."""

    passed: bool
    figures: str
    milliseconds: float | None = None  # of a step or an image


class NotRun(Exception):
    """The machine has not what a check needs."""


def difference(own: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Largest relative difference; infinite if one is not finite."""
    shares = [abs(own[name] - value) / abs(value) for name, value in other.items()]
    return max(shares) if all(map(math.isfinite, shares)) else math.inf


def first_losses(bench: Bench, precision: str) -> Outcome:
    """An epoch from the same start with the same images gives the losses that it gives on the CPU."""
    expected = losses(bench.trained("cpu-fp32", device="cpu", precision="fp32", noval=True))[0]
    own = losses(bench.trained(f"gpu-{precision}", precision=precision, noval=True))[0]
    found = difference(own, expected)
    return Outcome(found <= LOSS_TOLERANCE[precision], f"losses of an epoch within {100 * found:.2f} % of the CPU's")


def training_speed(bench: Bench, precision: str) -> Outcome:
    sizes = bench.sizes
    settings = {"cfg": sizes.fast_cfg, "imgsz": sizes.fast_imgsz, "batch_size": sizes.fast_batch, "epochs": 4}
    settings = bench.training(f"speed-{precision}", **settings, precision=precision, noval=True, cache="ram")
    found = bench.child(timed_training, settings=settings)
    steps = math.ceil(sizes.train / sizes.fast_batch)
    figures = f"{sizes.train / found['epoch']:.0f} images/s, {found['peak'] / 2**20:.0f} MiB, loss {found['loss']:.3f}"
    return Outcome(math.isfinite(found["loss"]), figures, 1000 * found["epoch"] / steps)


def training_to_the_end(bench: Bench) -> Outcome:
    metrics = json.loads((bench.whole / "metrics.json").read_text(encoding="utf-8"))
    figures = f"AP50 {metrics['AP50']:.3f}, AP {metrics['AP']:.3f} after {bench.sizes.epochs} epochs"
    return Outcome(metrics["AP50"] >= bench.sizes.least_ap50, figures)


def fitting_batch(bench: Bench) -> Outcome:
    sizes = bench.sizes
    settings: dict[str, object] = {"cfg": sizes.fast_cfg, "imgsz": sizes.fast_imgsz, "batch_size": -1, "epochs": 2}
    settings = bench.training("fitted", **settings, multi_scale=True, noval=True)
    found = bench.child(timed_training, settings=settings)
    return Outcome(math.isfinite(found["loss"]), f"peak {100 * found['share']:.0f} % of the memory")


def resuming(bench: Bench) -> Outcome:
    """A run that is cut off and goes on ends as one that is not; additions on a GPU have no fixed order."""
    whole = losses(bench.trained("uncut", epochs=2, noval=True))
    bench.child(stopped_training, settings=bench.training("cut", epochs=2, noval=True))
    run = bench.folder / "train" / "cut"
    assert len(losses(run)) == 1
    here = ("--device", bench.device, "--workers", bench.sizes.workers)
    bench.run(python("train.py", "--resume", run / "weights" / "last.pt", *here))
    ended = losses(run)
    found = max(difference(own, other) for own, other in zip(ended, whole, strict=True))
    return Outcome(
        found <= LOSS_TOLERANCE["fp16"], f"losses of two epochs within {100 * found:.2f} % of an uncut run's"
    )


def two_gpus(bench: Bench, *, sync_bn: bool) -> Outcome:
    if torch.cuda.device_count() < 2:
        raise NotRun("one GPU here")
    name = "two-sync-bn" if sync_bn else "two"
    settings = bench.training(name, precision="fp32", noval=True, sync_bn=sync_bn, device="0,1")
    bench.run(
        python("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, "train.py", *as_flags(settings))
    )
    expected = losses(bench.trained("gpu-fp32", precision="fp32", noval=True))[0]
    found = difference(losses(bench.folder / "train" / name)[0], expected)
    return Outcome(found <= LOSS_TOLERANCE["fp16"], f"losses of an epoch within {100 * found:.2f} % of one GPU's")


def evaluation(bench: Bench, precision: str, *flags: str) -> Outcome:
    """``val.py`` gives the CPU's figures."""
    expected = bench.evaluated("cpu", bench.weights, "cpu")
    name = "-".join(("gpu", precision, *flags)).replace("--", "")
    half = ("--half",) if precision == "fp16" else ()
    return same_figures(bench.evaluated(name, bench.weights, bench.device, *half, *flags), expected, precision)


def same_figures(own: Mapping[str, Any], expected: Mapping[str, Any], precision: str) -> Outcome:
    found = abs(own["map50_95"] - expected["map50_95"])
    figures = f"mAP {own['map50_95']:.4f}, on the CPU {expected['map50_95']:.4f}"
    return Outcome(found <= AP_TOLERANCE[precision], figures, own["speed_ms"]["inference"])


def exported(bench: Bench, name: str, include: str, device: str, *flags: object) -> Outcome:
    """A file that is made on ``device`` and evaluated on the GPU has the network's figures."""
    if include == "engine":
        try:
            tensorrt_module(torch.device("cuda", 0))
        except UserError as error:
            raise NotRun(str(error)) from None
    if include == "onnx" and importlib.util.find_spec("onnxruntime") is None:
        raise NotRun("ONNX Runtime is not installed")
    copy = bench.folder / f"{name}.pt"
    shutil.copyfile(bench.weights, copy)
    words = ("export.py", "--weights", copy, "--include", include, "--imgsz", bench.sizes.imgsz, *flags)
    bench.run(python(*words, "--device", device))
    expected = bench.evaluated("cpu-square", bench.weights, "cpu", "--square")
    batch = () if "--dynamic" in flags else ("--batch-size", 1)
    made = copy.with_name(f"{name}{'_fp16' if '--half' in flags else ''}.{include}")
    own = bench.evaluated(name, made, bench.device, "--square", *batch)
    return same_figures(own, expected, "fp16" if "--half" in flags else "fp32")


def boxes_of(file: Path) -> torch.Tensor:
    """(N, 6) class, x1 y1 x2 y2 as shares of the image, score: a label file of ``--save-txt --save-conf``."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    rows = torch.tensor([[float(cell) for cell in line.split()] for line in text.splitlines()]).reshape(-1, 6)
    centres, half = rows[:, 1:3], rows[:, 3:5] / 2
    return torch.cat((rows[:, :1], centres - half, centres + half, rows[:, 5:]), 1)


def unmatched(own: torch.Tensor, other: torch.Tensor, least_iou: float) -> int:
    """Rows of either, as of ``boxes_of``, without one of the same class and place in the other."""
    same = (pairwise_iou(own[:, 1:5], other[:, 1:5]) >= least_iou) & (own[:, None, 0] == other[None, :, 0])
    return int((~same.any(1)).sum() + (~same.any(0)).sum())


def detection(bench: Bench, precision: str, *flags: str) -> Outcome:
    """``detect.py`` finds the CPU's boxes."""
    name = "-".join(("gpu", precision, *flags)).replace("--", "")
    places = {"cpu": ("cpu",), name: (bench.device, *(("--half",) if precision == "fp16" else ()), *flags)}
    words = ["detect.py", "--weights", bench.weights, "--source", bench.images, "--imgsz", bench.sizes.imgsz]
    words += ["--conf-thres", bench.sizes.conf, "--save-txt", "--save-conf", "--nosave"]
    for place, (device, *further) in places.items():
        if not (bench.folder / "detect" / place).is_dir():
            where = ("--device", device, "--project", bench.folder / "detect", "--name", place)
            bench.run(python(*words, *further, *where))
    lost = total = 0
    for image in sorted(bench.images.iterdir()):
        files = [bench.folder / "detect" / place / "labels" / f"{image.stem}.txt" for place in places]
        expected, own = (boxes_of(file) for file in files)
        lost, total = lost + unmatched(own, expected, SAME_BOX[precision]), total + len(own) + len(expected)
    figures = f"{lost} of {total} boxes of both devices are not on the other"
    return Outcome(total > 0 and lost <= UNMATCHED * total, figures)


def hub(bench: Bench) -> Outcome:
    image = min(bench.images.iterdir())
    arguments = {"weights": bench.weights, "image": image, "device": bench.device, "conf": bench.sizes.conf}
    found = {name: torch.tensor(rows).reshape(-1, 6) for name, rows in bench.child(hub_boxes, **arguments).items()}
    expected = found.pop("cpu")
    lost = {name: unmatched(own, expected, SAME_BOX[name]) for name, own in found.items()}
    figures = ", ".join(f"{name}: {count} of {len(expected)} boxes differ" for name, count in lost.items())
    allowed = max(1, math.ceil(2 * UNMATCHED * len(expected)))
    return Outcome(len(expected) > 0 and max(lost.values()) <= allowed, figures)


def classifier(bench: Bench) -> Outcome:
    """Trained on the GPU, evaluated there in fp16 and on the CPU."""
    size = ("--imgsz", 32, "--workers", 0, "--data", bench.folder / "classes", "--batch-size", 16)
    run = ("--model", "resnet18-spd", "--epochs", 2, "--noplots", "--loggers", "none", "--device", bench.device)
    bench.run(python("classify/train.py", *run, *size, "--project", bench.folder / "train-cls", "--name", "exp"))
    weights = bench.folder / "train-cls" / "exp" / "weights" / "last.pt"
    found: list[dict[str, Any]] = []
    for place in (("--device", bench.device, *([] if bench.device == "cpu" else ["--half"])), ("--device", "cpu")):
        name = f"{len(found)}"
        where = ("--project", bench.folder / "val-cls", "--name", name)
        bench.run(python("classify/val.py", "--weights", weights, *size, *place, *where))
        found.append(json.loads((bench.folder / "val-cls" / name / "metrics.json").read_text(encoding="utf-8")))
    own, expected = found
    passed = abs(own["loss"] - expected["loss"]) <= 0.02 * max(expected["loss"], 0.1)
    texts = [f"top-1 {one['top1']:.3f}, loss {one['loss']:.4f}" for one in found]
    return Outcome(passed, "; on the CPU ".join(texts), own["milliseconds_per_picture"])


def copies(bench: Bench) -> Outcome:
    """Batches are copied while kernels run: both together take little more than the longer of the two."""
    found = bench.child(copies_beside_computation, device=bench.device, megabytes=bench.sizes.copied_mib)
    apart = found["copies"] + found["computation"]
    figures = ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in found.items())
    return Outcome(found["both"] <= OVERLAPPED * apart, figures)


def compiled(bench: Bench) -> Outcome:
    """``--compile`` gives the network's boxes, sooner."""
    where = {"imgsz": bench.sizes.fast_imgsz, "device": bench.device, "conf": bench.sizes.conf}
    found = bench.child(compiled_network, weights=bench.weights, **where)
    figures = (
        f"boxes within {found['pixels']:.3f} px, {found['plain']:.2f} ms as it is, compiled in {found['seconds']:.0f} s"
    )
    passed = found["pixels"] <= COMPILED_TOLERANCE and found["compiled"] <= COMPILED_SHARE * found["plain"]
    return Outcome(passed, figures, found["compiled"])


def compiled_evaluation(bench: Bench) -> Outcome:
    """All images in one square frame, as the CPU sees them with ``--square``."""
    own = bench.evaluated("compiled", bench.weights, bench.device, "--compile")
    return same_figures(own, bench.evaluated("cpu-square", bench.weights, "cpu", "--square"), "fp32")


def missing_device(bench: Bench) -> Outcome:
    try:
        bench.run(python("val.py", "--weights", bench.weights, "--data", bench.data, "--device", "99"))
    except RuntimeError as error:
        said = str(error).splitlines()[-1]
        return Outcome(said.startswith("error: --device 99: this machine shows"), said)
    return Outcome(False, "--device 99 was taken")


CHECKS: dict[str, Callable[[Bench], Outcome]] = {
    "training, fp32, beside the CPU": lambda bench: first_losses(bench, "fp32"),
    "training, bf16, beside the CPU": lambda bench: first_losses(bench, "bf16"),
    "training, fp16, beside the CPU": lambda bench: first_losses(bench, "fp16"),
    "training to the end": training_to_the_end,
    "val.py, fp32": lambda bench: evaluation(bench, "fp32"),
    "val.py --half": lambda bench: evaluation(bench, "fp16"),
    "detect.py, fp32": lambda bench: detection(bench, "fp32"),
    "detect.py --half": lambda bench: detection(bench, "fp16"),
    "detect.py --half --batch-size 16": lambda bench: detection(bench, "fp16", "--batch-size=16"),
    "torch.hub, moved to the GPU": hub,
    "TorchScript traced on the CPU": lambda bench: exported(bench, "cpu-traced", "torchscript", "cpu"),
    "TorchScript traced on the GPU": lambda bench: exported(bench, "gpu-traced", "torchscript", bench.device),
    "ONNX": lambda bench: exported(bench, "onnx", "onnx", "cpu", "--dynamic"),
    "TensorRT": lambda bench: exported(bench, "engine", "engine", bench.device),
    "TensorRT, FP16, free sides": lambda bench: exported(bench, "free", "engine", bench.device, "--half", "--dynamic"),
    "resuming": resuming,
    "--batch-size -1 --multi-scale": fitting_batch,
    "training speed, fp32": lambda bench: training_speed(bench, "fp32"),
    "training speed, bf16": lambda bench: training_speed(bench, "bf16"),
    "training speed, fp16": lambda bench: training_speed(bench, "fp16"),
    "classifier": classifier,
    "two GPUs": lambda bench: two_gpus(bench, sync_bn=False),
    "two GPUs, --sync-bn": lambda bench: two_gpus(bench, sync_bn=True),
    "copies beside computation": copies,
    "--compile, fp16": compiled,
    "val.py --compile": compiled_evaluation,
    "a device that is not there": missing_device,
}


def rows_of(bench: Bench, names: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """A row of HEAD for each check, as it ends."""
    start = time.perf_counter()
    for name in names:
        if time.perf_counter() - start > bench.sizes.seconds:
            yield name, "not run", "out of time", ""
            continue
        try:
            found = CHECKS[name](bench)
        except NotRun as reason:
            yield name, "not run", str(reason), ""
        except EXPECTED as error:  # the other checks still say much
            yield name, "FAILED", last_line(error), ""
        else:
            milliseconds = "" if found.milliseconds is None else f"{found.milliseconds:.2f}"
            yield name, "passed" if found.passed else "FAILED", found.figures, milliseconds


def last_line(error: Exception) -> str:
    """What it says at the end, as a cell of a table."""
    return (str(error).splitlines() or [type(error).__name__])[-1].replace("|", "/")


def described() -> list[str]:
    """The machine, a line each."""
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    libraries = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
    return [machine(), *(f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus), libraries]


def check(bench: Bench, names: Sequence[str], page: Path) -> list[tuple[str, str, str, str]]:
    """Run the checks; the table goes to the terminal and to ``page``, line by line. Gives its rows."""
    lines = [*described(), "", table_line(HEAD), table_line(("---", "---", "---", "---:"))]
    print("\n".join(lines), flush=True)
    bench.fill()
    rows = []
    for row in rows_of(bench, names):
        rows.append(row)
        print(table_line(row), flush=True)
        lines.append(table_line(row))
        page.write_text("\n".join(lines) + "\n", encoding="utf-8")  # what is known, should the machine go down
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        "benchmarks.gpu_check", None, __doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="WORD", help="checks whose names have it, and what they need")
    parser.add_argument("--page", type=Path, default=Path("gpu-check.md"), help="file that the table is written to")
    flags = parser.parse_args()
    if not torch.cuda.is_available():
        raise UserError(f"gpu_check: torch {torch.__version__} sees no CUDA GPU here")
    names = [name for name in CHECKS if flags.only in name]
    with tempfile.TemporaryDirectory() as folder:
        rows = check(Bench("0", Path(folder), Sizes()), names, flags.page)
    if failed := [name for name, result, *_ in rows if result == "FAILED"]:
        raise UserError(f"{len(failed)} of {len(rows)} checks failed: {'; '.join(failed)}")


if __name__ == "__main__":
    sys.exit(run_verb(main))

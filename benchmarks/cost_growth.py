"""How time and memory grow with image size, batch, objects per image and images of a data set: tables and plots.

Processor time of one thread (run with OMP_NUM_THREADS=1); memory is the process's peak, each series in a process of
its own, small sizes first. ``order`` is the exponent of growth from the row before: 1 is linear.

python -m benchmarks.cost_growth --plots docs/performance
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import machine, python

COUNTS = (10, 30, 100, 300, 1000)
FASTEST_OF = 3
Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Series:
    """One thing measured over growing sizes. ``prepare`` gives the call to time for a size."""

    title: str
    axis: str
    sizes: Sequence[int]
    prepare: Callable[[int], Call]


def step_of_side(side: int) -> Call:
    return step(side, images=4)


def step_of_batch(images: int) -> Call:
    return step(256, images)


def step(side: int, images: int) -> Call:
    from benchmarks.training_step import CPU, random_batch, training_step
    from models.yolo import DetectionModel, load_architecture
    from utils.runtime.device import placed
    from utils.runtime.reused_memory import reuse_freed_memory
    from utils.runtime.seeds import repeatable_arithmetic

    repeatable_arithmetic(CPU)  # as train.py
    reuse_freed_memory(CPU)
    model = placed(DetectionModel(load_architecture("yolov5n-spd")), CPU).train()
    return training_step(model, random_batch(images, side), torch.float32)


def loss_of_objects(each: int) -> Call:
    """Forward and backward of the loss, 16 images at 320 pixels."""
    from benchmarks.training_step import random_batch
    from models.yolo import DetectionModel, load_architecture
    from utils.config.hyperparameters import Hyperparameters
    from utils.geometry.records import HeadMaps
    from utils.loss.detection_loss import DetectionLoss, LossGains

    model = DetectionModel(load_architecture("yolov5n"))
    loss = DetectionLoss(model.anchors, model.strides, 80, LossGains.from_hyperparameters(Hyperparameters()))
    maps = HeadMaps(tuple(torch.randn(16, 3, grid, grid, 85, requires_grad=True) for grid in (40, 20, 10)))
    batch = random_batch(16, 320, each)
    return lambda: loss(maps, batch).total.backward()  # type: ignore[no-untyped-call]


def nms_of_objects(each: int) -> Call:
    """Suppression at evaluation settings: twenty overlapping predictions of each object among 25 200 rows."""
    from utils.evaluation.evaluate import VALIDATION_NMS
    from utils.geometry.letterbox import FrameSize
    from utils.geometry.records import Predictions
    from utils.inference.nms import non_max_suppression

    torch.manual_seed(0)
    rows, near = 25_200, min(20 * each, 25_200)
    places = torch.rand(each, 2) * 600
    corners = torch.rand(rows, 2) * 600
    corners[:near] = places.repeat(20, 1)[:near] + torch.randn(near, 2) * 2
    boxes = torch.cat((corners, corners + 24), 1)[None]
    objectness = torch.full((1, rows), 1e-4)
    objectness[0, :near] = 0.3 + 0.7 * torch.rand(near)
    predictions = Predictions(boxes, objectness, torch.rand(1, rows, 80) ** 6)
    return lambda: non_max_suppression(predictions, VALIDATION_NMS, FrameSize(640, 640))


def augmentation_of_objects(each: int) -> Call:
    """Sixteen samples at 320 pixels of images that have so many objects each."""
    import cv2

    from utils.config.hyperparameters import read_hyperparameters
    from utils.dataset.detection_dataset import open_dataset
    from utils.dataset.samplers import SampleKey
    from utils.dataset.training_loader import AugmentedImages

    cv2.setNumThreads(0)
    rng = np.random.default_rng(0)
    folder = Path(tempfile.mkdtemp())
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number in range(4):
        cv2.imwrite(str(folder / "images" / f"{number}.jpg"), rng.integers(0, 256, (320, 320, 3), dtype=np.uint8))
        sides = rng.uniform(0.02, 0.1, (each, 2))
        rows = np.column_stack((np.zeros(each), rng.uniform(sides / 2, 1 - sides / 2), sides))
        np.savetxt(folder / "labels" / f"{number}.txt", rows, fmt=["%d", "%.6f", "%.6f", "%.6f", "%.6f"])
    dataset = open_dataset((folder / "images",), ("object",)).cached("ram", long_side=320)
    samples = AugmentedImages(dataset, 320, read_hyperparameters(Path("data/hyps/hyp.scratch-low.yaml")), seed=0)
    return lambda: [samples[SampleKey(0, i, i % 4)] for i in range(16)]


def evaluation_of_objects(each: int) -> Call:
    """Both kinds of figures for 50 images with so many objects and, at most 300, as many detections each."""
    from utils.evaluation.evaluated_images import EvaluatedImage
    from utils.evaluation.evaluation_report import RunFigures, SpeedFigures
    from utils.evaluation.report_on_images import report_on
    from utils.geometry.letterbox import FrameSize
    from utils.geometry.records import Detections, Labels

    rng, frame = np.random.default_rng(0), FrameSize(640, 640)

    def boxes(count: int) -> np.ndarray:
        corners = rng.uniform(0, 560, (count, 2))
        return np.concatenate((corners, corners + rng.uniform(8, 80, (count, 2))), 1).astype(np.float32)

    images = []
    for index in range(50):
        true, kinds = boxes(each), rng.integers(0, 10, each)
        found = min(each, 300)
        near = torch.from_numpy(true[:found] + rng.normal(0, 2, (found, 4)).astype(np.float32))
        scores = torch.from_numpy(np.sort(rng.random(found).astype(np.float32))[::-1].copy())
        labels = Labels(true, kinds, (None,) * each, frame)
        images.append(EvaluatedImage(index, labels, Detections(near, scores, torch.from_numpy(kinds[:found]), frame)))
    figures = RunFigures(None, SpeedFigures(preprocess=0.0, inference=0.0, nms=0.0))
    return lambda: report_on(images, tuple(map(str, range(10))), None, (), figures)


def index_of_images(images: int) -> Call:
    """The first scan of a data set: label files and image headers read, the cache written; two objects an image."""
    from benchmarks.dataset_index import write_set
    from utils.dataset.label_cache import read_label_index

    folder = Path(tempfile.mkdtemp())
    write_set(folder, images, 2 * images)
    names = tuple(map(str, range(80)))
    return lambda: read_label_index((folder / "images",), names, cache_folder=Path(tempfile.mkdtemp()))


SERIES = {
    "side": Series("training step, yolov5n-spd, batch 4", "side, pixels", (128, 192, 256, 384, 512, 640), step_of_side),
    "batch": Series("training step, yolov5n-spd, 256 pixels", "images per batch", (1, 2, 4, 8, 16), step_of_batch),
    "loss": Series("loss, 16 images", "objects per image", COUNTS, loss_of_objects),
    "nms": Series("suppression of one image", "objects per image", COUNTS, nms_of_objects),
    "augmentation": Series("augmentation, 16 samples", "objects per image", COUNTS, augmentation_of_objects),
    "evaluation": Series("evaluation, 50 images", "objects per image", COUNTS, evaluation_of_objects),
    "index": Series("first scan of a data set", "images", (1_000, 10_000, 100_000), index_of_images),
}


def measure(series: Series) -> list[tuple[int, float, float]]:
    """Size, processor seconds, peak MiB of the process so far."""
    rows = []
    for size in series.sizes:
        call = series.prepare(size)
        call()
        seconds = []
        for _ in range(FASTEST_OF):
            before = _processor_seconds()
            call()
            seconds.append(_processor_seconds() - before)
            if seconds[-1] > 5:
                break
        rows.append((size, min(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    return rows


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def order(rows: Sequence[Sequence[float]], place: int) -> str:
    """Exponent of growth from the row before."""
    if place == 0:
        return ""
    (small, before, _), (large, after, _) = rows[place - 1], rows[place]
    return f"{math.log(after / before) / math.log(large / small):.2f}"


def plot(file: Path, names: Sequence[str], measured: dict[str, list[list[float]]]) -> None:
    """One panel per series: seconds on logarithmic axes, and a line of linear growth through the last point."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(names), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        sizes, seconds, _ = zip(*measured[name], strict=True)
        panel.loglog(sizes, seconds, marker=".", color="#0072B2")
        power = 2 if name == "side" else 1
        guide = [seconds[-1] * (size / sizes[-1]) ** power for size in sizes]
        panel.loglog(sizes, guide, color="#999999", linewidth=0.8, linestyle="--")
        panel.set_title(SERIES[name].title, fontsize=8)
        panel.set_xlabel(f"{SERIES[name].axis} (dashed: {'pixels' if power == 2 else 'linear'})", fontsize=7)
        panel.set_ylabel("CPU seconds", fontsize=7)
        panel.tick_params(labelsize=7)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)


def main() -> None:
    """Measure each series in a child process, print tables, draw plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", nargs="*", choices=tuple(SERIES), default=list(SERIES))
    parser.add_argument("--plots", type=Path, help="folder for cost_growth.png")
    parser.add_argument("--own", choices=tuple(SERIES), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.own:
        print(json.dumps(measure(SERIES[flags.own])))
        return
    print(machine(), flush=True)
    measured: dict[str, list[list[float]]] = {}
    for name in flags.series:
        rows: list[list[float]] = python("-m", "benchmarks.cost_growth", "--own", name).json_line()  # type: ignore[assignment]
        measured[name] = rows
        print(f"\n{SERIES[name].title}\n\n| {SERIES[name].axis} | CPU s | order | peak MiB |\n|---:|---:|---:|---:|")
        for place, (size, seconds, memory) in enumerate(rows):
            print(f"| {size:g} | {seconds:.4g} | {order(rows, place)} | {memory:.0f} |", flush=True)
    if flags.plots:
        plot(flags.plots / "cost_growth.png", flags.series, measured)


if __name__ == "__main__":
    main()

"""How time and memory grow with image size, batch, objects per image and images of a data set: tables and plots.

Processor time of one thread (run with OMP_NUM_THREADS=1); memory is the process's peak, each series in a process of
its own, small sizes first. ``order`` is the exponent of growth from the row before: 1 is linear.
"""

from __future__ import annotations

import itertools
import json
import math
import resource
import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.dataset_index import write_set
from benchmarks.measuring import Table, in_child
from benchmarks.own_side import Call, loss_call, samples_call, step_call
from utils.config.detect_flags import DetectConfig
from utils.dataset.detection_dataset import open_dataset
from utils.dataset.label_cache import read_label_index
from utils.evaluation.evaluate import VALIDATION_NMS
from utils.evaluation.evaluation_report import EvaluatedImage, RunFigures, SpeedFigures, report_on
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections, Labels, Predictions
from utils.inference.frames import Frame
from utils.inference.nms import non_max_suppression
from utils.reporting.detection_output import DetectionOutput, FoundInFrame

COUNTS = (10, 30, 100, 300, 1000)
FASTEST_OF = 3
FRAME = FrameSize(640, 640)
IMAGES = (1_000, 10_000, 100_000)
CLASS_NAMES = tuple(map(str, range(80)))


@dataclass(frozen=True, slots=True)
class Series:
    """One thing measured over growing sizes. ``prepare`` gives the call to time for a size."""

    title: str
    axis: str
    sizes: Sequence[int]
    prepare: Callable[[int], Call]


def nms_of_objects(each: int) -> Call:
    """Suppression at evaluation settings: twenty overlapping predictions of each object among 25 200 rows."""
    torch.manual_seed(0)
    rows, near = 25_200, min(20 * each, 25_200)
    places = torch.rand(each, 2) * 600
    corners = torch.rand(rows, 2) * 600
    corners[:near] = places.repeat(20, 1)[:near] + torch.randn(near, 2) * 2
    objectness = torch.full((1, rows), 1e-4)
    objectness[0, :near] = 0.3 + 0.7 * torch.rand(near)
    boxes = torch.cat((corners, corners + 24), 1)[None]
    predictions = Predictions(boxes, objectness, torch.rand(1, rows, 80) ** 6)
    return lambda: non_max_suppression(predictions, VALIDATION_NMS, FRAME)


def augmentation_of_objects(each: int) -> Call:
    """Sixteen samples at 320 pixels of images that have so many objects each."""
    rng = np.random.default_rng(0)
    folder = Path(tempfile.mkdtemp())
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number in range(4):
        cv2.imwrite(str(folder / "images" / f"{number}.jpg"), rng.integers(0, 256, (320, 320, 3), dtype=np.uint8))
        sides = rng.uniform(0.02, 0.1, (each, 2))
        rows = np.column_stack((np.zeros(each), rng.uniform(sides / 2, 1 - sides / 2), sides))
        np.savetxt(folder / "labels" / f"{number}.txt", rows, fmt=["%d", "%.6f", "%.6f", "%.6f", "%.6f"])
    return samples_call(folder / "images", ("object",), 320, 16, "memory")


def evaluation_of_objects(each: int) -> Call:
    """Both kinds of figures for 50 images with so many objects and, at most 300, as many detections each."""
    rng, found, images = np.random.default_rng(0), min(each, 300), []
    for index in range(50):
        corners = rng.uniform(0, 560, (each, 2))
        true = np.concatenate((corners, corners + rng.uniform(8, 80, (each, 2))), 1).astype(np.float32)
        kinds = rng.integers(0, 10, each)
        near = torch.from_numpy(true[:found] + rng.normal(0, 2, (found, 4)).astype(np.float32))
        scores = torch.from_numpy(np.sort(rng.random(found).astype(np.float32))[::-1].copy())
        labels = Labels(true, kinds, (None,) * each, FRAME)
        images.append(EvaluatedImage(index, labels, Detections(near, scores, torch.from_numpy(kinds[:found]), FRAME)))
    figures = RunFigures(None, SpeedFigures(preprocess=0.0, inference=0.0, nms=0.0))
    return lambda: report_on(images, tuple(map(str, range(10))), None, (), figures)


def index_of_images(images: int) -> Call:
    """The first scan of a data set: label files and image headers read, the cache written; two objects an image."""
    folder = Path(tempfile.mkdtemp())
    write_set(folder, images, 2 * images)
    return lambda: read_label_index((folder / "images",), CLASS_NAMES, cache_folder=Path(tempfile.mkdtemp()))


def opening_of_images(images: int) -> Call:
    """What train.py and val.py begin with where the cache is there: the images listed, each with its label file."""
    folder = Path(tempfile.mkdtemp())
    write_set(folder, images, 2 * images)
    return lambda: open_dataset((folder / "images",), CLASS_NAMES, cache_folder=folder)


def opening_of_coco_images(images: int) -> Call:
    """The same where a COCO annotation file has the labels."""
    folder = Path(tempfile.mkdtemp())
    write_set(folder, images, 0)
    shutil.rmtree(folder / "labels")
    boxes = np.random.default_rng(0).uniform(0, 4, (2 * images, 4)).round(2).tolist()
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "width": 8, "height": 8} for i in range(images)],
        "annotations": [
            {"id": i, "image_id": i % images, "category_id": i % 80, "bbox": [x, y, w + 0.1, h + 0.1], "iscrowd": 0}
            for i, (x, y, w, h) in enumerate(boxes)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES)],
    }
    (folder / "all.json").write_text(json.dumps(content))
    return lambda: open_dataset((folder / "images",), CLASS_NAMES, cache_folder=folder, annotations=folder / "all.json")


def outputs_of_images(images: int) -> Call:
    """What detect.py does beside detecting: names, label files, CSV and COCO results of so many images."""
    paths = [Path(f"/images/{number:012d}.jpg") for number in range(images)]
    config = DetectConfig(nosave=True, save_txt=True, save_csv=True, save_json=True)
    boxes, pixels = torch.tensor([[1.0, 2, 30, 40], [5, 6, 70, 80]]), np.zeros((1, 1, 3), np.uint8)
    found = Detections(boxes, torch.tensor([0.9, 0.5]), torch.tensor([0, 1]), FRAME)

    def write() -> None:
        folder = Path(tempfile.mkdtemp())
        with DetectionOutput(folder, config, dict.fromkeys(paths, False)) as output:
            for path in paths:
                output.write(FoundInFrame(Frame(pixels, path, 0, None), found, CLASS_NAMES))
        shutil.rmtree(folder)

    return write


SPD = "yolov5n-spd"
SERIES = {
    "side": Series(
        f"training step, {SPD}, batch 4",
        "side, pixels",
        (128, 192, 256, 384, 512, 640),
        lambda side: step_call(SPD, "fp32", side, 4),
    ),
    "batch": Series(
        f"training step, {SPD}, 256 pixels",
        "images per batch",
        (1, 2, 4, 8, 16),
        lambda images: step_call(SPD, "fp32", 256, images),
    ),
    "loss": Series("loss, 16 images", "objects per image", COUNTS, lambda each: loss_call(320, 16, each)),
    "nms": Series("suppression of one image", "objects per image", COUNTS, nms_of_objects),
    "augmentation": Series("augmentation, 16 samples", "objects per image", COUNTS, augmentation_of_objects),
    "evaluation": Series("evaluation, 50 images", "objects per image", COUNTS, evaluation_of_objects),
    "index": Series("first scan of a data set", "images", IMAGES, index_of_images),
    "opening": Series("a data set opened again, label files", "images", IMAGES, opening_of_images),
    "coco": Series("a data set opened again, COCO JSON", "images", IMAGES, opening_of_coco_images),
    "outputs": Series("names, label files, CSV and COCO JSON of detect.py", "images", IMAGES, outputs_of_images),
}


def measure(name: str, sizes: int) -> list[tuple[int, float, float]]:
    """Size, processor seconds, peak MiB of the process so far, of the first ``sizes`` sizes of a series."""
    rows = []
    for size in SERIES[name].sizes[:sizes]:
        call = SERIES[name].prepare(size)
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


def tables(flags: Namespace) -> Iterator[Table]:
    """A table per series; ``--share`` takes the first of its sizes only."""
    measured = {}
    for name in flags.only:
        series = SERIES[name]
        count = max(round(flags.share * len(series.sizes)), 1)
        measured[name] = rows = in_child(measure, name=name, sizes=count).result()
        orders = ["", *(f"{_order(*pair):.2f}" for pair in itertools.pairwise(rows))]
        cells = [
            (size, f"{seconds:.4g}", order, f"{mib:.0f}")
            for (size, seconds, mib), order in zip(rows, orders, strict=True)
        ]
        yield Table((series.axis, "CPU s", "order", "peak MiB"), cells, series.title)
    if flags.plots:
        plot(Path(flags.plots) / "cost_growth.png", measured)


def _order(small: Sequence[float], large: Sequence[float]) -> float:
    """Exponent of growth between two rows."""
    return math.log(large[1] / small[1]) / math.log(large[0] / small[0])


def plot(file: Path, measured: dict[str, list[list[float]]]) -> None:
    """One panel per series: seconds on logarithmic axes, and a line of linear growth through the last point."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(measured), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, (name, rows) in zip(figure.subplots(1, len(measured), squeeze=False)[0], measured.items(), strict=True):
        sizes, seconds, _ = zip(*rows, strict=True)
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

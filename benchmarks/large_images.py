"""Small objects in large images: detected whole, in our tiles and in sahi's; learned from tiles and from shrunk images.

``slicing``: demo scenes of 2176 x 2176 pixels with objects of 10 to 20 pixels: tiles of 640 that overlap by 0.2 fit
that side exactly, so that both programs cut the same tiles. sahi is asked through its own DetectionModel around our
predictor, with its defaults (greedy merging; for low scores it takes NMS instead, and says so). Without sahi
(pip install sahi) its row is left out.

``tiled_training``: scenes of 3008 x 3008 pixels with objects of 6 to 40 pixels. One model learns from windows of
``--tile`` pixels (train.py --tile) and is evaluated by slicing; others learn from whole images shrunk to ``--shrunk``
pixels and are evaluated at that size. As many pixels go through each network in training.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import Table, each_of, python
from utils.dataset.demo_scenes import NAMES, SceneObjects, draw_scene, write_image
from utils.dataset.detection_dataset import open_dataset
from utils.dataset.image_files import read_image
from utils.dataset.label_files import read_label_file
from utils.dataset.tiled_dataset import tiled_index
from utils.evaluation.coco_average_precision import coco_figures, findings_from_detections, truth_from_labels
from utils.geometry.boxes import cxcywh_to_xyxy
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections, Labels
from utils.inference.model_files import load_backend
from utils.inference.nms import NmsSettings
from utils.inference.predictor import Predictor, PredictorSettings
from utils.inference.slicing import SlicedPredictor, SliceSettings

SLICED_SIDE = 2176  # pixels: 640 + 3 * 512
TILE, OVERLAP = 640, 0.2
LENGTHS = (10.0, 20.0)  # of objects, pixels
PER_KIND = 40
MOST = 1000  # detections per image

Detect = Callable[[np.ndarray], Detections]


@dataclass(frozen=True, slots=True)
class Tally:
    """What one way has found, and how long it took."""

    found: list[Detections] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)  # what other processes take does not count

    def add(self, detect: Detect, image: np.ndarray) -> None:
        start, start_processor = time.perf_counter(), time.process_time()
        self.found.append(detect(image))
        self.seconds.append(time.perf_counter() - start)
        self.processor_seconds.append(time.process_time() - start_processor)


def slicing(flags: Namespace) -> Iterator[Table]:
    """Detect in every image in every way, in turn."""
    images = large_scenes(Path(flags.folder), flags.images)
    ways = ways_to_detect(Path(flags.weights), flags.conf, flags.batch_size)
    tallies = {name: Tally() for name in ways}
    for image, _ in images:
        for name, detect in ways.items():
            tallies[name].add(detect, image)
    known = truth_from_labels([labels for _, labels in images])
    rows = []
    for name, tally in tallies.items():
        figures = coco_figures(known, findings_from_detections(tally.found)).summary
        times = [f"{1e3 * median(own):.0f}" for own in (tally.seconds, tally.processor_seconds)]
        rows.append([name, f"{figures.AP_S:.4f}", f"{figures.AP50:.4f}", f"{figures.AR_S:.4f}", *times])
    title = f"{len(images)} images of {SLICED_SIDE} px, {len(known.classes)} objects of 10 to 20 px"
    yield Table(("way", "AP_S", "AP50", "AR_S", "ms per image", "CPU ms"), rows, title)


def large_scenes(folder: Path, count: int) -> list[tuple[np.ndarray, Labels]]:
    """Images (H, W, 3) RGB and their labels; those that are not in the folder are drawn and written."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = []
    for number in range(count):
        path = folder / f"{number:03d}.jpg"
        if not path.with_suffix(".txt").exists():
            write_scene(path, folder, (2176, number), SLICED_SIDE, SceneObjects(LENGTHS, PER_KIND))
        image = read_image(path)
        height, width = image.shape[:2]
        rows = read_label_file(path.with_suffix(".txt")).rows
        boxes = cxcywh_to_xyxy(rows[:, 1:]) * np.array([width, height] * 2, dtype=np.float32)
        labels = Labels(boxes, rows[:, 0].astype(np.int64), (None,) * len(rows), FrameSize(height, width))
        scenes.append((image, labels))
    return scenes


def write_scene(path: Path, labels: Path, seed: tuple[int, int], side: int, objects: SceneObjects) -> None:
    """Draw a square image and write it, and its label file into the folder ``labels``."""
    image, rows, quality = draw_scene(np.random.default_rng(seed), (side, side), objects=objects)
    write_image(path, image, quality)
    (labels / f"{path.stem}.txt").write_text("".join(rows), encoding="utf-8")


def ways_to_detect(weights: Path, conf: float, batch_size: int) -> dict[str, Detect]:
    """The ways by name."""
    device = torch.device("cpu")
    nms = NmsSettings(conf, 0.45, MOST)
    predictor = Predictor(load_backend(weights, device), PredictorSettings(nms, FrameSize(TILE, TILE)), device)
    ways: dict[str, Detect] = {"whole image at 640": partial(first_of, predictor)}
    for merge in ("nms", "greedy"):
        sliced = SlicedPredictor(predictor, SliceSettings(TILE, OVERLAP, merge), batch_size)
        ways[f"--slice 640 --slice-merge {merge}"] = partial(first_of, sliced)
    if importlib.util.find_spec("sahi") is None:
        print("sahi is not installed: its row is left out (pip install sahi)")
    else:
        ways["sahi, its defaults"] = detect_with_sahi(predictor, conf, batch_size)
    return ways


def first_of(detect: Callable[[list[np.ndarray]], list[Detections]], image: np.ndarray) -> Detections:
    return detect([image])[0]


def detect_with_sahi(predictor: Predictor, conf: float, batch_size: int) -> Detect:
    """sahi's sliced prediction, its defaults, around the same predictor."""
    from sahi.models.base import DetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.prediction import ObjectPrediction

    class Wrapper(DetectionModel):  # type: ignore[misc]
        """sahi's face of the predictor."""

        def load_model(self) -> None:
            self.model = predictor
            self.category_mapping = {str(number): name for number, name in enumerate(predictor.names)}

        def perform_inference(self, image: np.ndarray) -> None:
            self._original_predictions = predictor([image])

        def perform_batch_inference(self, images: list[np.ndarray]) -> None:
            self._original_predictions = predictor(images)

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: Any = None, full_shape_list: Any = None
        ) -> None:
            shifts = shift_amount_list if isinstance(shift_amount_list[0], list | tuple) else [shift_amount_list]
            shapes = full_shape_list or [None] * len(shifts)
            shapes = shapes if shapes[0] is None or isinstance(shapes[0], list | tuple) else [shapes]
            found = [(one.boxes, one.classes, one.scores) for one in self._original_predictions]
            self._object_prediction_list_per_image = [
                [
                    ObjectPrediction(
                        bbox=box,
                        category_id=kind,
                        category_name=predictor.names[kind],
                        score=score,
                        shift_amount=list(shift),
                        full_shape=shape,
                    )
                    for box, kind, score in zip(*map(torch.Tensor.tolist, one), strict=True)
                ]
                for one, shift, shape in zip(found, shifts, shapes, strict=True)
            ]

    model = Wrapper(confidence_threshold=conf, device="cpu")
    tiles: dict[str, float] = {"slice_height": TILE, "slice_width": TILE}
    tiles |= {"overlap_height_ratio": OVERLAP, "overlap_width_ratio": OVERLAP, "batch_size": batch_size}

    def detect(image: np.ndarray) -> Detections:
        result = get_sliced_prediction(image, model, **tiles, verbose=0)
        rows = sorted(result.object_prediction_list, key=lambda one: -one.score.value)[:MOST]
        return Detections(
            boxes=torch.tensor([one.bbox.to_xyxy() for one in rows], dtype=torch.float32).reshape(-1, 4),
            scores=torch.tensor([one.score.value for one in rows], dtype=torch.float32),
            classes=torch.tensor([one.category.id for one in rows], dtype=torch.int64),
            size=FrameSize(*image.shape[:2]),
        )

    return detect


FIGURES = ("AP", "AP50", "AP_S", "AP_M")
TILED_SIDE = 3008  # pixels
DENSITY = 0.15  # of the usual scenes: COCO's figures admit 100 detections per class and image
MODEL = ("--cfg", "yolov5n-spd.yaml", "--hyp", "data/hyps/hyp.demo.yaml", "--optimizer", "AdamW")


@dataclass(frozen=True, slots=True)
class Way:
    """One way to train."""

    name: str
    side: int  # of what the network sees, pixels
    epochs: int
    samples: int  # per epoch
    tile: int | None = None


def write_images(folder: Path, counts: dict[str, int]) -> Path:
    """The data set, unless it is there; its YAML."""
    yaml = folder / "large-scenes.yaml"
    if yaml.is_file():
        return yaml
    for part, (split, count) in enumerate(counts.items()):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, labels = folder / "images" / split / f"{number:03d}.jpg", folder / "labels" / split
            write_scene(image, labels, (number, part), TILED_SIDE, SceneObjects(density=DENSITY))
    yaml.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: [{', '.join(NAMES)}]\n")
    return yaml


def ways_to_train(folder: Path, tile: int, epochs: int, shrunk: Sequence[int]) -> list[Way]:
    """The tiled training, and those on shrunk images with as many pixels over all epochs."""
    index = open_dataset((folder / "images" / "train",), NAMES).index
    windows, images = len(tiled_index(index, tile)[0]), len(index)
    pixels = epochs * windows * tile**2
    ways = [Way(f"tiles of {tile}", tile, epochs, windows, tile)]
    return ways + [Way(f"shrunk to {side}", side, round(pixels / (images * side**2)), images) for side in shrunk]


def row_of(way: Way, data: Path, flags: Namespace) -> list[object]:
    """Train and evaluate in processes of their own; the way, processor seconds of training, AP by size."""
    runs, name = data.parent / "runs", way.name.replace(" ", "-")
    common = ["--data", data, "--precision", flags.precision, "--img", way.side, "--workers", 1, "--project", runs]
    common += ["--exist-ok", "--name"]
    words = ["train.py", "--weights", flags.weights, *MODEL, *common, name, "--epochs", way.epochs, "--batch-size", 8]
    _, cost = python(*words, "--noval", "--noplots", *(["--tile", way.tile] if way.tile else [])).finished()
    words = ["val.py", "--weights", runs / name / "weights" / "last.pt", *common, f"val-{name}"]
    python(*words, *(["--slice", way.tile] if way.tile else [])).finished()
    metrics: dict[str, float | None] = json.loads((runs / f"val-{name}" / "metrics.json").read_text())
    figures = ["-" if value is None else f"{value:.3f}" for value in map(metrics.__getitem__, FIGURES)]
    return [way.name, way.samples, way.epochs, f"{cost.cpu:.0f}", *figures]


def tiled_training(flags: Namespace) -> Iterator[Table]:
    """A row per way; ``--at-once`` tries them side by side."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(flags.folder or temporary).resolve()
        data = write_images(folder, {"train": flags.train, "val": flags.val})
        ways = ways_to_train(folder, flags.tile, flags.epochs, flags.shrunk)
        rows = each_of(lambda way: row_of(way, data, flags), ways, at_once=flags.at_once)
        title = f"{flags.train} images of {TILED_SIDE} x {TILED_SIDE} pixels to learn from, {flags.val} to evaluate on"
        yield Table(("training", "samples", "epochs", "CPU s", *FIGURES), rows, title)

"""Training on tiles of large images beside training on the images shrunk, at the same cost.

Generated images of 3008 x 3008 pixels hold objects of 6 to 40 pixels. One model learns from windows of ``--tile``
pixels (train.py --tile) and is evaluated by slicing; others learn from whole images shrunk to ``--shrunk`` pixels and
are evaluated at that size. As many pixels go through each network in training; processor time, which other programs on
the machine change little, is printed beside.
"""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measuring import Table, each_of, python
from utils.dataset.demo_scenes import NAMES, SceneObjects, draw_scene, write_image
from utils.dataset.detection_dataset import open_dataset
from utils.dataset.tiled_dataset import tiled_index

FIGURES = ("AP", "AP50", "AP_S", "AP_M")
SIDE = 3008  # pixels
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
            rng = np.random.default_rng((number, part))
            image, rows, quality = draw_scene(rng, (SIDE, SIDE), objects=SceneObjects(density=DENSITY))
            write_image(folder / "images" / split / f"{number:03d}.jpg", image, quality)
            (folder / "labels" / split / f"{number:03d}.txt").write_text("".join(rows), encoding="utf-8")
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
    metrics: dict[str, float] = json.loads((runs / f"val-{name}" / "metrics.json").read_text())
    figures = [f"{metrics[figure]:.3f}" for figure in FIGURES]
    return [way.name, way.samples, way.epochs, f"{cost.cpu:.0f}", *figures]


def tables(flags: Namespace) -> Iterator[Table]:
    """A row per way; ``--at-once`` tries them side by side."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(flags.folder or temporary).resolve()
        data = write_images(folder, {"train": flags.train, "val": flags.val})
        ways = ways_to_train(folder, flags.tile, flags.epochs, flags.shrunk)
        rows = each_of(lambda way: row_of(way, data, flags), ways, at_once=flags.at_once)
        title = f"{flags.train} images of {SIDE} x {SIDE} pixels to learn from, {flags.val} to evaluate on"
        yield Table(("training", "samples", "epochs", "CPU s", *FIGURES), rows, title)

"""Training on tiles of large images beside training on the images shrunk, at the same cost.

Generated images of 3008 x 3008 pixels hold objects of 6 to 40 pixels. One model learns from windows of ``--tile``
pixels (train.py --tile) and is evaluated by slicing; others learn from whole images shrunk to ``--shrunk`` pixels and
are evaluated at that size. As many pixels go through each network in training; processor time, which other programs on
the machine change little, is printed beside.

python -m benchmarks.tiled_training --precision bf16
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measuring import machine, python
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    cpu_seconds: float
    figures: Mapping[str, float]


def write_images(folder: Path, counts: dict[str, int], processes: int) -> Path:
    """The data set, unless it is there; its YAML."""
    yaml = folder / "large-scenes.yaml"
    if not yaml.is_file():
        jobs = [(folder, split, number) for split in counts for number in range(counts[split])]
        for kind in ("images", "labels"):
            for split in counts:
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(processes) as pool:
            list(pool.map(_write_scene, jobs))
        yaml.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: [{', '.join(NAMES)}]\n")
    return yaml


def _write_scene(job: tuple[Path, str, int]) -> None:
    folder, split, number = job
    rng = np.random.default_rng((number, ("train", "val").index(split)))
    image, rows, quality = draw_scene(rng, (SIDE, SIDE), objects=SceneObjects(density=DENSITY))
    write_image(folder / "images" / split / f"{number:03d}.jpg", image, quality)
    (folder / "labels" / split / f"{number:03d}.txt").write_text("".join(rows), encoding="utf-8")


def ways_to_train(folder: Path, tile: int, epochs: int, shrunk: Sequence[int]) -> list[Way]:
    """The tiled training, and those on shrunk images with as many pixels over all epochs."""
    index = open_dataset((folder / "images" / "train",), NAMES).index
    windows, images = len(tiled_index(index, tile)[0]), len(index)
    pixels = epochs * windows * tile**2
    ways = [Way(f"tiles of {tile}", tile, epochs, windows, tile)]
    return ways + [Way(f"shrunk to {side}", side, round(pixels / (images * side**2)), images) for side in shrunk]


def tried(way: Way, data: Path, weights: str, precision: str) -> Outcome:
    """Train and evaluate in processes of their own."""
    runs, name = data.parent / "runs", way.name.replace(" ", "-")
    common: list[str | Path] = [
        "--data",
        data,
        "--precision",
        precision,
        "--workers",
        "1",
        "--project",
        runs,
        "--exist-ok",
    ]
    size = ["--img", str(way.side), "--epochs", str(way.epochs), "--batch-size", "8"]
    tiles = ["--tile", str(way.tile)] if way.tile else []
    done = python(
        "train.py", "--weights", weights, *MODEL, *common, *size, "--name", name, "--noval", "--noplots", *tiles
    ).run()
    slices = ["--slice", str(way.tile)] if way.tile else []
    trained = runs / name / "weights" / "last.pt"
    python("val.py", "--weights", trained, *common, "--img", str(way.side), "--name", f"val-{name}", *slices).run()
    metrics: dict[str, float] = json.loads((runs / f"val-{name}" / "metrics.json").read_text())
    return Outcome(done.cpu_seconds, {figure: metrics[figure] for figure in FIGURES})


def main() -> None:
    """Train and evaluate each way, print a table of AP by size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="for images and runs, kept; else a temporary one")
    parser.add_argument("--train", type=int, default=12, help="images to learn from")
    parser.add_argument("--val", type=int, default=4, help="images to judge by")
    parser.add_argument("--tile", type=int, default=320)
    parser.add_argument("--shrunk", type=int, nargs="+", default=[640, 1280])
    parser.add_argument("--epochs", type=int, default=4, help="of the tiled training")
    parser.add_argument("--weights", default="", help="to start from; by default random ones")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--at-once", type=int, default=1, help="ways that are tried at the same time")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (flags.folder or Path(temporary)).resolve()
        data = write_images(folder, {"train": flags.train, "val": flags.val}, processes=2)
        ways = ways_to_train(folder, flags.tile, flags.epochs, flags.shrunk)
        with ThreadPoolExecutor(flags.at_once) as pool:
            outcomes = list(pool.map(lambda way: tried(way, data, flags.weights, flags.precision), ways))
    print(f"{flags.train} images of {SIDE} x {SIDE} pixels to learn from, {flags.val} to judge by ({machine()})\n")
    print("| training | samples | epochs | CPU s | AP | AP50 | AP_S | AP_M |\n|---|---:|---:|---:|---:|---:|---:|---:|")
    for way, outcome in zip(ways, outcomes, strict=True):
        figures = " | ".join(f"{outcome.figures[key]:.3f}" for key in FIGURES)
        print(f"| {way.name} | {way.samples} | {way.epochs} | {outcome.cpu_seconds:.0f} | {figures} |")


if __name__ == "__main__":
    main()

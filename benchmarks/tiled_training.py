"""Training on tiles of large pictures beside training on the pictures shrunk, for the same time.

Generated pictures of 3008 x 3008 pixels hold objects of 6 to 40 pixels. One model learns from windows of ``--tile``
pixels (train.py --tile) and is evaluated by slicing; others learn from whole pictures shrunk to ``--shrunk`` pixels,
for as many epochs as the first one's time allows, and are evaluated at that size.

python -m benchmarks.tiled_training --precision bf16
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.measuring import Command, machine, python
from utils.dataset.demo_scenes import NAMES, SceneObjects, draw_scene, write_picture

FIGURES = ("AP", "AP50", "AP_S", "AP_M")
SIDE = 3008  # pixels
DENSITY = 0.15  # of the usual scenes: COCO's figures admit 100 detections per class and picture
MODEL = ("--weights", "", "--cfg", "yolov5n-spd.yaml", "--hyp", "data/hyps/hyp.demo.yaml", "--optimizer", "AdamW")


def write_pictures(folder: Path, counts: dict[str, int], processes: int) -> Path:
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
    write_picture(folder / "images" / split / f"{number:03d}.jpg", image, quality)
    (folder / "labels" / split / f"{number:03d}.txt").write_text("".join(rows), encoding="utf-8")


def main() -> None:
    """Train and evaluate each way, print a table of AP by size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="for pictures and runs, kept; else a temporary one")
    parser.add_argument("--train", type=int, default=16, help="pictures to learn from")
    parser.add_argument("--val", type=int, default=6, help="pictures to judge by")
    parser.add_argument("--tile", type=int, default=320)
    parser.add_argument("--shrunk", type=int, nargs="+", default=[640, 1280])
    parser.add_argument("--epochs", type=int, default=4, help="of the tiled training")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--processes", type=int, default=2, help="that draw the pictures")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (flags.folder or Path(temporary)).resolve()
        data = write_pictures(folder, {"train": flags.train, "val": flags.val}, flags.processes)
        common = ["--data", data, "--precision", flags.precision, "--workers", "1", "--project", folder / "runs"]
        common += ["--exist-ok"]

        def trained(name: str, side: int, epochs: int, *more: str) -> float:
            """Seconds of a training run without validation in between."""
            size = ("--img", str(side), "--epochs", str(epochs), "--name", name, "--batch-size", "8")
            return python("train.py", *MODEL, *common, *size, "--noval", "--noplots", *more).run().seconds

        def judged(name: str, side: int, *more: str) -> dict[str, float]:
            weights = folder / "runs" / name / "weights" / "last.pt"
            words = ["val.py", "--weights", weights, *common, "--img", str(side), "--name", f"val-{name}", *more]
            command: Command = python(*words)
            command.run()
            metrics: dict[str, float] = json.loads((folder / "runs" / f"val-{name}" / "metrics.json").read_text())
            return {name: metrics[name] for name in FIGURES}

        budget = trained("tiled", flags.tile, flags.epochs, "--tile", str(flags.tile))
        rows = [
            (f"tiles of {flags.tile}", flags.epochs, budget, judged("tiled", flags.tile, "--slice", str(flags.tile)))
        ]
        print(rows[0], file=sys.stderr)
        for side in flags.shrunk:
            one, three = (trained(f"try-{side}", side, epochs) for epochs in (1, 3))
            each = (three - one) / 2
            epochs = max(round((budget - one) / each) + 1, 1)
            seconds = trained(f"shrunk-{side}", side, epochs)
            rows.append((f"shrunk to {side}", epochs, seconds, judged(f"shrunk-{side}", side)))
            print(rows[-1], file=sys.stderr)
    print(f"\n{flags.train} pictures of {SIDE} x {SIDE} pixels to learn from, {flags.val} to judge by ({machine()})\n")
    print("| training | epochs | s | AP | AP50 | AP_S | AP_M |\n|---|---:|---:|---:|---:|---:|---:|")
    for name, epochs, seconds, coco in rows:
        figures = " | ".join(f"{coco[key]:.3f}" for key in FIGURES)
        print(f"| {name} | {epochs} | {seconds:.0f} | {figures} |")


if __name__ == "__main__":
    main()

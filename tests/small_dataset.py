"""A data set of coloured rectangles, small enough to train on within seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

NAMES = ("red", "green", "blue")
COLOURS = ((220, 40, 40), (40, 200, 60), (40, 60, 220))  # RGB


def write_small_dataset(folder: Path, *, train: int = 24, val: int = 8, seed: int = 0) -> Path:
    """Write images of 96 x 128 pixels with 1 to 4 rectangles of 10 to 40 pixels each; the dataset YAML's path."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            image, rows = _image(rng)
            cv2.imwrite(str(folder / "images" / split / f"{number:03d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            (folder / "labels" / split / f"{number:03d}.txt").write_text("".join(rows))
    yaml = folder / "small.yaml"
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(NAMES))
    yaml.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return yaml


def _image(rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    height, width = 96, 128
    image = rng.integers(90, 150, (height, width, 3), dtype=np.uint8)
    rows = []
    for _ in range(int(rng.integers(1, 5))):
        kind = int(rng.integers(len(NAMES)))
        w, h = (int(side) for side in rng.integers(10, 41, 2))
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        image[y : y + h, x : x + w] = COLOURS[kind]
        rows.append(f"{kind} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}\n")
    return image, rows

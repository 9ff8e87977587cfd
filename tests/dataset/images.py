"""Small data sets written for tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from utils.dataset.detection_dataset import DetectionDataset, open_dataset

NAMES = ("square", "disc", "bar")


def write_image(path: Path, image: np.ndarray) -> Path:
    """RGB, grey or RGBA ``image`` in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    assert cv2.imwrite(str(path), image)
    return path


def write_labels(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def small_dataset(root: Path, count: int = 6, *, outlines: bool = False) -> DetectionDataset:
    """``count`` noisy images of different sizes, each with two objects."""
    rng = np.random.default_rng(0)
    for i in range(count):
        height, width = 40 + 8 * (i % 3), 72 - 8 * (i % 4)
        write_image(root / "images" / f"{i}.png", rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        second = f"{(i + 1) % 3} 0.55 0.5 0.95 0.5 0.95 0.9 0.55 0.9" if outlines else f"{(i + 1) % 3} 0.75 0.7 0.4 0.4"
        write_labels(root / "labels" / f"{i}.txt", f"{i % 3} 0.3 0.3 0.4 0.3", second)
    return open_dataset((root / "images",), NAMES, cache_folder=root)

"""A folder of coloured squares, one class per colour, small enough to learn within seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 40, 40)}  # RGB


def coloured_square(colour: str, rng: np.random.Generator, side: int = 32) -> np.ndarray:
    """An image (S, S, 3) uint8 RGB of noise with a square of the colour somewhere in it."""
    image = rng.integers(90, 150, (side, side, 3), dtype=np.uint8)
    length = int(rng.integers(side // 3, side // 2))
    y, x = (int(at) for at in rng.integers(0, side - length, 2))
    image[y : y + length, x : x + length] = COLOURS[colour]
    return image


def write_small_classes(folder: Path, *, train: int = 8, evaluated: int = 4, part: str = "val", seed: int = 0) -> Path:
    """Write ``train`` images per class to learn from and ``evaluated`` to evaluate on; the folder."""
    rng = np.random.default_rng(seed)
    for name, count in (("train", train), (part, evaluated)):
        for colour in COLOURS:
            (folder / name / colour).mkdir(parents=True)
            for number in range(count):
                image = cv2.cvtColor(coloured_square(colour, rng), cv2.COLOR_RGB2BGR)
                cv2.imwrite(str(folder / name / colour / f"{number:03d}.png"), image)
    return folder

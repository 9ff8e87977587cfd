"""Images with their classes: what is learned from, and what was predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.dataset.classification_loaders import ClassificationTrainingLoader
from utils.reporting.detection_files import write_image

SHOWN = 64  # images of a batch
SMALLEST_TILE = 96  # pixels: smaller images are enlarged, so that names can be read
CAPTION = 16  # pixels under each image


def write_training_batch(path: Path, loader: ClassificationTrainingLoader) -> None:
    """The first images of the epoch to come, as the model will see them, with their classes."""
    batch = next(loader.first(1))
    images = batch.images[:SHOWN].permute(0, 2, 3, 1).numpy()
    names = [loader.dataset.names[index] for index in batch.classes.tolist()]
    write_image(path, captioned_tiles(list(images), names))


def captioned_tiles(images: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Square images (S, S, 3) uint8 RGB of one size in a grid, each with a line under it."""
    side = max(images[0].shape[0], SMALLEST_TILE)
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    grid = np.full((rows * (side + CAPTION), columns * side, 3), 255, dtype=np.uint8)
    for number, (image, caption) in enumerate(zip(images, captions, strict=False)):
        top, left = number // columns * (side + CAPTION), number % columns * side
        tile = cv2.resize(image, (side, side), interpolation=cv2.INTER_NEAREST)
        grid[top : top + side, left : left + side] = tile
        strip = grid[top + side : top + side + CAPTION, left : left + side]  # wide letters end at its border
        cv2.putText(
            strip, caption[: side // 7], (2, CAPTION - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA
        )
    return grid

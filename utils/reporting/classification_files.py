"""What a classification run writes: rows of ``results.csv``, an evaluation's table and ``metrics.json``, images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.evaluation.classification import ClassificationReport
from utils.reporting.detection_files import write_image
from utils.reporting.image_grid import image_grid
from utils.runtime.atomic_files import write_text

NAME_WIDTH = 22
SHOWN = 64  # images of a batch
SMALLEST_TILE = 96  # pixels: smaller images are enlarged, so that names can be read
CAPTION = 16  # pixels under each image


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationRecord:
    """Figures of one epoch; NaN where the epoch was not evaluated."""

    epoch: int  # from 0
    part: str = "val"  # that was evaluated: val or test
    train_loss: float
    val_loss: float = math.nan
    top1: float = math.nan
    top5: float = math.nan
    lr0: float

    @property
    def evaluated(self) -> bool:
        return not math.isnan(self.top1)

    @property
    def fitness(self) -> float:
        """Top-1 accuracy, by which YOLOv5 chooses the best epoch."""
        return self.top1

    def line(self) -> str:
        """The epoch for the console."""
        text = f"epoch {self.epoch}: loss {self.train_loss:.4f}"
        if not self.evaluated:
            return text
        return f"{text} | {self.part} loss {self.val_loss:.4f}  top-1 {self.top1:.4f}  top-5 {self.top5:.4f}"

    def row(self) -> dict[str, float]:
        """Figures by YOLOv5's column names, NaN for what was not measured."""
        return {
            "epoch": self.epoch,
            "train/loss": self.train_loss,
            f"{self.part}/loss": self.val_loss,
            "metrics/accuracy_top1": self.top1,
            "metrics/accuracy_top5": self.top5,
            "lr/0": self.lr0,
        }

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def accuracy_table(report: ClassificationReport, *, verbose: bool) -> str:
    """Top-1 and top-5 accuracy of the whole and, with ``verbose``, of each class; a dash for one without images."""
    rows = [("all", report.images, report.top1, report.top5)]
    if verbose:
        rows += zip(
            report.names,
            report.class_images.tolist(),
            report.class_top1.tolist(),
            report.class_top5.tolist(),
            strict=True,
        )
    width = max(NAME_WIDTH, *(len(name) + 2 for name, *_ in rows))
    lines = [f"{'Class':>{width}}{'Images':>11}{'top1_acc':>11}{'top5_acc':>11}"]
    lines += [f"{name:>{width}}{images:>11}{_text(top1):>11}{_text(top5):>11}" for name, images, top1, top5 in rows]
    return "\n".join(lines)


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def write_accuracy(
    path: Path, report: ClassificationReport, weights: str | Path, settings: Mapping[str, object]
) -> dict[str, object]:
    """Write ``metrics.json`` and give its content."""
    classes = zip(report.names, report.class_images.tolist(), report.class_top1.tolist(), strict=True)
    content: dict[str, object] = {
        "top1": report.top1,
        "top5": report.top5,
        "loss": report.loss,
        "images": report.images,
        "milliseconds_per_picture": report.milliseconds,
        "classes": [
            {"name": name, "images": images, "top1": None if math.isnan(top1) else top1}
            for name, images, top1 in classes
        ],
        "confusion": report.confusion.tolist(),  # rows predicted, columns true
        "weights": str(weights),
        "settings": dict(settings),
    }
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")
    return content


def write_class_images(path: Path, images: np.ndarray, names: Sequence[str]) -> None:
    """Write the first of images (B, S, S, 3) uint8 RGB, each with the name of its class."""
    write_image(path, captioned_tiles(list(images[:SHOWN]), names[:SHOWN]))


def captioned_tiles(images: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Square images (S, S, 3) uint8 RGB of one size in a grid, each with a line under it."""
    side = max(images[0].shape[0], SMALLEST_TILE)
    cells = []
    for image, caption in zip(images, captions, strict=True):
        cell = np.full((side + CAPTION, side, 3), 255, dtype=np.uint8)
        cell[:side] = cv2.resize(image, (side, side), interpolation=cv2.INTER_NEAREST)
        place = (2, side + CAPTION - 4)
        cv2.putText(cell, caption[: side // 7], place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        cells.append(cell)
    return image_grid(cells)

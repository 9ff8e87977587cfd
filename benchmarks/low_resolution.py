"""A data set's images made small, so that their objects are small: the low-resolution case on any data."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import yaml

from utils.config.dataset_yaml import DatasetSpec
from utils.dataset.detection_dataset import DetectionDataset, open_dataset

PARTS = ("train", "val")


def write_low_resolution(spec: DatasetSpec, side: int, folder: Path, most: int | None = None) -> Path:
    """Write the train and val parts of ``spec`` under ``folder`` in YOLO format; the dataset YAML's path.

    Of the training images at most the first ``most`` are written.

    No image is longer than ``side`` pixels afterwards; each new pixel is the mean of those it covers, as in a camera
    with fewer of them. Images are PNG, so that nothing else is lost.
    """
    file = low_resolution_yaml(folder)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in PARTS:
        sources = open_dataset(spec.split(part), spec.names, title=part)
        count = min(len(sources), most or len(sources)) if part == "train" else len(sources)
        for number in range(count):
            _write_image(sources, number, side, unfinished, part)
    content: dict[str, object] = {"path": str(folder.resolve()), **{part: f"images/{part}" for part in PARTS}}
    text = yaml.safe_dump(content | {"names": dict(enumerate(spec.names))}, sort_keys=False)
    (unfinished / file.name).write_text(text, encoding="utf-8")
    unfinished.rename(folder)
    return file


def low_resolution_yaml(folder: Path) -> Path:
    """Where the dataset YAML lies; it is there when the data set is whole."""
    return folder / f"{folder.name}.yaml"


def low_resolution_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image whose longer side is to have at most ``side`` pixels."""
    scale = min(side / max(height, width), 1.0)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _write_image(dataset: DetectionDataset, number: int, side: int, root: Path, part: str) -> None:
    images, labels = root / "images" / part, root / "labels" / part
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    image = dataset.source_image(number)
    height, width = low_resolution_size(image.shape[0], image.shape[1], side)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(images / f"{number:05d}.png"), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    (labels / f"{number:05d}.txt").write_text("".join(_label_rows(dataset, number)), encoding="utf-8")


def _label_rows(images: DetectionDataset, number: int) -> Sequence[str]:
    """The rows ``class cx cy w h`` of an image, fractions of it: the same whatever its size."""
    index = images.index
    start, end = int(index.row_ends[number - 1]) if number else 0, int(index.row_ends[number])
    return [f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:]) + "\n" for row in index.rows[start:end]]

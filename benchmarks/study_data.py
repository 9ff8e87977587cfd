"""The data of a study: images made so small that their objects are, in three parts."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml

from utils.config.dataset_yaml import DatasetSpec
from utils.dataset.detection_dataset import DetectionDataset, open_dataset
from utils.user_error import UsageError

PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class StudyData:
    """A data set at a low resolution."""

    yaml: str
    side: int  # pixels, longer side of an image
    most: int | None = None  # training images; None takes all

    @classmethod
    def parse(cls, text: str) -> StudyData:
        """``my.yaml@160`` or ``my.yaml@160:500``.

        Raises:
            UsageError: it is written otherwise.
        """
        match = re.fullmatch(r"(.+)@(\d+)(?::(\d+))?", text)
        if match is None or int(match[2]) < 32 or match[3] == "0":
            raise UsageError(f"--data {text}: write NAME.yaml@SIDE or NAME.yaml@SIDE:COUNT, SIDE at least 32 pixels")
        return cls(match[1], int(match[2]), int(match[3]) if match[3] else None)

    @property
    def name(self) -> str:
        return f"{Path(self.yaml).stem}-{self.side}" + (f"-{self.most}" if self.most else "")


def low_resolution_yaml(folder: Path) -> Path:
    """Where the dataset YAML lies; it is there when the data set is whole."""
    return folder / f"{folder.name}.yaml"


def low_resolution_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image whose longer side is to have at most ``side`` pixels."""
    scale = min(side / max(height, width), 1.0)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def parts_of(spec: DatasetSpec) -> dict[str, list[tuple[DetectionDataset, int]]]:
    """The images of each part, as data set and number.

    What is reported is never what models and settings were chosen by. A data set without a test part gives every
    second validation image; one that validates on its training images is divided three to one to one.
    """
    if spec.val == spec.train:
        whole = _images(spec, "train")
        return {"train": [one for i, one in enumerate(whole) if i % 5 < 3], "val": whole[3::5], "test": whole[4::5]}
    train, val = _images(spec, "train"), _images(spec, "val")
    if spec.test:
        return {"train": train, "val": val, "test": _images(spec, "test")}
    return {"train": train, "val": val[0::2], "test": val[1::2]}


def _images(spec: DatasetSpec, part: str) -> list[tuple[DetectionDataset, int]]:
    dataset = open_dataset(spec.split(part), spec.names, title=part)
    return [(dataset, number) for number in range(len(dataset))]


def write_low_resolution(spec: DatasetSpec, data: StudyData, folder: Path) -> Path:
    """Write the parts of ``spec`` under ``folder`` in YOLO format; the dataset YAML's path.

    No image is longer than ``data.side`` pixels afterwards; each new pixel is the mean of those it covers, as in a
    camera with fewer of them. Images are PNG, so that nothing else is lost.
    """
    file = low_resolution_yaml(folder)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part, images in parts_of(spec).items():
        for number, (dataset, index) in enumerate(images[: data.most] if part == "train" else images):
            image = dataset.source_image(index)
            height, width = low_resolution_size(image.shape[0], image.shape[1], data.side)
            small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            pixels = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
            write_labelled(unfinished, part, f"{number:05d}", pixels, _label_rows(dataset, index))
    content: dict[str, object] = {"path": str(folder.resolve()), **{part: f"images/{part}" for part in PARTS}}
    text = yaml.safe_dump(content | {"names": dict(enumerate(spec.names))}, sort_keys=False)
    (unfinished / file.name).write_text(text, encoding="utf-8")
    unfinished.rename(folder)
    return file


def write_labelled(root: Path, part: str, name: str, image: np.ndarray, rows: np.ndarray) -> None:
    """Write a BGR image and its label file, of rows ``class cx cy w h`` (fractions), as YOLO's folders have them."""
    images, labels = root / "images" / part, root / "labels" / part
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(images / f"{name}.png"), image)
    lines = [f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:]) + "\n" for row in rows]
    (labels / f"{name}.txt").write_text("".join(lines), encoding="utf-8")


def _label_rows(images: DetectionDataset, number: int) -> np.ndarray:
    """Rows ``class cx cy w h`` of an image, fractions of it: the same whatever its size."""
    index = images.index
    start, end = int(index.row_ends[number - 1]) if number else 0, int(index.row_ends[number])
    return index.rows[start:end]

"""The data of a study: real and drawn images made so small that their objects are, in three parts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml

from utils.config.dataset_yaml import DatasetSpec
from utils.dataset.detection_dataset import DetectionDataset, open_dataset
from utils.user_error import UsageError

PARTS = ("train", "val", "test")
# COCO's 80 classes are too many for the images of coco128; of these four each has enough objects.
COCO_GROUPS = {"person": range(1), "vehicle": range(1, 14), "animal": range(14, 24), "thing": range(24, 80)}
LEAST_LEFT = 0.3  # share of an object's area that a tile must hold for the object to be labelled in it
LEAST_SIDE = 2.0  # pixels of the source image, of what a tile holds of an object
FORM = "write NAME.yaml@SIDE, NAME.yaml@SIDE:COUNT or NAME.yaml@SIDE/TILES, SIDE at least 32 pixels"


@dataclass(frozen=True, slots=True)
class StudyData:
    """A data set at a low resolution."""

    yaml: str
    side: int  # pixels, longer side of an image
    most: int | None = None  # training images; None takes all
    tiles: int = 1  # each image is cut into tiles x tiles first

    @classmethod
    def parse(cls, text: str) -> StudyData:
        """``my.yaml@160``, ``my.yaml@160:500``, ``my.yaml@160/2`` or ``my.yaml@160:500/2``.

        Raises:
            UsageError: it is written otherwise.
        """
        match = re.fullmatch(r"(.+)@(\d+)(?::(\d+))?(?:/([1-9]))?", text)
        if match is None or int(match[2]) < 32 or match[3] == "0":
            raise UsageError(f"--data {text}: {FORM}")
        return cls(match[1], int(match[2]), int(match[3]) if match[3] else None, int(match[4] or 1))

    @property
    def name(self) -> str:
        more = (f"-{self.most}" if self.most else "") + (f"-tiles{self.tiles}" if self.tiles > 1 else "")
        return f"{Path(self.yaml).stem}-{self.side}{more}"


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
    camera with fewer of them. Images are PNG, so that nothing else is lost. A tile without objects is left out.
    """
    file = low_resolution_yaml(folder)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    groups = COCO_GROUPS if len(spec.names) == 80 else {name: range(i, i + 1) for i, name in enumerate(spec.names)}
    group_of = np.array([place for place, group in enumerate(groups.values()) for _ in group])
    for part, images in parts_of(spec).items():
        for kind in ("images", "labels"):
            (unfinished / kind / part).mkdir(parents=True)
        for number, (dataset, index) in enumerate(images[: data.most] if part == "train" else images):
            for name, image, rows in _tiles(dataset, index, data.tiles):
                _write(unfinished, part, f"{number:05d}{name}", image, _regrouped(rows, group_of), data.side)
    content: dict[str, object] = {"path": str(folder.resolve()), **{part: f"images/{part}" for part in PARTS}}
    text = yaml.safe_dump(content | {"names": dict(enumerate(groups))}, sort_keys=False)
    (unfinished / file.name).write_text(text, encoding="utf-8")
    unfinished.rename(folder)
    return file


def _tiles(dataset: DetectionDataset, index: int, count: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, RGB image and rows ``class cx cy w h`` (fractions) of each of ``count`` x ``count`` tiles."""
    image, rows = dataset.source_image(index), _label_rows(dataset, index)
    if count == 1:
        return [("", image, rows)]
    height, width = image.shape[:2]
    found = []
    for down in range(count):
        for across in range(count):
            left, right = across * width // count, (across + 1) * width // count
            top, bottom = down * height // count, (down + 1) * height // count
            own = rows_in_window(rows, (width, height), (left, top, right, bottom))
            if len(own):
                found.append((f"-{down}{across}", image[top:bottom, left:right], own))
    return found


def rows_in_window(rows: np.ndarray, size: tuple[int, int], window: tuple[int, int, int, int]) -> np.ndarray:
    """Rows ``class cx cy w h`` (fractions of an image of width and height ``size``) as fractions of a window of it.

    Objects are cut at the window's sides; of those that it holds little of nothing is left.

    Args:
        window: left, top, right, bottom, pixels.
    """
    centres, halves = rows[:, 1:3] * size, rows[:, 3:5] * size / 2
    corner, end = np.array(window[:2]), np.array(window[2:])
    low, high = np.maximum(centres - halves, corner), np.minimum(centres + halves, end)
    sides = high - low
    kept = (sides > LEAST_SIDE).all(1)
    kept &= sides.clip(0).prod(1) > LEAST_LEFT * (2 * halves).prod(1)
    inside = np.concatenate(((low + high) / 2 - corner, sides), axis=1) / np.tile(end - corner, 2)
    found: np.ndarray = np.concatenate((rows[:, :1], inside), axis=1)[kept]
    return found


def _regrouped(rows: np.ndarray, group_of: np.ndarray) -> np.ndarray:
    return np.concatenate((group_of[rows[:, 0].astype(int), None], rows[:, 1:]), axis=1)


def _write(root: Path, part: str, name: str, image: np.ndarray, rows: np.ndarray, side: int) -> None:
    height, width = low_resolution_size(image.shape[0], image.shape[1], side)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(root / "images" / part / f"{name}.png"), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    (root / "labels" / part / f"{name}.txt").write_text("".join(label_lines(rows)), encoding="utf-8")


def label_lines(rows: np.ndarray) -> Sequence[str]:
    """Lines of a label file, of rows ``class cx cy w h``."""
    return [f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:]) + "\n" for row in rows]


def _label_rows(images: DetectionDataset, number: int) -> np.ndarray:
    """Rows ``class cx cy w h`` of an image, fractions of it: the same whatever its size."""
    index = images.index
    start, end = int(index.row_ends[number - 1]) if number else 0, int(index.row_ends[number])
    return np.asarray(index.rows[start:end], dtype=np.float64)

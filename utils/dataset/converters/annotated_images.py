"""What every format is read into: images with boxes in pixels, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.dataset.image_files import IMAGE_SUFFIXES, ImageReadError, image_size
from utils.dataset.label_files import LabelProblem, plain_name
from utils.geometry.letterbox import FrameSize
from utils.user_error import UserError

ALL_CLASSES = -1  # class of a region to ignore that holds for every class


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image of the data set. Boxes need not be clipped to it."""

    path: Path
    size: FrameSize
    classes: np.ndarray  # (N,) int64
    boxes: np.ndarray  # (N, 4) float64 xyxy, pixels
    outlines: tuple[np.ndarray | None, ...] = ()  # N polygons (K, 2) pixels, or empty for none at all
    ignored: np.ndarray | None = (
        None  # (I, 5) float64 class x1 y1 x2 y2, pixels: regions in which no detection is wrong
    )
    problems: tuple[LabelProblem, ...] = ()  # what of its annotation is not used


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a data set (train, val, ...): its images, read while they are asked for."""

    name: str
    count: int  # of the images, as far as it is known beforehand
    images: Iterator[AnnotatedImage | LabelProblem]  # a problem in place of an image that cannot be used
    listed: bool = False  # it shares its folder with other parts, so that it has to be a list of images


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as it was published."""

    root: Path
    names: tuple[str, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where a data set lies and how its classes are called."""

    root: Path  # folder, or the annotation file of formats that have one
    names: tuple[str, ...] | None = None  # None: as the format or its files have them
    images: Path | None = None  # folder of the images, where it is not where the format has it
    outlines: bool = False  # keep outlines where the format has them


Reader = Callable[[SourceSettings], Source]


def class_table(names: Sequence[str]) -> dict[str, int]:
    """Class index by `plain_name`."""
    return {plain_name(name): index for index, name in enumerate(names)}


def folder_of(settings: SourceSettings) -> Path:
    """The source, which has to be a folder."""
    if not settings.root.is_dir():
        raise UserError(f"{settings.root}: no such folder")
    return settings.root


def readable_size(path: Path) -> FrameSize | LabelProblem:
    """Size of an image on disk, or why it cannot be used."""
    try:
        return image_size(path)
    except ImageReadError as error:
        return LabelProblem(str(path), 0, str(error).removeprefix(f"{path}: "))


def images_by_stem(folder: Path) -> dict[str, Path]:
    """The images in a folder and its folders by name without suffix."""
    return {p.stem: p for p in sorted(folder.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES}


def with_images(
    files: Sequence[Path], images: Path, read: Callable[[Path, Path, FrameSize], AnnotatedImage]
) -> Iterator[AnnotatedImage | LabelProblem]:
    """What ``read(image, file, size)`` gives for each annotation file and the image of its name."""
    by_stem = images_by_stem(images)
    for file in files:
        image = by_stem.get(file.stem)
        if image is None:
            yield LabelProblem(str(file), 0, "has no image")
            continue
        size = readable_size(image)
        yield size if isinstance(size, LabelProblem) else read(image, file, size)


def as_boxes(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """(N, 4) float64, also of no rows."""
    return np.array(rows, dtype=np.float64).reshape(-1, 4)

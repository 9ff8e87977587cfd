"""What every format is read into, images with boxes in pixels, and the label files and lists written of it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.dataset.image_files import IMAGE_SUFFIXES, ImageReadError, image_size
from utils.dataset.image_lists import label_path
from utils.dataset.label_files import LabelProblem, plain_name
from utils.geometry.letterbox import FrameSize
from utils.runtime.atomic_files import write_text
from utils.runtime.console_log import with_progress
from utils.user_error import UserError

ALL_CLASSES = -1  # class of a region to ignore that holds for every class
PROBLEMS_FILE = "conversion_problems.txt"
SHOWN_PROBLEMS = 3


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


@dataclass(slots=True)
class PartSummary:
    """What was written of one part."""

    name: str
    images: int = 0
    empty: int = 0  # images without an object
    objects: Counter[int] = field(default_factory=Counter)  # by class
    ignored: int = 0  # regions
    clipped: int = 0  # boxes that reached out of their image
    places: set[Path] = field(default_factory=set)  # folders of the images
    listed: Path | None = None  # list of the images
    annotations: Path | None = None  # COCO annotation file with the regions to ignore
    problems: list[LabelProblem] = field(default_factory=list)

    def lines(self, names: Sequence[str]) -> list[str]:
        """For the console."""
        total = sum(self.objects.values())
        first = f"{self.name}: {self.images} images ({self.empty} without objects), {total} objects"
        first += f", {self.ignored} regions to ignore" if self.ignored else ""
        first += f", {self.clipped} boxes clipped to their image" if self.clipped else ""
        first += f", {len(self.problems)} entries not used" if self.problems else ""
        counts = ", ".join(f"{names[kind]} {count}" for kind, count in self.objects.most_common())
        shown = [f"  {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        return [first, *([f"  {counts}"] if counts else []), *shown]


def write_labels(source: Source, target: Path | None = None, *, progress: bool = True) -> list[PartSummary]:
    """Write the label files of every part, and give what was written.

    Labels go where the data set is read from: beside the images, ``labels`` for ``images``. With ``target`` the
    source stays untouched: ``target/images/<part>`` links to the images and ``target/labels/<part>`` has the labels.

    Where the format has regions to ignore, ``<part>.json`` is a COCO annotation file of its objects with these regions
    as crowds, for the ``annotations:`` of a dataset YAML: COCO's figures then ignore what is found there.
    """
    base = target or (source.root if source.root.is_dir() else source.root.parent)
    base.mkdir(parents=True, exist_ok=True)
    summaries = [
        _write_part(part, source.names, base, linked=target is not None, progress=progress) for part in source.parts
    ]
    problems = [str(problem) for summary in summaries for problem in summary.problems]
    if problems:
        write_text(base / PROBLEMS_FILE, "".join(f"{' '.join(line.split())}\n" for line in problems))
    if not any(summary.images for summary in summaries):
        raise UserError(f"{source.root}: no image with its annotation was found{_example(problems)}")
    return summaries


def _example(problems: Sequence[str]) -> str:
    return f"; the first problem: {problems[0]}" if problems else ""


def _write_part(part: Part, names: Sequence[str], base: Path, *, linked: bool, progress: bool) -> PartSummary:
    summary = PartSummary(part.name)
    annotations = _Annotations(names)
    paths: list[Path] = []
    has_regions = False
    for image in with_progress(part.images, part.count or None, "image", part.name, shown=progress):
        if isinstance(image, LabelProblem):
            summary.problems.append(image)
            continue
        image, clipped = _clipped(image, summary.problems)
        path = _link(image.path, base / "images" / part.name) if linked else image.path
        label = label_path(path)
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(_label_text(image), encoding="utf-8")
        annotations.add(path, image)
        paths.append(path)
        summary.places.add(path.parent)
        summary.images += 1
        summary.empty += not len(image.classes)
        summary.objects.update(image.classes.tolist())
        summary.ignored += 0 if image.ignored is None else len(image.ignored)
        has_regions = has_regions or image.ignored is not None
        summary.clipped += clipped
        summary.problems += image.problems
    if part.listed and not linked and paths:
        summary.listed = base / f"{part.name}.txt"
        write_text(summary.listed, "".join(f"{os.path.relpath(path, base)}\n" for path in paths))
    if has_regions:
        summary.annotations = base / f"{part.name}.json"
        write_text(summary.annotations, annotations.text())
    return summary


def _clipped(image: AnnotatedImage, problems: list[LabelProblem]) -> tuple[AnnotatedImage, int]:
    """The image with boxes inside it; those of which nothing is left become problems."""
    height, width = image.size
    limits = np.array([width, height, width, height], dtype=np.float64)
    boxes = image.boxes.clip(0, limits)
    sound = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    for box in image.boxes[~sound].tolist():
        shown = " ".join(f"{side:g}" for side in box)
        problems.append(LabelProblem(str(image.path), 0, f"the box {shown} has no area in {width} x {height} pixels"))
    changed = int((boxes[sound] != image.boxes[sound]).any(axis=1).sum())
    outlines = tuple(o for o, ok in zip(image.outlines, sound.tolist(), strict=True) if ok) if image.outlines else ()
    kept = AnnotatedImage(
        image.path, image.size, image.classes[sound], boxes[sound], outlines, image.ignored, image.problems
    )
    return kept, changed


def _label_text(image: AnnotatedImage) -> str:
    height, width = image.size
    outlines = image.outlines or (None,) * len(image.classes)
    rows = []
    for kind, (x1, y1, x2, y2), outline in zip(image.classes.tolist(), image.boxes.tolist(), outlines, strict=True):
        if outline is not None:
            values = (outline / (width, height)).clip(0, 1).ravel().tolist()
        else:
            values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        rows.append(f"{kind} {' '.join(f'{value:.7g}' for value in values)}\n")
    return "".join(dict.fromkeys(rows))


def _link(image: Path, folder: Path) -> Path:
    """A link to the image in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / image.name
    wanted = image.resolve()
    if link.is_symlink() and link.readlink() == wanted:
        return link
    if link.is_symlink() or link.exists():
        raise UserError(f"{link}: is there already and is not a link to {wanted}; give --to an empty folder")
    link.symlink_to(wanted)
    return link


class _Annotations:
    """A COCO annotation file in the making."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.images: list[dict[str, object]] = []
        self.rows: list[dict[str, object]] = []

    def add(self, path: Path, annotated: AnnotatedImage) -> None:
        number = len(self.images)
        height, width = annotated.size
        # The folder keeps images of the same name in two folders apart.
        name = f"{path.parent.name}/{path.name}"
        self.images.append({"id": number, "file_name": name, "height": height, "width": width})
        for kind, box in zip(annotated.classes.tolist(), annotated.boxes.tolist(), strict=True):
            self._row(number, kind, box, crowd=0)
        for row in () if annotated.ignored is None else annotated.ignored.tolist():
            for kind in range(len(self.names)) if row[0] == ALL_CLASSES else (int(row[0]),):
                self._row(number, kind, row[1:], crowd=1)

    def _row(self, image: int, kind: int, box: list[float], *, crowd: int) -> None:
        x1, y1, x2, y2 = box
        place = [x1, y1, x2 - x1, y2 - y1]
        number, area = len(self.rows) + 1, place[2] * place[3]
        row = {"id": number, "image_id": image, "category_id": kind, "bbox": place, "area": area, "iscrowd": crowd}
        self.rows.append(row)

    def text(self) -> str:
        categories = [{"id": index, "name": name} for index, name in enumerate(self.names)]
        return json.dumps({"images": self.images, "annotations": self.rows, "categories": categories}) + "\n"


def dataset_yaml(source: Source, summaries: Sequence[PartSummary], base: Path) -> str:
    """A dataset YAML for what was written under ``base``."""
    lines = [f"path: {base.resolve()}"]
    for summary in summaries:
        if not summary.images:
            continue
        places = [summary.listed] if summary.listed else sorted(summary.places)
        shown = [os.path.relpath(place, base) for place in places if place is not None]
        lines.append(f"{summary.name}: {shown[0] if len(shown) == 1 else json.dumps(shown)}")
    annotated = {s.name: os.path.relpath(s.annotations, base) for s in summaries if s.annotations}
    if annotated:
        lines += ["annotations:", *(f"  {name}: {file}" for name, file in annotated.items())]
    return "\n".join([*lines, "names:", *(f"  {i}: {json.dumps(n)}" for i, n in enumerate(source.names))]) + "\n"

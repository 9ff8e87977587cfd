"""COCO annotation files: images, categories, objects with areas and crowd regions, and how they fit a split's images.

A file of image infos only, such as COCO's ``image_info_test-dev2017.json``, is read too: it has no objects.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from utils.dataset.label_files import LabelProblem, plain_name
from utils.dataset.label_index import LabelIndex
from utils.geometry.boxes import box_area, cxcywh_to_xyxy
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

NO_CLASS = -1
MISSPELLED = 0.1  # part of the categories that may be named unlike any class


@dataclass(frozen=True, slots=True)
class CocoTruth:
    """Ground truth of a data set as columns; images are numbered from 0, classes by their index."""

    image_count: int
    images: np.ndarray  # (M,) int64
    classes: np.ndarray  # (M,) int64
    boxes: np.ndarray  # (M, 4) float64 xyxy, source pixels; float32 would round what an annotation file gives
    areas: np.ndarray  # (M,) float64, square source pixels; need not be those of the boxes
    crowd: np.ndarray  # (M,) bool: a region that may hold many objects, where detections are not counted as wrong

    def as_one_class(self) -> CocoTruth:
        return replace(self, classes=np.zeros_like(self.classes))


@dataclass(frozen=True, slots=True)
class CocoAnnotations:
    """What a COCO annotation file says, in the file's order."""

    file: Path
    image_ids: np.ndarray  # (I,) int64
    image_names: tuple[str, ...]  # I file names, with folders where the file gives them
    category_ids: np.ndarray  # (K,) int64
    category_names: tuple[str, ...]
    images: np.ndarray  # (M,) int64, place of each object's image in ``image_ids``
    categories: np.ndarray  # (M,) int64, place in ``category_ids``
    boxes: np.ndarray  # (M, 4) float64 xyxy, pixels
    areas: np.ndarray  # (M,) float64, square pixels
    crowd: np.ndarray  # (M,) bool
    outlines: tuple[np.ndarray | None, ...]  # M polygons (P, 2) float32 x y, pixels; None without exactly one

    @property
    def has_objects(self) -> bool:
        return len(self.images) > 0


@dataclass(frozen=True, slots=True)
class ImageAnnotations:
    """An annotation file seen from a split and a model: its images in their order, its classes by their index."""

    file: Path
    truth: CocoTruth  # a category that is no class of the data set is numbered after the last class
    image_ids: tuple[int, ...]  # of each image; its place as a negative number (-1, -2, ...) if the file lacks it
    category_ids: tuple[int, ...]  # of each class; -1 if the file lacks it

    def listed(self) -> np.ndarray:
        """Places (F',) of the images that the file has."""
        return np.flatnonzero(np.array(self.image_ids, dtype=np.int64) >= 0)


def read_coco_annotations(file: Path) -> CocoAnnotations:
    """Read a COCO annotation file. Objects marked ``ignore`` (TinyPerson, VOC in COCO's form) count as crowd regions.

    Raises:
        UserError: it cannot be read, is not COCO's format, or an entry lacks what it has to have (the entry is named).
    """
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UserError(f"{file}: not a COCO annotation file: it has no list 'images'")
    images, categories = content["images"], content.get("categories") or []
    rows = content.get("annotations") or []
    if not isinstance(categories, list) or not isinstance(rows, list):
        raise UserError(f"{file}: not a COCO annotation file: 'annotations' and 'categories' have to be lists")
    image_ids = _numbers(file, "images", "id", images)
    category_ids = _numbers(file, "categories", "id", categories)
    given = [_box(file, place, row) for place, row in enumerate(rows)]
    given_areas = [row.get("area") for row in rows]
    areas = [w * h if area is None else area for (_, _, w, h), area in zip(given, given_areas, strict=True)]
    for place, area in enumerate(areas):
        if not _is_number(area):
            raise UserError(f"{file}: annotations[{place}]: area {area!r} is not a number")
    return CocoAnnotations(
        file=file,
        image_ids=image_ids,
        image_names=_image_names(file, images, content.get("seq_dirs")),
        category_ids=category_ids,
        category_names=_texts(file, "categories", "name", categories),
        images=_places(file, "image_id", rows, image_ids),
        categories=_places(file, "category_id", rows, category_ids),
        boxes=np.array([(x, y, x + w, y + h) for x, y, w, h in given], dtype=np.float64).reshape(-1, 4),
        areas=np.array(areas, dtype=np.float64),
        crowd=np.array([bool(row.get("iscrowd", 0) or row.get("ignore", 0)) for row in rows], dtype=bool),
        outlines=tuple(_outline(row.get("segmentation")) for row in rows),
    )


def read_json(file: Path) -> Any:
    """The content of a JSON file; UserError if it cannot be read or is none."""
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON: {error}") from error


def fit_to_images(annotations: CocoAnnotations, paths: Sequence[Path], names: Sequence[str]) -> ImageAnnotations:
    """The annotations of these images, with classes numbered as in ``names``.

    Images are found by file name, with as many folders as the file gives; categories by name. Where no name is
    the same but there are as many categories as classes, they are taken in order of their ids.

    Raises:
        UserError: no image is in the file, a name fits several images, or no category fits a class.
    """
    image_of = _images_of(annotations, paths)
    if (image_of < 0).all():
        raise UserError(f"{annotations.file}: none of its images is an image of the data set, such as {paths[0].name}")
    missing, more = int((image_of < 0).sum()), len(annotations.image_ids) - int((image_of >= 0).sum())
    if missing:
        LOGGER.warning("%s: has no entry for %d of %d images", annotations.file, missing, len(paths))
    if more and annotations.has_objects:
        LOGGER.warning("%s: %d of its images are not among the images evaluated", annotations.file, more)
    class_of = classes_of(annotations, names)
    place_of = np.full(len(annotations.image_ids), -1)
    place_of[image_of[image_of >= 0]] = np.flatnonzero(image_of >= 0)
    kept = place_of[annotations.images] >= 0
    truth = CocoTruth(
        image_count=len(paths),
        images=place_of[annotations.images][kept],
        classes=class_of[annotations.categories][kept],
        boxes=annotations.boxes[kept],
        areas=annotations.areas[kept],
        crowd=annotations.crowd[kept],
    )
    ids = annotations.image_ids.tolist()
    category_of = {int(index): int(annotations.category_ids[place]) for place, index in enumerate(class_of)}
    return ImageAnnotations(
        file=annotations.file,
        truth=truth,
        image_ids=tuple(ids[image] if image >= 0 else -1 - place for place, image in enumerate(image_of.tolist())),
        category_ids=tuple(category_of.get(index, NO_CLASS) for index in range(len(names))),
    )


def index_from_annotations(index: LabelIndex, annotations: CocoAnnotations, names: Sequence[str]) -> LabelIndex:
    """The index of the same images with the file's objects as their labels.

    Crowd regions are no objects and are left out, as COCO's own tools do for training. A box without area or
    outside its image, and a category that is no class, is a problem in the result.
    """
    paths = [index.paths[place] for place in range(len(index))]
    image_of, class_of = _images_of(annotations, paths), classes_of(annotations, names)
    rows_of: dict[int, list[int]] = {}
    for row in np.flatnonzero(~annotations.crowd).tolist():
        rows_of.setdefault(int(annotations.images[row]), []).append(row)
    rows, ends, points, point_ends = [], [], [], []
    point_count, problems, unlabelled = 0, list(index.problems), 0
    for place, image in enumerate(image_of.tolist()):
        height, width = index.sizes[place].tolist()
        own = rows_of.get(image, [])
        unlabelled += not own
        for row in own:
            x1, y1, x2, y2 = annotations.boxes[row].tolist()
            left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
            kind = int(class_of[annotations.categories[row]])
            problem = "the box lies outside its image or has no area" if right <= left or bottom <= top else ""
            if kind >= len(names):
                problem = f"{annotations.category_names[annotations.categories[row]]!r} is no class of the data set"
            if problem:
                problems.append(LabelProblem(str(annotations.file), 0, f"annotations[{row}]: {problem}"))
                continue
            box = ((left + right) / 2 / width, (top + bottom) / 2 / height)
            rows.append((kind, *box, (right - left) / width, (bottom - top) / height))
            outline = annotations.outlines[row]
            if outline is not None:
                points.append(outline / np.array([width, height], dtype=np.float32))
                point_count += len(outline)
            point_ends.append(point_count)
        ends.append(len(rows))
    return replace(
        index,
        rows=np.array(rows, dtype=np.float32).reshape(-1, 5),
        row_ends=np.array(ends, dtype=np.int64),
        points=np.concatenate(points) if points else np.zeros((0, 2), np.float32),
        point_ends=np.array(point_ends, dtype=np.int64),
        unlabelled=unlabelled,
        problems=tuple(problems),
    )


def truth_with_ignored(index: LabelIndex) -> CocoTruth | None:
    """Labels with the regions to ignore as crowd regions; None where there are none of these.

    A detection that lies in such a region is not counted as wrong (VOC's difficult objects).
    """
    if not len(index.ignored):
        return None
    rows = np.concatenate((index.rows, index.ignored))
    places = np.arange(len(index))
    images = np.concatenate([np.repeat(places, np.diff(e, prepend=0)) for e in (index.row_ends, index.ignored_ends)])
    scale = np.tile(index.sizes[images][:, ::-1].astype(np.float64), 2)
    boxes = cxcywh_to_xyxy(rows[:, 1:].astype(np.float64)).clip(0, 1) * scale
    return CocoTruth(
        image_count=len(index),
        images=images,
        classes=rows[:, 0].astype(np.int64),
        boxes=boxes,
        areas=box_area(boxes),
        crowd=np.arange(len(rows)) >= len(index.rows),
    )


def _images_of(annotations: CocoAnnotations, paths: Sequence[Path]) -> np.ndarray:
    """Place (F,) in the file of each image's image, -1 where there is none."""
    by_name: dict[str, list[int]] = {}
    for place, name in enumerate(annotations.image_names):
        by_name.setdefault(PurePosixPath(name).name, []).append(place)
    found = np.full(len(paths), -1)
    for row, path in enumerate(paths):
        candidates = by_name.get(path.name, [])
        if len(candidates) > 1:
            parts = [PurePosixPath(annotations.image_names[place]).parts for place in candidates]
            fitting = [c for c, own in zip(candidates, parts, strict=True) if path.parts[-len(own) :] == own]
            longest = max((len(own) for own in parts), default=0)
            exact = [c for c in fitting if len(PurePosixPath(annotations.image_names[c]).parts) == longest]
            candidates = exact or fitting
        if len(candidates) > 1:
            raise UserError(f"{annotations.file}: {len(candidates)} of its images could be {path}")
        if candidates:
            found[row] = candidates[0]
    return found


def classes_of(annotations: CocoAnnotations, names: Sequence[str]) -> np.ndarray:
    """Class index (K,) of each category; categories that are no class are numbered after the last class.

    Categories are classes by name. Where there are as many of both and none is named alike, or all but a tenth are
    and stand in the order of their ids, all are taken in that order: names are spelled differently.
    """
    index_of = {plain_name(name): index for index, name in enumerate(names)}
    known = [index_of.get(plain_name(name), -1) for name in annotations.category_names]
    if known and max(known) < 0 and len(known) != len(names):
        raise UserError(
            f"{annotations.file}: none of its categories ({', '.join(annotations.category_names[:5])}) is a class "
            f"of the data set ({', '.join(names[:5])})"
        )
    order = np.empty(len(known), dtype=np.int64)
    order[np.argsort(annotations.category_ids)] = np.arange(len(known))
    other = [annotations.category_names[i] for i, index in enumerate(known) if index < 0]
    in_order = all(index in (-1, place) for index, place in zip(known, order.tolist(), strict=True))
    few = len(other) in (0, len(known)) or len(other) <= MISSPELLED * len(known)
    if len(known) == len(names) and in_order and few:
        if other:
            shown = ", ".join(other[:5])
            LOGGER.warning("%s: categories not named like a class, taken in order of ids: %s", annotations.file, shown)
        return order
    spare = iter(range(len(names), len(names) + len(known)))
    classes = [index if index >= 0 else next(spare) for index in known]
    if other and annotations.has_objects:
        shown = ", ".join(other[:5])
        LOGGER.warning("%s: categories that are no class, and count as never found: %s", annotations.file, shown)
    return np.array(classes, dtype=np.int64)


def _numbers(file: Path, part: str, key: str, rows: list[Any]) -> np.ndarray:
    for place, row in enumerate(rows):
        if not isinstance(row, dict) or type(row.get(key)) is not int or row[key] < 0:
            raise UserError(f"{file}: {part}[{place}]: '{key}' has to be a whole number of 0 or more")
    numbers = np.array([row[key] for row in rows], dtype=np.int64)
    if len(np.unique(numbers)) != len(numbers):
        raise UserError(f"{file}: {part}: an '{key}' occurs twice")
    return numbers


def _image_names(file: Path, images: list[Any], folders: object) -> tuple[str, ...]:
    """Argoverse-HD has ``name`` and ``sid``, the place of its folder in ``seq_dirs``, for COCO's ``file_name``."""
    if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        return _texts(file, "images", "file_name", images)
    names = []
    for place, name in enumerate(_texts(file, "images", "name", images)):
        sequence = images[place].get("sid")
        if type(sequence) is not int or not 0 <= sequence < len(folders):
            raise UserError(f"{file}: images[{place}]: sid {sequence!r} is not a place in 'seq_dirs'")
        names.append(f"{folders[sequence]}/{name}")
    return tuple(names)


def _texts(file: Path, part: str, key: str, rows: list[Any]) -> tuple[str, ...]:
    for place, row in enumerate(rows):
        if not isinstance(row.get(key), str) or not row[key]:
            raise UserError(f"{file}: {part}[{place}]: '{key}' is missing or no text")
    return tuple(row[key] for row in rows)


def _places(file: Path, key: str, rows: list[Any], ids: np.ndarray) -> np.ndarray:
    place_of = {number: place for place, number in enumerate(ids.tolist())}
    places = []
    for place, row in enumerate(rows):
        number = row.get(key)
        if type(number) is not int or number not in place_of:
            raise UserError(f"{file}: annotations[{place}]: {key} {number!r} is not in the file")
        places.append(place_of[number])
    return np.array(places, dtype=np.int64)


def _box(file: Path, place: int, row: Any) -> list[float]:
    """``x y w h``, as the file has it."""
    box = row.get("bbox") if isinstance(row, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise UserError(f"{file}: annotations[{place}]: bbox {box!r} is not four finite numbers")
    return [float(side) for side in box]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _outline(segmentation: object) -> np.ndarray | None:
    """The polygon of an object that is outlined by exactly one; a mask or several parts give none."""
    if not isinstance(segmentation, list) or len(segmentation) != 1 or not isinstance(segmentation[0], list):
        return None
    numbers = segmentation[0]
    if len(numbers) < 6 or len(numbers) % 2 or not all(map(_is_number, numbers)):
        return None
    return np.array(numbers, dtype=np.float32).reshape(-1, 2)

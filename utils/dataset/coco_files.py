"""COCO annotation files as they are: images, categories, objects with areas and crowd regions.

A file of image infos only, such as COCO's ``image_info_test-dev2017.json``, is read too: it has no objects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from utils.user_error import UserError


@dataclass(frozen=True, slots=True)
class CocoAnnotations:
    """What a COCO annotation file says, in the file's order."""

    file: Path
    image_ids: tuple[int | str, ...]  # I
    image_names: tuple[str, ...]  # I file names, with folders where the file gives them
    image_sizes: np.ndarray  # (I, 2) float64 height, width, pixels; 0 where the file does not say it
    category_ids: np.ndarray  # (K,) int64
    category_names: tuple[str, ...]
    images: np.ndarray  # (M,) int64, place of each object's image in ``image_ids``
    categories: np.ndarray  # (M,) int64, place in ``category_ids``
    boxes: np.ndarray  # (M, 4) float64 xyxy, pixels
    areas: np.ndarray  # (M,) float64, square pixels
    crowd: np.ndarray  # (M,) bool
    outlines: tuple[np.ndarray | None, ...]  # M polygons (P, 2) float32 x y, pixels; None without exactly one
    places: np.ndarray  # (M,) int64, place of each object in the file's list
    has_objects: bool  # whether that list has any

    def part(self, rows: np.ndarray) -> CocoAnnotations:
        """The same with some of the objects."""
        columns = ("images", "categories", "boxes", "areas", "crowd", "places")
        return replace(
            self,
            outlines=tuple(self.outlines[row] for row in rows.tolist()),
            **{name: getattr(self, name)[rows] for name in columns},
        )


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
    image_ids = _ids(file, "images", images)
    category_ids = _category_ids(file, categories)
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
        image_sizes=np.array([_stated_size(image) for image in images], dtype=np.float64).reshape(-1, 2),
        category_ids=np.array(category_ids, dtype=np.int64),
        category_names=_texts(file, "categories", "name", categories),
        images=_places(file, "image_id", rows, image_ids),
        categories=_places(file, "category_id", rows, category_ids),
        boxes=np.array([(x, y, x + w, y + h) for x, y, w, h in given], dtype=np.float64).reshape(-1, 4),
        areas=np.array(areas, dtype=np.float64),
        crowd=np.array([bool(row.get("iscrowd", 0) or row.get("ignore", 0)) for row in rows], dtype=bool),
        outlines=tuple(_outline(row.get("segmentation")) for row in rows),
        places=np.arange(len(rows)),
        has_objects=len(rows) > 0,
    )


def read_json(file: Path) -> Any:
    """The content of a JSON file; UserError if it cannot be read or is none."""
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON: {error}") from error


def _plain_id(value: object) -> int | str | None:
    """A whole number of 0 or more or a text, None for anything else; some tools write 7.0 for 7."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_id = (type(value) is int and value >= 0) or (isinstance(value, str) and value)
    return value if is_id else None  # type: ignore[return-value]


def _ids(file: Path, part: str, rows: list[Any]) -> tuple[int | str, ...]:
    ids = [_plain_id(row.get("id")) if isinstance(row, dict) else None for row in rows]
    kept = tuple(number for number in ids if number is not None)
    if len(kept) < len(ids):
        place = ids.index(None)
        raise UserError(f"{file}: {part}[{place}]: 'id' has to be a whole number of 0 or more, or a text")
    if len(set(map(str, kept))) < len(kept):
        raise UserError(f"{file}: {part}: an 'id' occurs twice")
    return kept


def _category_ids(file: Path, rows: list[Any]) -> list[int]:
    ids = _ids(file, "categories", rows)
    for place, number in enumerate(ids):
        if not str(number).isdecimal() or int(number) >= 2**63:
            raise UserError(f"{file}: categories[{place}]: 'id' {number!r} is not a whole number of 0 or more")
    return [int(number) for number in ids]


def _stated_size(image: dict[str, Any]) -> tuple[float, float]:
    height, width = (float(side) if _is_number(side := image.get(key)) else 0.0 for key in ("height", "width"))
    return (height, width) if min(height, width) > 0 else (0.0, 0.0)


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


def _places(file: Path, key: str, rows: list[Any], ids: Sequence[int | str]) -> np.ndarray:
    place_of = {str(number): place for place, number in enumerate(ids)}
    places = []
    for place, row in enumerate(rows):
        found = place_of.get(str(_plain_id(row.get(key))))
        if found is None:
            raise UserError(f"{file}: annotations[{place}]: {key} {row.get(key)!r} is not in the file")
        places.append(found)
    return np.array(places, dtype=np.int64)


def _box(file: Path, place: int, row: Any) -> list[float]:
    """``x y w h``, as the file has it."""
    box = row.get("bbox") if isinstance(row, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise UserError(f"{file}: annotations[{place}]: bbox {box!r} is not four finite numbers")
    return [float(side) for side in box]


def _is_number(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a number that a float holds; a whole number can have any number of digits."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 10**300
    return isinstance(value, float) and math.isfinite(value)


def _outline(segmentation: object) -> np.ndarray | None:
    """The polygon of an object that is outlined by exactly one; a mask or several parts give none."""
    if not isinstance(segmentation, list) or len(segmentation) != 1 or not isinstance(segmentation[0], list):
        return None
    numbers = segmentation[0]
    if len(numbers) < 6 or len(numbers) % 2 or not all(map(_is_number, numbers)):
        return None
    return np.array(numbers, dtype=np.float32).reshape(-1, 2)

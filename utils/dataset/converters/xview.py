"""xView: ``xView_train.geojson``, or its table as CSV, with ``train_images/*.tif`` beside it.

Each entry has ``image_id`` (the image's name), ``type_id`` and ``bounds_imcoords`` (x1,y1,x2,y2 in pixels). The
published training images are split: one in ten, drawn by name, is for validation.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.dataset.coco_annotations import read_json
from utils.dataset.converters.annotated_images import (
    AnnotatedImage,
    Part,
    Source,
    SourceSettings,
    as_boxes,
    readable_size,
)
from utils.dataset.label_files import LabelProblem
from utils.user_error import UserError

TYPES = {
    11: "Fixed-wing Aircraft",
    12: "Small Aircraft",
    13: "Cargo Plane",
    15: "Helicopter",
    17: "Passenger Vehicle",
    18: "Small Car",
    19: "Bus",
    20: "Pickup Truck",
    21: "Utility Truck",
    23: "Truck",
    24: "Cargo Truck",
    25: "Truck w/Box",
    26: "Truck Tractor",
    27: "Trailer",
    28: "Truck w/Flatbed",
    29: "Truck w/Liquid",
    32: "Crane Truck",
    33: "Railway Vehicle",
    34: "Passenger Car",
    35: "Cargo Car",
    36: "Flat Car",
    37: "Tank car",
    38: "Locomotive",
    40: "Maritime Vessel",
    41: "Motorboat",
    42: "Sailboat",
    44: "Tugboat",
    45: "Barge",
    47: "Fishing Vessel",
    49: "Ferry",
    50: "Yacht",
    51: "Container Ship",
    52: "Oil Tanker",
    53: "Engineering Vehicle",
    54: "Tower crane",
    55: "Container Crane",
    56: "Reach Stacker",
    57: "Straddle Carrier",
    59: "Mobile Crane",
    60: "Dump Truck",
    61: "Haul Truck",
    62: "Scraper/Tractor",
    63: "Front loader/Bulldozer",
    64: "Excavator",
    65: "Cement Mixer",
    66: "Ground Grader",
    71: "Hut/Tent",
    72: "Shed",
    73: "Building",
    74: "Aircraft Hangar",
    76: "Damaged Building",
    77: "Facility",
    79: "Construction Site",
    83: "Vehicle Lot",
    84: "Helipad",
    86: "Storage Tank",
    89: "Shipping container lot",
    91: "Shipping Container",
    93: "Pylon",
    94: "Tower",
}
NAMES = tuple(TYPES.values())
CLASS_OF = {number: index for index, number in enumerate(TYPES)}
FILE = "xView_train.geojson"
VAL_IN = 10  # one image in so many is for validation


class Entry(NamedTuple):
    """One object as the file has it."""

    place: int  # in the file, from 1
    image: str
    type_id: str
    bounds: str


def read_xview(settings: SourceSettings) -> Source:
    """The annotation file, or the folder in which ``xView_train.geojson`` lies."""
    file = settings.root / FILE if settings.root.is_dir() else settings.root
    entries = _csv_entries(file) if file.suffix.lower() == ".csv" else _geojson_entries(file)
    folders = (
        (settings.images,) if settings.images else (file.parent / "train_images", file.parent / "images" / "train")
    )
    images = next((folder for folder in folders if folder.is_dir()), None)
    if images is None:
        raise UserError(f"{file}: no folder of images, {' or '.join(map(str, folders))}")
    objects: dict[str, list[tuple[int, tuple[float, ...]]]] = {}
    problems: list[LabelProblem] = []
    for entry in entries:
        found = _object(entry)
        if isinstance(found, str):
            problems.append(LabelProblem(str(file), entry.place, found))
        else:
            objects.setdefault(entry.image, []).append(found)
    names = sorted(objects)
    held = {name for name in names if zlib.crc32(name.encode()) % VAL_IN == 0}
    parts = []
    for part, own in (("train", [n for n in names if n not in held]), ("val", sorted(held))):
        annotated = _images(images, {name: objects[name] for name in own}, problems if part == "train" else [])
        parts.append(Part(part, len(own), annotated, listed=True))
    return Source(file.parent, settings.names or NAMES, tuple(parts))


def _geojson_entries(file: Path) -> Iterator[Entry]:
    content = read_json(file)
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list):
        raise UserError(f"{file}: not GeoJSON: it has no list 'features'")
    for place, feature in enumerate(features, 1):
        row = feature.get("properties") if isinstance(feature, dict) else None
        row = row if isinstance(row, dict) else {}
        yield Entry(place, *(str(row.get(key, "")) for key in ("image_id", "type_id", "bounds_imcoords")))


def _csv_entries(file: Path) -> Iterator[Entry]:
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
            rows: Iterable[dict[str, str | None]] = csv.DictReader(lines)
            for place, row in enumerate(rows, 2):
                yield Entry(place, *(str(row.get(key) or "") for key in ("image_id", "type_id", "bounds_imcoords")))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error


def _object(entry: Entry) -> tuple[int, tuple[float, ...]] | str:
    if not entry.image or "/" in entry.image:
        return f"image_id {entry.image[:40]!r} is not the name of an image"
    try:
        kind = CLASS_OF.get(int(float(entry.type_id)))
        box = tuple(float(side) for side in entry.bounds.strip("() ").split(","))
    except (ValueError, OverflowError):
        return f"type_id {entry.type_id[:20]!r}, bounds_imcoords {entry.bounds[:60]!r}: not numbers"
    if kind is None:
        return f"type_id {entry.type_id[:20]} is not a class of xView"
    if len(box) != 4 or not np.isfinite(box).all():
        return f"bounds_imcoords {entry.bounds[:60]!r}: not four finite numbers"
    return kind, box


def _images(
    images: Path, objects: dict[str, list[tuple[int, tuple[float, ...]]]], problems: list[LabelProblem]
) -> Iterator[AnnotatedImage | LabelProblem]:
    yield from problems
    for name, found in objects.items():
        path = images / name
        size = readable_size(path)
        if isinstance(size, LabelProblem):  # 1395.tif was never published
            yield size
            continue
        classes = np.array([kind for kind, _ in found], dtype=np.int64)
        yield AnnotatedImage(path, size, classes, as_boxes([box for _, box in found]))

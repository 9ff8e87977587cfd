"""Readers of data sets of aerial images: DOTA, VisDrone, xView."""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.dataset.coco_files import read_json
from utils.dataset.converters.label_writing import (
    ALL_CLASSES,
    AnnotatedImage,
    Part,
    Source,
    SourceSettings,
    as_boxes,
    class_table,
    folder_of,
    readable_size,
    with_images,
)
from utils.dataset.label_files import LabelProblem, plain_name
from utils.geometry.letterbox import FrameSize
from utils.user_error import UserError

DOTA_NAMES = (
    "plane",
    "ship",
    "storage-tank",
    "baseball-diamond",
    "tennis-court",
    "basketball-court",
    "ground-track-field",
    "harbor",
    "bridge",
    "large-vehicle",
    "small-vehicle",
    "helicopter",
    "roundabout",
    "soccer-ball-field",
    "swimming-pool",
)
DOTA_HEADERS = ("imagesource", "gsd")


def read_dota(settings: SourceSettings) -> Source:
    """DOTA: a folder with ``images`` and ``labelTxt`` (or ``labelTxt-v1.5``, ...), or a folder of such folders.

    Rows are ``x1 y1 x2 y2 x3 y3 x4 y4 category difficult``; the turned rectangles become upright boxes around them.
    Objects marked difficult are to be ignored, as DOTA's development kit does in its figures.
    """
    root = folder_of(settings)
    folders = (
        [root]
        if _dota_label_folder(root)
        else sorted(p for p in root.iterdir() if p.is_dir() and _dota_label_folder(p))
    )
    if not folders:
        raise UserError(f"{root}: no folder 'labelTxt' in it or in a folder of it")
    names = settings.names or DOTA_NAMES
    class_of = class_table([name.replace("-", " ") for name in names])
    parts = []
    for folder in folders:
        labels = _dota_label_folder(folder)
        assert labels is not None
        files = sorted(labels.rglob("*.txt"))
        images = with_images(files, folder / "images", partial(_dota_image, class_of=class_of))
        parts.append(Part(folder.name if folder != root else "train", len(files), images))
    return Source(root, names, tuple(parts))


def _dota_label_folder(folder: Path) -> Path | None:
    return next((p for p in sorted(folder.glob("labelTxt*")) if p.is_dir()), None)


def _dota_image(image: Path, file: Path, size: FrameSize, class_of: Mapping[str, int]) -> AnnotatedImage:
    problems: list[LabelProblem] = []
    classes: list[int] = []
    boxes: list[tuple[float, ...]] = []
    ignored: list[tuple[float, ...]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        cells = line.split()
        if not cells or cells[0].partition(":")[0] in DOTA_HEADERS:
            continue
        row = _dota_row(cells, class_of)
        if isinstance(row, str):
            problems.append(LabelProblem(str(file), number, row))
            continue
        kind, box, difficult = row
        if difficult:
            ignored.append((kind, *box))
        else:
            classes.append(kind)
            boxes.append(box)
    return AnnotatedImage(
        path=image,
        size=size,
        classes=np.array(classes, dtype=np.int64),
        boxes=as_boxes(boxes),
        ignored=np.array(ignored, dtype=np.float64).reshape(-1, 5),
        problems=tuple(problems),
    )


def _dota_row(
    cells: list[str], class_of: Mapping[str, int]
) -> tuple[int, tuple[float, float, float, float], bool] | str:
    if len(cells) not in (9, 10):
        return f"{len(cells)} columns; a row has eight coordinates, a category and whether it is difficult"
    kind = class_of.get(plain_name(cells[8].replace("-", " ")))
    if kind is None:
        return f"{cells[8][:40]!r} is no class of the data set"
    try:
        corners = [float(cell) for cell in cells[:8]]
    except ValueError:
        return "its coordinates are not eight numbers"
    if not all(map(math.isfinite, corners)):
        return "its coordinates are not eight finite numbers"
    x, y = corners[0::2], corners[1::2]
    return kind, (min(x), min(y), max(x), max(y)), len(cells) == 10 and cells[9] != "0"


VISDRONE_NAMES = (
    "pedestrian",
    "people",
    "bicycle",
    "car",
    "van",
    "truck",
    "tricycle",
    "awning-tricycle",
    "bus",
    "motor",
)
VISDRONE_REGION, VISDRONE_OTHERS = 0, 11
VISDRONE_COVERED = 0.5  # part of an object in regions to ignore from which on it is dropped
VISDRONE_PREFIX = "VisDrone2019-DET-"


def read_visdrone(settings: SourceSettings) -> Source:
    """VisDrone-DET: a folder with ``images`` and ``annotations``, or a folder of such folders.

    Rows are ``left,top,width,height,score,category,truncation,occlusion``. As its toolkit has it: category 0 marks a
    region to ignore, and an object of which half or more lies in such regions is dropped with it; a row of score 0 is
    an object to ignore; category 11, "others", is not among the classes.
    """
    root = folder_of(settings)
    folders = [root] if (root / "annotations").is_dir() else sorted(p.parent for p in root.glob("*/annotations"))
    if not folders:
        raise UserError(f"{root}: no folder 'annotations' in it or in a folder of it")
    parts = []
    for folder in folders:
        files = sorted((folder / "annotations").glob("*.txt"))
        name = folder.name.removeprefix(VISDRONE_PREFIX) if folder != root else "train"
        parts.append(Part(name, len(files), with_images(files, folder / "images", _visdrone_image)))
    return Source(root, settings.names or VISDRONE_NAMES, tuple(parts))


def _visdrone_image(image: Path, file: Path, size: FrameSize) -> AnnotatedImage:
    problems: list[LabelProblem] = []
    classes: list[int] = []
    boxes: list[tuple[float, ...]] = []
    ignored: list[tuple[float, ...]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        cells = [cell for cell in line.strip().rstrip(",").split(",") if cell]
        if not cells:
            continue
        try:
            x, y, w, h, score, category = (int(float(cell)) for cell in cells[:6])
        except ValueError:
            problems.append(LabelProblem(str(file), number, "not a row left,top,width,height,score,category,..."))
            continue
        box = (x, y, x + w, y + h)
        if category == VISDRONE_REGION:
            ignored.append((ALL_CLASSES, *box))
        elif 0 < category < VISDRONE_OTHERS and score == 0:
            ignored.append((category - 1, *box))
        elif 0 < category < VISDRONE_OTHERS:
            classes.append(category - 1)
            boxes.append(box)
        elif category != VISDRONE_OTHERS:
            problems.append(
                LabelProblem(str(file), number, f"category {category} is not one of 0 to {VISDRONE_OTHERS}")
            )
    table, regions = as_boxes(boxes), np.array(ignored, dtype=np.float64).reshape(-1, 5)
    visible = _visdrone_outside(table, regions[regions[:, 0] == ALL_CLASSES, 1:], size)
    return AnnotatedImage(
        path=image,
        size=size,
        classes=np.array(classes, dtype=np.int64)[visible],
        boxes=table[visible],
        ignored=regions,
        problems=tuple(problems),
    )


def _visdrone_outside(boxes: np.ndarray, regions: np.ndarray, size: FrameSize) -> np.ndarray:
    """Whether less than `VISDRONE_COVERED` of each box (N, 4) lies in the union of regions (R, 4); (N,) bool."""
    if not len(boxes) or not len(regions):
        return np.ones(len(boxes), dtype=bool)
    covered = np.zeros(size, dtype=bool)
    for x1, y1, x2, y2 in regions.clip(0).astype(int).tolist():
        covered[y1:y2, x1:x2] = True
    shares = []
    for x1, y1, x2, y2 in boxes.clip(0).astype(int).tolist():
        part = covered[y1:y2, x1:x2]
        shares.append(part.mean() if part.size else 0.0)
    return np.array(shares) < VISDRONE_COVERED


XVIEW_TYPES = {
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
XVIEW_NAMES = tuple(XVIEW_TYPES.values())
XVIEW_CLASS_OF = {number: index for index, number in enumerate(XVIEW_TYPES)}
XVIEW_FILE = "xView_train.geojson"
XVIEW_VAL_IN = 10  # one image in so many is for validation


class XViewEntry(NamedTuple):
    """One object as the file has it."""

    place: int  # in the file, from 1
    image: str
    type_id: str
    bounds: str


def read_xview(settings: SourceSettings) -> Source:
    """xView: the annotation file, or the folder in which ``xView_train.geojson`` lies, with ``train_images/*.tif``.

    The annotations may be a table as CSV too. Each entry has ``image_id`` (the image's name), ``type_id`` and
    ``bounds_imcoords`` (x1,y1,x2,y2 in pixels). The published training images are split: one in ten, drawn by name, is
    for validation.
    """
    file = settings.root / XVIEW_FILE if settings.root.is_dir() else settings.root
    entries = _xview_csv_entries(file) if file.suffix.lower() == ".csv" else _xview_geojson_entries(file)
    folders = (
        (settings.images,) if settings.images else (file.parent / "train_images", file.parent / "images" / "train")
    )
    images = next((folder for folder in folders if folder.is_dir()), None)
    if images is None:
        raise UserError(f"{file}: no folder of images, {' or '.join(map(str, folders))}")
    objects: dict[str, list[tuple[int, tuple[float, ...]]]] = {}
    problems: list[LabelProblem] = []
    for entry in entries:
        found = _xview_object(entry)
        if isinstance(found, str):
            problems.append(LabelProblem(str(file), entry.place, found))
        else:
            objects.setdefault(entry.image, []).append(found)
    names = sorted(objects)
    held = {name for name in names if zlib.crc32(name.encode()) % XVIEW_VAL_IN == 0}
    parts = []
    for part, own in (("train", [n for n in names if n not in held]), ("val", sorted(held))):
        annotated = _xview_images(images, {name: objects[name] for name in own}, problems if part == "train" else [])
        parts.append(Part(part, len(own), annotated, listed=True))
    return Source(file.parent, settings.names or XVIEW_NAMES, tuple(parts))


def _xview_geojson_entries(file: Path) -> Iterator[XViewEntry]:
    content = read_json(file)
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list):
        raise UserError(f"{file}: not GeoJSON: it has no list 'features'")
    for place, feature in enumerate(features, 1):
        row = feature.get("properties") if isinstance(feature, dict) else None
        row = row if isinstance(row, dict) else {}
        yield XViewEntry(place, *(str(row.get(key, "")) for key in ("image_id", "type_id", "bounds_imcoords")))


def _xview_csv_entries(file: Path) -> Iterator[XViewEntry]:
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
            rows: Iterable[dict[str, str | None]] = csv.DictReader(lines)
            for place, row in enumerate(rows, 2):
                yield XViewEntry(
                    place, *(str(row.get(key) or "") for key in ("image_id", "type_id", "bounds_imcoords"))
                )
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error


def _xview_object(entry: XViewEntry) -> tuple[int, tuple[float, ...]] | str:
    if not entry.image or "/" in entry.image:
        return f"image_id {entry.image[:40]!r} is not the name of an image"
    try:
        kind = XVIEW_CLASS_OF.get(int(float(entry.type_id)))
        box = tuple(float(side) for side in entry.bounds.strip("() ").split(","))
    except (ValueError, OverflowError):
        return f"type_id {entry.type_id[:20]!r}, bounds_imcoords {entry.bounds[:60]!r}: not numbers"
    if kind is None:
        return f"type_id {entry.type_id[:20]} is not a class of xView"
    if len(box) != 4 or not np.isfinite(box).all():
        return f"bounds_imcoords {entry.bounds[:60]!r}: not four finite numbers"
    return kind, box


def _xview_images(
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

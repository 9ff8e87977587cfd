"""SKU-110K: ``annotations/annotations_{train,val,test}.csv``, rows ``image,x1,y1,x2,y2,class,width,height``."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.dataset.converters.annotated_images import (
    AnnotatedImage,
    Part,
    Source,
    SourceSettings,
    as_boxes,
    folder_of,
    readable_size,
)
from utils.dataset.label_files import LabelProblem
from utils.user_error import UserError

NAMES = ("object",)
PREFIX = "annotations_"


def read_sku110k(settings: SourceSettings) -> Source:
    """The folder with ``annotations`` and ``images``."""
    root = folder_of(settings)
    files = sorted((root / "annotations").glob(f"{PREFIX}*.csv"))
    if not files:
        raise UserError(f"{root}: no annotations/{PREFIX}*.csv")
    images = settings.images or root / "images"
    parts = []
    for file in files:
        rows, problems = _rows_by_image(file)
        name = file.stem.removeprefix(PREFIX)
        parts.append(Part(name, len(rows), _images(images, rows, problems), listed=True))
    return Source(root, settings.names or NAMES, tuple(parts))


def _rows_by_image(file: Path) -> tuple[dict[str, list[tuple[float, ...]]], list[LabelProblem]]:
    found: dict[str, list[tuple[float, ...]]] = {}
    problems: list[LabelProblem] = []
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        for number, row in enumerate(csv.reader(lines), 1):
            try:
                name, box = row[0].strip(), tuple(float(cell) for cell in row[1:5])
            except (IndexError, ValueError):
                name, box = "", ()
            if not name or "/" in name or len(box) != 4 or not np.isfinite(box).all():
                problems.append(LabelProblem(str(file), number, "not a row image,x1,y1,x2,y2,class,width,height"))
                continue
            found.setdefault(name, []).append(box)
    return found, problems


def _images(
    images: Path, rows: dict[str, list[tuple[float, ...]]], problems: list[LabelProblem]
) -> Iterator[AnnotatedImage | LabelProblem]:
    yield from problems
    for name, boxes in sorted(rows.items()):
        path = images / name
        size = readable_size(path)
        if isinstance(size, LabelProblem):
            yield size
            continue
        yield AnnotatedImage(path, size, np.zeros(len(boxes), dtype=np.int64), as_boxes(boxes))

"""DOTA: ``labelTxt*/*.txt`` beside ``images/``, rows ``x1 y1 x2 y2 x3 y3 x4 y4 category difficult``.

The turned rectangles become upright boxes around them. Objects marked difficult are to be ignored, as DOTA's
development kit does in its figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from utils.dataset.converters.annotated_images import (
    AnnotatedImage,
    Part,
    Source,
    SourceSettings,
    as_boxes,
    class_table,
    folder_of,
    with_images,
)
from utils.dataset.label_files import LabelProblem, plain_name
from utils.geometry.letterbox import FrameSize
from utils.user_error import UserError

NAMES = (
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
HEADERS = ("imagesource", "gsd")


def read_dota(settings: SourceSettings) -> Source:
    """A folder with ``images`` and ``labelTxt`` (or ``labelTxt-v1.5``, ...), or a folder of such folders."""
    root = folder_of(settings)
    folders = [root] if _label_folder(root) else sorted(p for p in root.iterdir() if p.is_dir() and _label_folder(p))
    if not folders:
        raise UserError(f"{root}: no folder 'labelTxt' in it or in a folder of it")
    names = settings.names or NAMES
    class_of = class_table([name.replace("-", " ") for name in names])
    parts = []
    for folder in folders:
        labels = _label_folder(folder)
        assert labels is not None
        files = sorted(labels.rglob("*.txt"))
        images = with_images(files, folder / "images", partial(_image, class_of=class_of))
        parts.append(Part(folder.name if folder != root else "train", len(files), images))
    return Source(root, names, tuple(parts))


def _label_folder(folder: Path) -> Path | None:
    return next((p for p in sorted(folder.glob("labelTxt*")) if p.is_dir()), None)


def _image(image: Path, file: Path, size: FrameSize, class_of: Mapping[str, int]) -> AnnotatedImage:
    problems: list[LabelProblem] = []
    classes: list[int] = []
    boxes: list[tuple[float, ...]] = []
    ignored: list[tuple[float, ...]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        cells = line.split()
        if not cells or cells[0].partition(":")[0] in HEADERS:
            continue
        row = _row(cells, class_of)
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


def _row(cells: list[str], class_of: Mapping[str, int]) -> tuple[int, tuple[float, float, float, float], bool] | str:
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

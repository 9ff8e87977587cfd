"""VisDrone-DET: ``annotations/*.txt`` beside ``images/``.

Rows are ``left,top,width,height,score,category,truncation,occlusion``.

As its toolkit has it: category 0 marks a region to ignore, and an object of which half or more lies in such regions
is dropped with it; a row of score 0 is an object to ignore; category 11, "others", is not among the classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.dataset.converters.annotated_images import (
    ALL_CLASSES,
    AnnotatedImage,
    Part,
    Source,
    SourceSettings,
    as_boxes,
    folder_of,
    with_images,
)
from utils.dataset.label_files import LabelProblem
from utils.geometry.letterbox import FrameSize
from utils.user_error import UserError

NAMES = ("pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor")
REGION, OTHERS = 0, 11
COVERED = 0.5  # part of an object in regions to ignore from which on it is dropped
PREFIX = "VisDrone2019-DET-"


def read_visdrone(settings: SourceSettings) -> Source:
    """A folder with ``images`` and ``annotations``, or a folder of such folders."""
    root = folder_of(settings)
    folders = [root] if (root / "annotations").is_dir() else sorted(p.parent for p in root.glob("*/annotations"))
    if not folders:
        raise UserError(f"{root}: no folder 'annotations' in it or in a folder of it")
    parts = []
    for folder in folders:
        files = sorted((folder / "annotations").glob("*.txt"))
        name = folder.name.removeprefix(PREFIX) if folder != root else "train"
        parts.append(Part(name, len(files), with_images(files, folder / "images", _image)))
    return Source(root, settings.names or NAMES, tuple(parts))


def _image(image: Path, file: Path, size: FrameSize) -> AnnotatedImage:
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
        if category == REGION:
            ignored.append((ALL_CLASSES, *box))
        elif 0 < category < OTHERS and score == 0:
            ignored.append((category - 1, *box))
        elif 0 < category < OTHERS:
            classes.append(category - 1)
            boxes.append(box)
        elif category != OTHERS:
            problems.append(LabelProblem(str(file), number, f"category {category} is not one of 0 to {OTHERS}"))
    table, regions = as_boxes(boxes), np.array(ignored, dtype=np.float64).reshape(-1, 5)
    visible = _outside(table, regions[regions[:, 0] == ALL_CLASSES, 1:], size)
    return AnnotatedImage(
        path=image,
        size=size,
        classes=np.array(classes, dtype=np.int64)[visible],
        boxes=table[visible],
        ignored=regions,
        problems=tuple(problems),
    )


def _outside(boxes: np.ndarray, regions: np.ndarray, size: FrameSize) -> np.ndarray:
    """Whether less than `COVERED` of each box (N, 4) lies in the union of regions (R, 4); (N,) bool."""
    if not len(boxes) or not len(regions):
        return np.ones(len(boxes), dtype=bool)
    covered = np.zeros(size, dtype=bool)
    for x1, y1, x2, y2 in regions.clip(0).astype(int).tolist():
        covered[y1:y2, x1:x2] = True
    shares = []
    for x1, y1, x2, y2 in boxes.clip(0).astype(int).tolist():
        part = covered[y1:y2, x1:x2]
        shares.append(part.mean() if part.size else 0.0)
    return np.array(shares) < COVERED

"""COCO: annotation files and their images. Crowd regions are no objects and are left out, as COCO's tools do.

Training and evaluation read COCO's files directly (``annotations:`` in the dataset YAML), crowd regions included; a
conversion is for other programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.dataset.coco_annotations import CocoAnnotations, classes_of, read_coco_annotations
from utils.dataset.converters.annotated_images import AnnotatedImage, Part, Source, SourceSettings, readable_size
from utils.dataset.label_files import LabelProblem
from utils.user_error import UserError

PREFIX = "instances_"


def read_coco(settings: SourceSettings) -> Source:
    """An annotation file, or a folder with ``annotations/*.json``.

    Without ``names`` the classes are the categories of the first file in order of their ids.
    """
    root = settings.root
    files = [root] if not root.is_dir() else sorted((root / "annotations").glob(f"{PREFIX}*.json"))
    files = files or sorted((root / "annotations").glob("*.json"))
    if not files:
        raise UserError(f"{root}: no annotation file, neither this nor annotations/*.json")
    names = settings.names
    parts = []
    for file in files:
        content = read_coco_annotations(file)
        if names is None:
            names = tuple(content.category_names[place] for place in np.argsort(content.category_ids).tolist())
        name = file.stem.removeprefix(PREFIX)
        images = settings.images or _images_of(file, name)
        parts.append(Part(name, len(content.image_ids), _images(content, images, names, settings.outlines)))
    return Source(root, names or (), tuple(parts))


def _images_of(file: Path, name: str) -> Path:
    root = file.parent.parent
    candidates = (root / "images" / name, root / name, root / "images", file.parent)
    return next(folder for folder in candidates if folder.is_dir())


def _images(
    content: CocoAnnotations, images: Path, names: tuple[str, ...], outlines: bool
) -> Iterator[AnnotatedImage | LabelProblem]:
    kinds = classes_of(content, names)
    rows_of: dict[int, list[int]] = {}
    for row in np.flatnonzero(~content.crowd).tolist():
        rows_of.setdefault(int(content.images[row]), []).append(row)
    for place, name in enumerate(content.image_names):
        path = images / name if (images / name).is_file() else images / Path(name).name
        size = readable_size(path)
        if isinstance(size, LabelProblem):
            yield size
            continue
        rows = rows_of.get(place, [])
        own = [row for row in rows if kinds[content.categories[row]] < len(names)]
        strangers = [content.category_names[content.categories[row]] for row in rows if row not in set(own)]
        boxes = content.boxes[own].reshape(-1, 4).copy()
        boxes[:, 2:] += boxes[:, :2]
        yield AnnotatedImage(
            path=path,
            size=size,
            classes=kinds[content.categories[own]],
            boxes=boxes,
            outlines=tuple(content.outlines[row] for row in own) if outlines else (),
            problems=tuple(LabelProblem(str(path), 0, f"{text!r} is no class of the data set") for text in strangers),
        )

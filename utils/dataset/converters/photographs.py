"""Readers of data sets of photographs: COCO, Pascal VOC, SKU-110K."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.dataset.coco_annotations import classes_of
from utils.dataset.coco_files import CocoAnnotations, read_coco_annotations
from utils.dataset.converters.label_writing import (
    AnnotatedImage,
    Part,
    Source,
    SourceSettings,
    as_boxes,
    class_table,
    folder_of,
    images_by_stem,
    readable_size,
)
from utils.dataset.label_files import LabelProblem, VocFile, parse_voc, plain_name
from utils.user_error import UserError

COCO_PREFIX = "instances_"
VOC_LISTS = ("train", "val", "trainval", "test")
SKU110K_NAMES = ("object",)
SKU110K_PREFIX = "annotations_"


def read_coco(settings: SourceSettings) -> Source:
    """COCO: an annotation file and its images, or a folder with ``annotations/*.json``.

    Crowd regions are no objects and are left out, as COCO's tools do. Training and evaluation read COCO's files
    directly (``annotations:`` in the dataset YAML), crowd regions included; a conversion is for other programs.

    Without names the classes are the categories of the first file in order of their ids.
    """
    root = settings.root
    files = [root] if not root.is_dir() else sorted((root / "annotations").glob(f"{COCO_PREFIX}*.json"))
    files = files or sorted((root / "annotations").glob("*.json"))
    if not files:
        raise UserError(f"{root}: no annotation file, neither this nor annotations/*.json")
    names = settings.names
    parts = []
    for file in files:
        content = read_coco_annotations(file)
        if names is None:
            names = tuple(content.category_names[place] for place in np.argsort(content.category_ids).tolist())
        name = file.stem.removeprefix(COCO_PREFIX)
        images = settings.images or _coco_images_of(file, name)
        parts.append(Part(name, len(content.image_ids), _coco_images(content, images, names, settings.outlines)))
    return Source(root, names or (), tuple(parts))


def _coco_images_of(file: Path, name: str) -> Path:
    root = file.parent.parent
    candidates = (root / "images" / name, root / name, root / "images", file.parent)
    return next(folder for folder in candidates if folder.is_dir())


def _coco_images(
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
        height, width = content.image_sizes[place].tolist()
        if min(height, width) > 0 and (height, width) != size:
            text = f"is {size.width} x {size.height}, but {content.file.name} says {width:g} x {height:g}: left out"
            yield LabelProblem(str(path), 0, text)
            continue
        rows = rows_of.get(place, [])
        own = [row for row in rows if kinds[content.categories[row]] < len(names)]
        strangers = [content.category_names[content.categories[row]] for row in rows if row not in set(own)]
        yield AnnotatedImage(
            path=path,
            size=size,
            classes=kinds[content.categories[own]],
            boxes=content.boxes[own],
            outlines=tuple(content.outlines[row] for row in own) if outlines else (),
            problems=tuple(LabelProblem(str(path), 0, f"{text!r} is no class of the data set") for text in strangers),
        )


def read_voc(settings: SourceSettings) -> Source:
    """Pascal VOC: ``Annotations/*.xml`` (or XML files) and ``JPEGImages/``; its parts are the lists of `VOC_LISTS`.

    Training reads VOC's files directly too; a conversion is for other programs. Objects marked difficult are to be
    ignored, as VOC's development kit does in its figures.

    Without ``names`` the classes are the names that occur, sorted.
    """
    root = folder_of(settings)
    annotations = root / "Annotations" if (root / "Annotations").is_dir() else root
    files = {file.stem: file for file in sorted(annotations.rglob("*.xml"))}
    if not files:
        raise UserError(f"{annotations}: no .xml files")
    images = settings.images or next((f for f in (root / "JPEGImages", root / "images") if f.is_dir()), annotations)
    by_stem = images_by_stem(images)
    names = settings.names or _voc_names_in(files.values())
    lists = {name: root / "ImageSets" / "Main" / f"{name}.txt" for name in VOC_LISTS}
    chosen = {name: _voc_listed(file) for name, file in lists.items() if file.is_file()} or {"train": list(files)}
    if "train" in chosen and "val" in chosen:
        chosen.pop("trainval", None)
    parts = [
        Part(name, len(ids), _voc_images(ids, files, by_stem, class_table(names)), listed=len(chosen) > 1)
        for name, ids in chosen.items()
    ]
    return Source(root, names, tuple(parts))


def _voc_listed(file: Path) -> list[str]:
    return [
        line.split()[0] for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines() if line.split()
    ]


def _voc_parsed(file: Path) -> VocFile | LabelProblem:
    try:
        return parse_voc(file.read_bytes().decode("utf-8-sig"), str(file))
    except OSError as error:
        return LabelProblem(str(file), 0, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        return LabelProblem(str(file), 0, "not a text file")


def _voc_names_in(files: Iterable[Path]) -> tuple[str, ...]:
    names: dict[str, str] = {}
    for file in files:
        content = _voc_parsed(file)
        if isinstance(content, VocFile):
            for item in content.objects:
                names.setdefault(plain_name(item.name), item.name)
    return tuple(sorted(names.values()))


def _voc_images(
    ids: Sequence[str], files: Mapping[str, Path], images: Mapping[str, Path], class_of: Mapping[str, int]
) -> Iterator[AnnotatedImage | LabelProblem]:
    for name in ids:
        file, image = files.get(name), images.get(name)
        if file is None or image is None:
            yield LabelProblem(name, 0, "has no annotation" if file is None else "has no image")
            continue
        content = _voc_parsed(file)
        if isinstance(content, LabelProblem):
            yield content
            continue
        size = readable_size(image)
        if isinstance(size, LabelProblem):
            yield size
            continue
        if content.size is not None and content.size != size:
            yield LabelProblem(str(file), 0, f"is for {content.size}, the image has {size}")
            continue
        known = [(class_of.get(plain_name(item.name)), item) for item in content.objects]
        strangers = [
            LabelProblem(str(file), item.line, f"{item.name[:40]!r} is no class of the data set")
            for kind, item in known
            if kind is None
        ]
        plain = [(kind, item.box) for kind, item in known if kind is not None and not item.difficult]
        difficult = [(kind, *item.box) for kind, item in known if kind is not None and item.difficult]
        yield AnnotatedImage(
            path=image,
            size=size,
            classes=np.array([kind for kind, _ in plain], dtype=np.int64),
            boxes=as_boxes([box for _, box in plain]),
            ignored=np.array(difficult, dtype=np.float64).reshape(-1, 5),
            problems=(*content.problems, *strangers),
        )


def read_sku110k(settings: SourceSettings) -> Source:
    """SKU-110K: the folder with ``annotations`` and ``images``.

    Rows of ``annotations_{train,val,test}.csv`` are ``image,x1,y1,x2,y2,class,width,height``.
    """
    root = folder_of(settings)
    files = sorted((root / "annotations").glob(f"{SKU110K_PREFIX}*.csv"))
    if not files:
        raise UserError(f"{root}: no annotations/{SKU110K_PREFIX}*.csv")
    images = settings.images or root / "images"
    parts = []
    for file in files:
        rows, problems = _sku110k_rows_by_image(file)
        name = file.stem.removeprefix(SKU110K_PREFIX)
        parts.append(Part(name, len(rows), _sku110k_images(images, rows, problems), listed=True))
    return Source(root, settings.names or SKU110K_NAMES, tuple(parts))


def _sku110k_rows_by_image(file: Path) -> tuple[dict[str, list[tuple[float, ...]]], list[LabelProblem]]:
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


def _sku110k_images(
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

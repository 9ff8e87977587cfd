"""Pascal VOC: ``Annotations/*.xml`` and ``JPEGImages/``; `utils.dataset.voc_files` reads one file.

Training reads VOC's files directly too; a conversion is for other programs. Objects marked difficult are to be
ignored, as VOC's development kit does in its figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    images_by_stem,
    readable_size,
)
from utils.dataset.label_files import LabelProblem, plain_name
from utils.dataset.voc_files import VocFile, parse_voc
from utils.user_error import UserError

LISTS = ("train", "val", "trainval", "test")


def read_voc(settings: SourceSettings) -> Source:
    """A folder with ``Annotations`` (or XML files) and the images; its parts are the lists of ``ImageSets/Main``.

    Without ``names`` the classes are the names that occur, sorted.
    """
    root = folder_of(settings)
    annotations = root / "Annotations" if (root / "Annotations").is_dir() else root
    files = {file.stem: file for file in sorted(annotations.rglob("*.xml"))}
    if not files:
        raise UserError(f"{annotations}: no .xml files")
    images = settings.images or next((f for f in (root / "JPEGImages", root / "images") if f.is_dir()), annotations)
    by_stem = images_by_stem(images)
    names = settings.names or _names_in(files.values())
    lists = {name: root / "ImageSets" / "Main" / f"{name}.txt" for name in LISTS}
    chosen = {name: _listed(file) for name, file in lists.items() if file.is_file()} or {"train": list(files)}
    if "train" in chosen and "val" in chosen:
        chosen.pop("trainval", None)
    parts = [
        Part(name, len(ids), _images(ids, files, by_stem, class_table(names)), listed=len(chosen) > 1)
        for name, ids in chosen.items()
    ]
    return Source(root, names, tuple(parts))


def _listed(file: Path) -> list[str]:
    return [
        line.split()[0] for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines() if line.split()
    ]


def _parsed(file: Path) -> VocFile | LabelProblem:
    try:
        return parse_voc(file.read_bytes().decode("utf-8-sig"), str(file))
    except OSError as error:
        return LabelProblem(str(file), 0, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        return LabelProblem(str(file), 0, "not a text file")


def _names_in(files: Iterable[Path]) -> tuple[str, ...]:
    names: dict[str, str] = {}
    for file in files:
        content = _parsed(file)
        if isinstance(content, VocFile):
            for item in content.objects:
                names.setdefault(plain_name(item.name), item.name)
    return tuple(sorted(names.values()))


def _images(
    ids: Sequence[str], files: Mapping[str, Path], images: Mapping[str, Path], class_of: Mapping[str, int]
) -> Iterator[AnnotatedImage | LabelProblem]:
    for name in ids:
        file, image = files.get(name), images.get(name)
        if file is None or image is None:
            yield LabelProblem(name, 0, "has no annotation" if file is None else "has no image")
            continue
        content = _parsed(file)
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

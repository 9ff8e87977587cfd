"""The images of a data set's parts, from folders and lists, and the label file of each."""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from utils.dataset.image_files import IMAGE_SUFFIXES, folders_below
from utils.user_error import UserError

_ROBOFLOW = re.compile(r"(.+)\.rf\.[0-9A-Za-z]{16,}")


def list_images(sources: Sequence[Path], root: Path | None = None) -> list[Path]:
    """Images of folders (recursive) and ``.txt`` lists, sorted, each once.

    A list holds one path per line. One that starts with ``./`` is relative to the list's folder; another is looked
    for there, then in the working folder (YOLOv5's rule), then in ``root``, the data set's own. A list in a folder
    of Pascal VOC's ``ImageSets`` may hold names without a suffix, of images in ``JPEGImages``.

    Raises:
        UserError: a source that does not exist, a list of which no image does, or sources without any image.
    """
    found: set[str] = set()
    for source in sources:
        if source.is_dir():
            found.update(_walk(source))
        elif source.is_file() and source.suffix.lower() == ".txt":
            found.update(_listed(source, root))
        elif source.is_file() and source.suffix.lower() in IMAGE_SUFFIXES:
            found.add(str(source))
        else:
            raise UserError(f"{source}: neither a folder, a .txt list nor an image")
    if not found:
        raise UserError(f"{', '.join(map(str, sources))}: no images found")
    return [Path(path) for path in sorted(found)]


def _walk(folder: Path) -> Iterator[str]:
    for here, files in folders_below(folder):
        for name in files:
            if name[len(_stem(name)) :].lower() in IMAGE_SUFFIXES:
                yield os.path.join(here, name)  # noqa: PTH118  (Path costs 5 times as much on large sets)


def _listed(source: Path, root: Path | None) -> Iterator[str]:
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: cannot be read as a list of images: {error}") from error
    is_voc = source.parent.parent.name == "ImageSets"
    bases = list(dict.fromkeys((source.parent.absolute(), Path.cwd(), *([root] if root else []))))
    lost, kept = "", False
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if name and is_voc and Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            yield _voc_image(source.parents[2] / "JPEGImages" / name)
        elif name and (name.startswith("./") or Path(name).is_absolute()):
            kept = True
            yield os.path.normpath(source.parent / name)
        elif name:
            tried = [os.path.normpath(base / name) for base in bases]
            found = next((file for file in tried if os.path.isfile(file)), None)  # noqa: PTH113  (refuses no name)
            kept |= found is not None
            lost = lost or ("" if found else f"line {number}: {name[:200]}")
            yield found or tried[0]
    if lost and not kept:
        raise UserError(f"{source}: {lost} is in none of the folders {', '.join(map(str, bases))}")


def _voc_image(without_suffix: Path) -> str:
    candidates = [f"{without_suffix}{suffix}" for suffix in (".jpg", *sorted(IMAGE_SUFFIXES))]
    return os.path.normpath(next((file for file in candidates if Path(file).is_file()), candidates[0]))


def label_path(image: Path) -> Path:
    """Where the labels of an image lie: the last ``images`` folder of its path becomes ``labels``, suffix ``.txt``."""
    return (_beside_images(image.parent, ("images",), "labels") / image.name).with_suffix(".txt")


def label_file(image: Path) -> Path:
    """The file with the labels of an image; `label_path` where there is none."""
    own = label_path(image)
    return own if own.is_file() else Path(LabelFiles().elsewhere(str(image)) or own)


class LabelFiles:
    """The label files of many images: what depends on an image's folder is found once for all images in it."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, list[tuple[str, str]]]] = {}

    def own(self, image: str) -> str:
        """`label_path`."""
        folder, name = os.path.split(image)
        return f"{self._of(folder)[0]}{_stem(name)}.txt"

    def elsewhere(self, image: str) -> str | None:
        """What labels an image that has no file at `label_path`, if anything does.

        A Pascal VOC file, in the place of the label file or in ``Annotations``; else the label file beside the image,
        also where the folder is called ``images``, as annotation tools leave it.
        """
        folder, name = os.path.split(image)
        stem = _stem(name)
        candidates = [f"{start}{stem}{suffix}" for start, suffix in self._of(folder)[1]]
        return next((file for file in candidates if os.path.isfile(file)), None)  # noqa: PTH113  (Path: 3 times as long)

    def _of(self, folder: str) -> tuple[str, list[tuple[str, str]]]:
        """What stands before the name of a label file, and before other names, with their suffixes, in their order."""
        if folder not in self._places:
            images = Path(folder)
            labels = _beside_images(images, ("images",), "labels")
            voc = [_beside_images(images, ("JPEGImages", "images"), name) for name in ("Annotations", "annotations")]
            others = dict.fromkeys([*((place, ".xml") for place in (labels, images, *voc)), (images, ".txt")])
            there = [(_start(place), suffix) for place, suffix in others if os.path.isdir(place)]  # noqa: PTH112  (refuses no name)
            self._places[folder] = (_start(labels), there)
        return self._places[folder]


def _beside_images(folder: Path, names: Sequence[str], name: str) -> Path:
    """The folder with its last part that is one of ``names`` called ``name``; the folder itself if none is."""
    parts = list(folder.parts)
    last = max((i for i, part in enumerate(parts) if part in names), default=None)
    if last is not None:
        parts[last] = name
    return Path(*parts)


def _start(folder: Path) -> str:
    """The folder as it stands before the name of a file."""
    return os.path.join(folder, "") if folder.parts else ""  # noqa: PTH118  (ends with a separator)


def _stem(name: str) -> str:
    """`Path.stem`, in a tenth of its time."""
    dot = name.rfind(".")
    return name[:dot] if 0 < dot < len(name) - 1 else name


def original_name(stem: str) -> str | None:
    """The name of the image that Roboflow made this one of (``NAME.rf.HASH``), or None."""
    match = _ROBOFLOW.fullmatch(stem)
    return match[1] if match else None


def shared_images(first: Iterable[Path], second: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Images of ``second`` that ``first`` has too, with these, as far as names tell.

    The same file, a copy of its bytes under its name, or another version that Roboflow made of the same original.
    Images that merely look alike are found by `utils.dataset.inspect`.
    """
    known: dict[str, Path] = {}
    for path in first:
        known[path.name] = known[str(path)] = known[original_name(path.stem) or path.name] = path
    pairs = []
    for path in second:
        original = known.get(original_name(path.stem) or "")
        same = known.get(str(path)) or original or known.get(path.name)
        if same and (same in (path, original) or _same_bytes(same, path)):
            pairs.append((same, path))
    return pairs


def _same_bytes(first: Path, second: Path) -> bool:
    try:
        return filecmp.cmp(first, second, shallow=False)
    except OSError:
        return False

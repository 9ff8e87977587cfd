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
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
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
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def label_file(image: Path) -> Path:
    """The file with the labels of an image; `label_path` where there is none."""
    own = label_path(image)
    return own if own.is_file() else other_label_file(image) or own


def other_label_file(image: Path) -> Path | None:
    """What labels an image that has no file at `label_path`, if anything does.

    A Pascal VOC file, in the place of the label file or in ``Annotations``; else the label file beside the image, also
    where the folder is called ``images``, as annotation tools leave it.
    """
    candidates = [label_path(image).with_suffix(".xml"), image.with_suffix(".xml")]
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] in ("JPEGImages", "images"):
            for folder in ("Annotations", "annotations"):
                candidates.append(Path(*parts[:i], folder, *parts[i + 1 :]).with_suffix(".xml"))
            break
    candidates.append(image.with_suffix(".txt"))
    return next((file for file in candidates if file.is_file()), None)


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

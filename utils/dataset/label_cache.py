"""Builds the `LabelIndex` of a split; what was read once is kept in an ``.npz`` and only changed files are read again.

The cache is arrays and text (``allow_pickle=False``). Nothing in it is believed unless size, modification time,
change time and inode of both the image and its label file are those of the day it was written, and, where the
label file is Pascal VOC's XML, the class names too.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.dataset.image_files import ImageReadError, image_size
from utils.dataset.image_lists import LabelFiles, label_file, label_path, list_images
from utils.dataset.label_files import LabelProblem, LabelRows, plain_name, read_label_file, read_voc_file
from utils.dataset.label_index import LabelIndex, PathList
from utils.geometry.letterbox import FrameSize
from utils.runtime.console_log import with_progress
from utils.user_error import UserError

log = logging.getLogger(__name__)

FORMAT_VERSION = 3
_READERS = 8
_NOWHERE = (0, 0, 0, 0)  # signature of a file that is not there


class _Scanned(NamedTuple):
    """What one image and its label file gave."""

    size: tuple[int, int]  # (0, 0): not readable
    labels: LabelRows
    labelled: bool
    image_problem: str


@dataclass(frozen=True, slots=True)
class _Records:
    """Scan results of F files as arrays, as they lie in the cache."""

    images: tuple[str, ...]
    signatures: np.ndarray  # (F, 9) int64: image, label file (zeros where there is none), class names if it has any
    sizes: np.ndarray  # (F, 2) int32
    labelled: np.ndarray  # (F,) bool
    duplicates: np.ndarray  # (F,) int32
    rows: np.ndarray  # (N, 5) float32
    lines: np.ndarray  # (N,) int32
    row_ends: np.ndarray  # (F,) int64
    points: np.ndarray  # (P, 2) float32
    point_ends: np.ndarray  # (N,) int64
    ignored: np.ndarray  # (I, 5) float32
    ignored_ends: np.ndarray  # (F,) int64
    problems: tuple[tuple[LabelProblem, ...], ...]  # F


def read_label_index(
    sources: Sequence[Path],
    names: Sequence[str],
    *,
    title: str = "",
    cache_folder: Path | None = None,
    root: Path | None = None,
) -> LabelIndex:
    """Index of all images and labels of ``sources`` (folders or ``.txt`` lists).

    The labels of an image are a YOLO label file or, where there is none, `LabelFiles.elsewhere`.

    Args:
        names: of the classes; a row of another class is a problem.
        title: text of the progress bar; without it there is none.
        cache_folder: where the cache lies; beside the labels folder, or the user's cache where that is read-only.
        root: see `list_images`.

    Raises:
        UserError: a source that does not exist, no image in it, or none that can be read.
    """
    images = [str(path) for path in list_images(sources, root)]
    cache = _cache_file(sources, Path(images[0]), cache_folder)
    labels, signatures = _label_files(images, names)

    known = _read_cache(cache)
    row_of = {image: i for i, image in enumerate(known.images)} if known else {}
    reuse = [row_of.get(image, -1) for image in images]
    if known is not None:
        reuse = [
            row if row >= 0 and np.array_equal(known.signatures[row], signatures[i]) else -1
            for i, row in enumerate(reuse)
        ]
    if known is None or reuse != list(range(len(known.images))):
        class_of = {plain_name(name): index for index, name in enumerate(names)}

        def scan(place: int) -> _Scanned:
            return _scan_one(Path(images[place]), Path(labels[place]), class_of)

        fresh = _scan([i for i, row in enumerate(reuse) if row < 0], scan, title)
        scanned = [fresh[i] if row < 0 or known is None else _unpacked(known, row) for i, row in enumerate(reuse)]
        known = _packed(images, signatures, scanned)
        _write_cache(cache, known)
    return _index(known, len(names), sources)


def _label_files(images: Sequence[str], names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The label file of each image, '' for none, and the signatures (F, 9) of both."""
    of_names = zlib.crc32(json.dumps(list(names)).encode())
    files = LabelFiles()
    labels: list[str] = []
    beside: list[str] = []
    signatures = np.zeros((len(images), 9), dtype=np.int64)
    for place, image in enumerate(images):
        label = files.own(image)
        own = _signature(label)
        if own == _NOWHERE:
            label = files.elsewhere(image) or ""
            own = _signature(label) if label else own
            if label.endswith(".xml"):
                signatures[place, 8] = of_names
            elif label:
                beside.append(label)
        labels.append(label)
        signatures[place, :8] = _signature(image) + own
    if beside:
        in_place = sum(label.endswith(".txt") for label in labels) - len(beside)
        level = logging.WARNING if in_place else logging.INFO  # two places at once are hardly meant
        log.log(
            level, "labels beside the images: %d, such as %s; in labels folders: %d", len(beside), beside[0], in_place
        )
    return labels, signatures


def _signature(path: str) -> tuple[int, int, int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116  (Path costs as much as the call itself)
    except (OSError, ValueError):
        return _NOWHERE
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _scan(rows: Sequence[int], scan: Callable[[int], _Scanned], title: str) -> dict[int, _Scanned]:
    if not rows:
        return {}
    with ThreadPoolExecutor(_READERS) as pool:
        results = pool.map(scan, rows)
        progress = with_progress(results, len(rows), "file", title, shown=bool(title))
        return dict(zip(rows, progress, strict=True))


def _scan_one(image: Path, label: Path, class_of: Mapping[str, int]) -> _Scanned:
    """``label`` is a YOLO label file, a Pascal VOC file, or the empty path for neither."""
    problem = ""
    try:
        size = image_size(image)
    except ImageReadError as error:
        size, problem = FrameSize(0, 0), str(error).removeprefix(f"{image}: ")
    labelled = label != Path()
    if label.suffix.lower() == ".xml":
        labels = LabelRows.nothing() if problem else read_voc_file(label, class_of, size)
    else:
        labels = read_label_file(label) if labelled else LabelRows.nothing()
    return _Scanned((size.height, size.width), labels, labelled, problem)


def _packed(images: Sequence[str], signatures: np.ndarray, scanned: Sequence[_Scanned]) -> _Records:
    parts = [one.labels for one in scanned]
    polygons = [polygon for part in parts for polygon in part.polygons]
    outlines = [polygon for polygon in polygons if polygon is not None]
    problems = tuple(
        ((LabelProblem(image, 0, one.image_problem),) if one.image_problem else ()) + one.labels.problems
        for image, one in zip(images, scanned, strict=True)
    )
    return _Records(
        images=tuple(images),
        signatures=signatures,
        sizes=np.array([one.size for one in scanned], dtype=np.int32).reshape(-1, 2),
        labelled=np.array([one.labelled for one in scanned], dtype=bool),
        duplicates=np.array([part.duplicates for part in parts], dtype=np.int32),
        rows=np.concatenate([part.rows for part in parts]),
        lines=np.concatenate([part.lines for part in parts]),
        row_ends=np.cumsum([len(part.rows) for part in parts], dtype=np.int64),
        points=np.concatenate(outlines) if outlines else np.zeros((0, 2), np.float32),
        point_ends=np.cumsum([0 if p is None else len(p) for p in polygons], dtype=np.int64),
        ignored=np.concatenate([part.ignored for part in parts]),
        ignored_ends=np.cumsum([len(part.ignored) for part in parts], dtype=np.int64),
        problems=problems,
    )


def _unpacked(records: _Records, row: int) -> _Scanned:
    start, end = int(records.row_ends[row - 1]) if row else 0, int(records.row_ends[row])
    first = int(records.point_ends[start - 1]) if start else 0
    borders = [first, *records.point_ends[start:end].tolist()]
    polygons = tuple(records.points[a:b] if b > a else None for a, b in itertools.pairwise(borders))
    image = records.images[row]
    own = tuple(problem for problem in records.problems[row] if problem.file != image)
    of_image = "".join(problem.text for problem in records.problems[row] if problem.file == image)
    ignored = records.ignored[int(records.ignored_ends[row - 1]) if row else 0 : int(records.ignored_ends[row])]
    lines, duplicates = records.lines[start:end], int(records.duplicates[row])
    rows = LabelRows(records.rows[start:end], lines, polygons, duplicates, own, ignored)
    height, width = (int(side) for side in records.sizes[row])
    return _Scanned((height, width), rows, bool(records.labelled[row]), of_image)


def _index(records: _Records, class_count: int, sources: Sequence[Path]) -> LabelIndex:
    counts = np.diff(records.row_ends, prepend=0)
    file_of_row = np.repeat(np.arange(len(records.images)), counts)
    readable = records.sizes[:, 0] > 0
    problems = [problem for group in records.problems for problem in group]
    unknown = records.rows[:, 0] >= class_count
    for row in np.flatnonzero(unknown):
        file = str(label_file(Path(records.images[file_of_row[row]])))
        text = f"class {int(records.rows[row, 0])}, but the classes are 0 to {class_count - 1}"
        problems.append(LabelProblem(file, int(records.lines[row]), text))
    if not readable.any():
        raise UserError(f"{', '.join(map(str, sources))}: none of {len(readable)} images can be read: {problems[0]}")

    kept_rows = ~unknown & readable[file_of_row]
    point_counts = np.diff(records.point_ends, prepend=0)
    kept_points = np.repeat(kept_rows, point_counts)
    new_counts = np.bincount(file_of_row[kept_rows], minlength=len(readable))[readable]
    return LabelIndex(
        paths=PathList([image for image, ok in zip(records.images, readable.tolist(), strict=True) if ok]),
        sizes=records.sizes[readable],
        rows=records.rows[kept_rows],
        row_ends=np.cumsum(new_counts, dtype=np.int64),
        points=records.points[kept_points],
        point_ends=np.cumsum(point_counts[kept_rows], dtype=np.int64),
        ignored=records.ignored,  # an unreadable image has none: its XML needs the image's size
        ignored_ends=records.ignored_ends[readable],
        unlabelled=int((~records.labelled & readable).sum()),
        duplicates=int(records.duplicates[readable].sum()),
        problems=tuple(sorted(problems)),
    )


def _cache_file(sources: Sequence[Path], first_image: Path, folder: Path | None) -> Path:
    labels = label_path(first_image).parent
    key = zlib.crc32(json.dumps([str(source.resolve()) for source in sources]).encode())
    return (folder or cache_folder_of(first_image)) / f"{labels.name}-{key:08x}.cache.npz"


def cache_folder_of(first_image: Path) -> Path:
    """Where caches of a split lie: beside its labels folder, or in the user's cache where that is read-only."""
    beside = label_path(first_image).parent.parent
    # A folder without any write permission is to stay as it is, even for root, whom permissions do not stop.
    if beside.is_dir() and beside.stat().st_mode & 0o222 and os.access(beside, os.W_OK):
        return beside
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolov5-spd"


def _read_cache(file: Path) -> _Records | None:
    """The records of a cache file, or None when there is none or it cannot be used."""
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            if int(stored["version"]) != FORMAT_VERSION:
                return None
            text = json.loads(stored["text"].tobytes().decode())
            problems = tuple(tuple(LabelProblem(str(f), int(n), str(t)) for f, n, t in g) for g in text["problems"])
            records = _Records(
                images=tuple(map(str, text["images"])),
                problems=problems,
                **{name: stored[name] for name in _ARRAYS},
            )
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("%s: the label cache cannot be used (%s) and is built again", file, type(error).__name__)
        return None
    return records if _consistent(records) else None


_ARRAYS = {
    "signatures": np.int64,
    "sizes": np.int32,
    "labelled": np.bool_,
    "duplicates": np.int32,
    "rows": np.float32,
    "lines": np.int32,
    "row_ends": np.int64,
    "points": np.float32,
    "point_ends": np.int64,
    "ignored": np.float32,
    "ignored_ends": np.int64,
}


def _consistent(records: _Records) -> bool:
    files, rows, points, ignored = (len(a) for a in (records.images, records.rows, records.points, records.ignored))
    shapes = {
        "signatures": (files, 9),
        "sizes": (files, 2),
        "labelled": (files,),
        "duplicates": (files,),
        "rows": (rows, 5),
        "lines": (rows,),
        "row_ends": (files,),
        "points": (points, 2),
        "point_ends": (rows,),
        "ignored": (ignored, 5),
        "ignored_ends": (files,),
    }
    if len(records.problems) != files:
        return False
    for name, kind in _ARRAYS.items():
        array = getattr(records, name)
        if array.dtype != kind or array.shape != shapes[name]:
            return False
    parts = ((records.row_ends, rows), (records.point_ends, points), (records.ignored_ends, ignored))
    for ends, total in parts:
        if (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != total:
            return False
    return True


def _write_cache(file: Path, records: _Records) -> None:
    text = json.dumps({"images": records.images, "problems": records.problems}).encode()
    arrays = {name: getattr(records, name) for name in _ARRAYS}
    temporary: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as out:
            temporary = Path(out.name)
            np.savez(out, version=np.int64(FORMAT_VERSION), text=np.frombuffer(text, np.uint8), **arrays)
        temporary.replace(file)
    except OSError as error:  # a full disk costs the next start some seconds, no more
        log.warning("%s: the label cache cannot be written: %s", file, error.strerror)
        if temporary is not None:
            temporary.unlink(missing_ok=True)

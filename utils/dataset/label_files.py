"""Label files of one image: YOLO's rows and Pascal VOC's XML.

YOLO: ``class cx cy w h`` or ``class x1 y1 x2 y2 ...``, fractions of the image's sides.

VOC counts pixels from 1 and its ``xmax``, ``ymax`` are the last pixels of the object, so that in continuous
coordinates a box spans ``xmin - 1`` to ``xmax`` (VOC2011 development kit, section 4.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from utils.geometry.letterbox import FrameSize
from utils.runtime.console_log import counted

_OBJECT = re.compile(r"<object[\s>/]")
_MARGIN = 1.0  # pixels beyond the image that are clipped without a word: tools disagree on where counting begins


class LabelProblem(NamedTuple):
    """A row or file that was not used, and why."""

    file: str
    line: int  # from 1; 0 for the file as a whole
    text: str

    @property
    def whole_file(self) -> bool:
        """Whether the file was not used, and not merely a row of it or an annotation in it."""
        return not self.line and not self.text.startswith("annotations[")

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


@dataclass(frozen=True, slots=True)
class LabelRows:
    """The usable rows of one label file."""

    rows: np.ndarray  # (N, 5) float32 class cx cy w h, fractions of the image
    lines: np.ndarray  # (N,) int32 line in the file, from 1
    polygons: tuple[np.ndarray | None, ...]  # N outlines (K, 2) float32 x y, fractions; None for a plain box
    duplicates: int
    problems: tuple[LabelProblem, ...]
    ignored: np.ndarray  # (I, 5) float32, rows of regions in which nothing is learned and nothing found is wrong

    @classmethod
    def nothing(cls, *problems: LabelProblem) -> LabelRows:
        return cls.of((), (), (), problems)

    @classmethod
    def of(
        cls,
        rows: Sequence[Sequence[float]],
        lines: Sequence[int],
        ignored: Sequence[Sequence[float]],
        problems: Sequence[LabelProblem],
    ) -> LabelRows:
        """Boxes without outlines; rows that repeat are dropped and counted."""
        table = np.array(rows, dtype=np.float32).reshape(-1, 5)
        kept = _first_of_each(table)
        return cls(
            rows=table[kept],
            lines=np.array(lines, dtype=np.int32)[kept],
            polygons=(None,) * len(kept),
            duplicates=len(table) - len(kept),
            problems=tuple(problems),
            ignored=np.array(ignored, dtype=np.float32).reshape(-1, 5),
        )


def plain_name(name: str) -> str:
    """A class name as names are compared: without regard to case and spacing."""
    return " ".join(name.lower().split())


def read_label_file(path: Path) -> LabelRows:
    """Read a label file; a bad row is a problem in the result and costs no other row.

    A file that cannot be read at all is one problem with no rows. Rows that repeat are dropped and counted.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        return LabelRows.nothing(LabelProblem(str(path), 0, f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError:
        return LabelRows.nothing(LabelProblem(str(path), 0, "not a text file"))
    return parse_labels(text, str(path))


def parse_labels(text: str, file: str) -> LabelRows:
    """The rows of a label file's text; ``file`` only names it in problems."""
    # Only \n ends a line (split() drops the \r), so that line numbers are those of an editor.
    lines = text.split("\n")
    cells = [line.split() for line in lines]
    numbers = np.array([i + 1 for i, row in enumerate(cells) if row], dtype=np.int32)
    filled = [row for row in cells if row]
    table = _box_table(filled) if "_" not in text else None  # Python reads 0_1 as 1
    if table is not None:
        polygons: list[np.ndarray | None] = [None] * len(table)
        problems: list[LabelProblem] = []
    else:
        table, numbers, polygons, problems = _row_by_row(filled, numbers, file)
    kept = _first_of_each(table)
    return LabelRows(
        rows=table[kept],
        lines=numbers[kept],
        polygons=tuple(polygons[i] for i in kept),
        duplicates=len(table) - len(kept),
        problems=tuple(problems),
        ignored=np.zeros((0, 5), np.float32),
    )


def _box_table(rows: list[list[str]]) -> np.ndarray | None:
    """All rows at once (N, 5) float32 when every one is a sound box, the usual case; else None."""
    if any(len(row) != 5 for row in rows):
        return None
    try:
        table = np.array(rows, dtype=str).reshape(-1, 5).astype(np.float64)
    except ValueError:
        return None
    coordinates = table[:, 1:]
    sound = (
        np.isfinite(table).all()
        and (table[:, 0] >= 0).all()
        and (table[:, 0] == np.floor(table[:, 0])).all()
        and (table[:, 0] < 2**24).all()  # the class is kept as float32
        and ((coordinates >= 0) & (coordinates <= 1)).all()
        and (table[:, 3:].astype(np.float32) > 0).all()
    )
    return table.astype(np.float32) if sound else None


def _row_by_row(
    rows: list[list[str]], numbers: np.ndarray, file: str
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray | None], list[LabelProblem]]:
    good: list[np.ndarray] = []
    good_numbers: list[int] = []
    polygons: list[np.ndarray | None] = []
    problems: list[LabelProblem] = []
    for number, row in zip(numbers.tolist(), rows, strict=True):
        parsed = _parse_row(row)
        if isinstance(parsed, str):
            problems.append(LabelProblem(file, number, parsed))
            continue
        box, polygon = parsed
        good.append(box)
        polygons.append(polygon)
        good_numbers.append(number)
    table = np.array(good, dtype=np.float32).reshape(-1, 5)
    return table, np.array(good_numbers, dtype=np.int32), polygons, problems


def _parse_row(row: list[str]) -> tuple[np.ndarray, np.ndarray | None] | str:
    """One row as (box row (5,), outline or None), or what is wrong with it."""
    if len(row) != 5 and (len(row) < 7 or len(row) % 2 == 0):
        return f"{counted(len(row), 'column')}; a box has 5, an outline 7 or more and an odd number"
    values = np.empty(len(row), dtype=np.float64)
    for i, cell in enumerate(row):
        try:
            values[i] = float(cell.replace("_", "?"))
        except ValueError:
            return f"{cell[:40]!r} is not a number"
        if not np.isfinite(values[i]):
            return f"{cell[:40]!r} is not a finite number"
    if values[0] < 0 or values[0] != np.floor(values[0]) or values[0] >= 2**24:
        return f"class {row[0][:40]} is not a whole number from 0"
    outside = (values[1:] < 0) | (values[1:] > 1)
    if outside.any():
        return f"{row[1 + int(outside.argmax())][:40]} is outside 0 to 1"
    polygon = None
    if len(row) == 5:
        box = values.astype(np.float32)
    else:
        polygon = values[1:].reshape(-1, 2).astype(np.float32)
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        box = np.concatenate([values[:1], (low + high) / 2, high - low]).astype(np.float32)
    if box[3] <= 0 or box[4] <= 0:
        return f"width {box[3]:g} and height {box[4]:g}: the object has no area"
    return box, polygon


def _first_of_each(table: np.ndarray) -> np.ndarray:
    """Indices of the rows left when repeated ones are dropped, in the order of the file."""
    if len(table) < 2:
        return np.arange(len(table))
    _, first = np.unique(table, axis=0, return_index=True)
    return np.sort(first)


class VocObject(NamedTuple):
    """One object as the file says it."""

    line: int  # in the file, from 1
    name: str
    difficult: bool
    box: tuple[float, float, float, float]  # xyxy, pixels, not clipped


class VocFile(NamedTuple):
    """What an annotation file says."""

    file_name: str  # of the image, '' if it is not said
    size: FrameSize | None  # of the image, None if it is not said
    objects: tuple[VocObject, ...]
    problems: tuple[LabelProblem, ...]  # objects that cannot be used


def parse_voc(text: str, file: str) -> VocFile | LabelProblem:
    """The content of an annotation file, or what is wrong with it as a whole."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can be made to grow without bound
        return LabelProblem(file, 0, "has a document type, which no annotation needs")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        return LabelProblem(file, 0, f"not XML: {error}")
    if root.tag != "annotation":
        return LabelProblem(file, 0, f"not a Pascal VOC annotation: its root is <{root.tag[:40]}>")
    lines = [text.count("\n", 0, match.start()) + 1 for match in _OBJECT.finditer(text)]
    objects: list[VocObject] = []
    problems: list[LabelProblem] = []
    for place, element in enumerate(root.findall("object")):
        line = lines[place] if place < len(lines) else 1
        found = _object(element, line)
        if isinstance(found, str):
            problems.append(LabelProblem(file, line, found))
        else:
            objects.append(found)
    return VocFile((root.findtext("filename") or "").strip(), _size(root), tuple(objects), tuple(problems))


def _size(root: ElementTree.Element) -> FrameSize | None:
    sides = [_number(root.findtext(f"size/{name}")) for name in ("height", "width")]
    if any(side is None or side < 1 or side != round(side) for side in sides):
        return None
    height, width = (round(side) for side in sides if side is not None)
    return FrameSize(height, width)


def _object(element: ElementTree.Element, line: int) -> VocObject | str:
    name = " ".join((element.findtext("name") or "").split())
    if not name:
        return "the object has no name"
    corners = [_number(element.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    if any(corner is None for corner in corners):
        return "bndbox: xmin, ymin, xmax and ymax have to be numbers"
    x1, y1, x2, y2 = (corner for corner in corners if corner is not None)
    difficult = (element.findtext("difficult") or "0").strip() not in ("0", "")
    return VocObject(line, name, difficult, (x1 - 1, y1 - 1, x2, y2))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def read_voc_file(path: Path, class_of: Mapping[str, int], size: FrameSize) -> LabelRows:
    """The objects of an annotation file as rows; those marked difficult are regions to ignore, as in VOC's own figures.

    Args:
        class_of: class of each `plain_name`; an object of another name is a problem.
        size: of the image on disk; a file that states another size is a problem as a whole.
    """
    try:
        content = parse_voc(path.read_bytes().decode("utf-8-sig"), str(path))
    except OSError as error:
        return LabelRows.nothing(LabelProblem(str(path), 0, f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError:
        return LabelRows.nothing(LabelProblem(str(path), 0, "not a text file"))
    if isinstance(content, LabelProblem):
        return LabelRows.nothing(content)
    if content.size is not None and content.size != size:
        (height, width), (own_height, own_width) = content.size, size
        text = f"is for an image of {width} x {height}, this one is {own_width} x {own_height}"
        return LabelRows.nothing(LabelProblem(str(path), 0, text))
    problems = list(content.problems)
    rows: list[tuple[float, ...]] = []
    ignored: list[tuple[float, ...]] = []
    lines: list[int] = []
    for item in content.objects:
        row = _row(item, class_of, size)
        if isinstance(row, str):
            problems.append(LabelProblem(str(path), item.line, row))
        elif item.difficult:
            ignored.append(row)
        else:
            rows.append(row)
            lines.append(item.line)
    return LabelRows.of(rows, lines, ignored, problems)


def _row(item: VocObject, class_of: Mapping[str, int], size: FrameSize) -> tuple[float, ...] | str:
    """Class, centre, width and height as fractions of the image, or what is wrong."""
    kind = class_of.get(plain_name(item.name))
    if kind is None:
        return f"{item.name[:40]!r} is no class of the data set"
    x1, y1, x2, y2 = item.box
    if x1 < -_MARGIN or y1 < -_MARGIN or x2 > size.width + _MARGIN or y2 > size.height + _MARGIN:
        return f"the box {x1 + 1:g} {y1 + 1:g} {x2:g} {y2:g} leaves the image of {size.width} x {size.height}"
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, size.width), min(y2, size.height)
    if x2 <= x1 or y2 <= y1:
        return f"xmax {item.box[2]:g}, ymax {item.box[3]:g}: the object has no area"
    centre = ((x1 + x2) / 2 / size.width, (y1 + y2) / 2 / size.height)
    return (kind, *centre, (x2 - x1) / size.width, (y2 - y1) / size.height)

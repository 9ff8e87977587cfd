"""Pascal VOC's XML annotation of one image, read as label rows.

VOC counts pixels from 1 and its ``xmax``, ``ymax`` are the last pixels of the object, so that in continuous
coordinates a box spans ``xmin - 1`` to ``xmax`` (VOC2011 development kit, section 4.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from utils.dataset.label_files import LabelProblem, LabelRows, plain_name
from utils.geometry.letterbox import FrameSize

_OBJECT = re.compile(r"<object[\s>/]")
_MARGIN = 1.0  # pixels beyond the image that are clipped without a word: tools disagree on where counting begins


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

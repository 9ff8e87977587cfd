"""YOLO label files: rows ``class cx cy w h`` or ``class x1 y1 x2 y2 ...``, fractions of the image's sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np


class LabelProblem(NamedTuple):
    """A row or file that was not used, and why."""

    file: str
    line: int  # from 1; 0 for the file as a whole
    text: str

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
        return f"{len(row)} columns; a box has 5, an outline 7 or more and an odd number"
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

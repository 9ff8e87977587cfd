"""The labels of a whole split as flat arrays: tens of MB for a hundred thousand images, shared by workers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.dataset.label_files import LabelProblem
from utils.geometry.boxes import clip_boxes, cxcywh_to_xyxy
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Labels
from utils.runtime.console_log import counted


class PathList(Sequence[Path]):
    """Many paths in one byte string: a list of Python strings would be copied into every worker as it is touched."""

    def __init__(self, paths: Sequence[str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]  # no slices
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = int(self._ends[index - 1]) if index else 0
        return Path(os.fsdecode(self._bytes[start : self._ends[index]].tobytes()))


@dataclass(frozen=True, slots=True)
class LabelIndex:
    """F readable images with N objects; object rows of image i are ``rows[row_ends[i - 1]:row_ends[i]]``."""

    paths: PathList  # F images
    sizes: np.ndarray  # (F, 2) int32 height, width, pixels
    rows: np.ndarray  # (N, 5) float32 class cx cy w h, fractions of the image
    row_ends: np.ndarray  # (F,) int64
    points: np.ndarray  # (P, 2) float32 outline points, fractions of the image
    point_ends: np.ndarray  # (N,) int64; an object without an outline has no points
    ignored: np.ndarray  # (I, 5) float32 class cx cy w h: regions where nothing is learned and nothing found is wrong
    ignored_ends: np.ndarray  # (F,) int64
    unlabelled: int  # images without a label file
    duplicates: int  # rows dropped
    problems: tuple[LabelProblem, ...]  # files and rows that are not used

    def __len__(self) -> int:
        return len(self.paths)

    def unlabelled_part(self, places: Sequence[int]) -> LabelIndex:
        """Some of the images, in the given order, without labels."""
        none = np.zeros(len(places), dtype=np.int64)
        return LabelIndex(
            paths=PathList([str(self.paths[place]) for place in places]),
            sizes=self.sizes[list(places)],
            rows=self.rows[:0],
            row_ends=none,
            points=self.points[:0],
            point_ends=self.point_ends[:0],
            ignored=self.ignored[:0],
            ignored_ends=none,
            unlabelled=len(places),
            duplicates=0,
            problems=self.problems,
        )

    def labels(self, index: int) -> Labels:
        """Ground truth of image ``index`` in pixels of the image on disk, boxes clipped to it."""
        height, width = (int(side) for side in self.sizes[index])
        start, end = int(self.row_ends[index - 1]) if index else 0, int(self.row_ends[index])
        rows = self.rows[start:end]
        scale = np.array([width, height, width, height], dtype=np.float32)
        boxes = clip_boxes(cxcywh_to_xyxy(rows[:, 1:]) * scale, height, width)
        polygons = tuple(self._polygon(i, scale[:2]) for i in range(start, end))
        return Labels(boxes, rows[:, 0].astype(np.int64), polygons, FrameSize(height, width))

    def _polygon(self, row: int, scale: np.ndarray) -> np.ndarray | None:
        start, end = int(self.point_ends[row - 1]) if row else 0, int(self.point_ends[row])
        return self.points[start:end] * scale if end > start else None

    def object_sizes(self) -> np.ndarray:
        """Width and height (N, 2) float32 of every object, pixels of its image on disk."""
        counts = np.diff(self.row_ends, prepend=0)
        return self.rows[:, 3:5] * np.repeat(self.sizes[:, ::-1], counts, axis=0).astype(np.float32)

    def summary(self) -> str:
        """One line for the log."""
        parts = [counted(len(self), "image"), counted(len(self.rows), "object"), f"{self.unlabelled} without labels"]
        kinds = Counter(
            "bad label row" if problem.line else "unreadable file" if problem.whole_file else "annotation"
            for problem in self.problems
        )
        order = ("unreadable file", "annotation", "bad label row")
        parts += [f"{counted(kinds[kind], kind)} left out" for kind in order if kinds[kind]]
        if self.duplicates:
            parts.append(f"{counted(self.duplicates, 'repeated row')} dropped")
        return ", ".join(parts)

"""What is told of objects that are followed: their trails on images, MOTChallenge's files, and counts over time."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.inference.counting import BoundaryCounts, CountLine, Crossing, Direction, Moment, Point
from utils.inference.tracking import TrackedFrame
from utils.reporting.box_drawing import DARK, WHITE, class_color, drawable, font_of, text_size
from utils.reporting.output_names import OutputNames, PartFiles
from utils.runtime.atomic_files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOGGER = logging.getLogger(__name__)

CROSSING_COLUMNS = ("video", "frame", "seconds", "boundary", "id", "class", "direction")
COUNT_COLUMNS = ("video", "boundary", "class", "in", "out")
DIRECTIONS: tuple[Direction, Direction] = ("in", "out")
DASHES = {"in": "-", "out": "--"}
ARROW = 0.04  # of the image's longest side, which way is in
MOST_PANELS = 40  # of a plot, which is then 14 400 pixels high
SUBPIXEL = 3  # bits behind the point that OpenCV draws with


def draw_tracks(image: np.ndarray, tracked: TrackedFrame) -> np.ndarray:
    """A copy of ``image`` (H, W, 3) uint8 RGB with lines and zones, their counts, and where objects came from."""
    canvas = image.copy()
    width = max(1, round(max(image.shape[:2]) / 640))
    for boundary, _ in tracked.counts:
        _draw_way(canvas, boundary.points, WHITE, 2 * width, closed=not isinstance(boundary, CountLine))
        if isinstance(boundary, CountLine):
            _draw_arrow(canvas, boundary.points, width)
    for trail in tracked.trails:
        _draw_way(canvas, trail.points, class_color(trail.kind), width)
    if not tracked.counts:
        return canvas
    page = Image.fromarray(canvas)
    pen = ImageDraw.Draw(page)
    for counts in tracked.counts:
        _draw_counts(pen, counts, image.shape[1], image.shape[0])
    return np.array(page)


def _draw_way(
    canvas: np.ndarray, points: Sequence[Point], color: tuple[int, int, int], width: int, *, closed: bool = False
) -> None:
    corners = [(np.array(points) * 2**SUBPIXEL).round().astype(np.int32)]
    for stroke, thickness in ((DARK, width + 2), (color, width)):
        cv2.polylines(canvas, corners, closed, stroke, thickness, cv2.LINE_AA, SUBPIXEL)


def _draw_arrow(canvas: np.ndarray, points: tuple[Point, Point], width: int) -> None:
    """From the middle of a line to its right, where in is."""
    first, second = np.array(points)
    middle, along = (first + second) / 2, (second - first) / np.linalg.norm(second - first)
    tip = middle + ARROW * max(canvas.shape[:2]) * np.array((-along[1], along[0]))
    ends = [tuple(map(round, place.tolist())) for place in (middle, tip)]
    for stroke, thickness in ((DARK, 2 * width + 2), (WHITE, 2 * width)):
        cv2.arrowedLine(canvas, ends[0], ends[1], stroke, thickness, cv2.LINE_AA, tipLength=0.4)


def _draw_counts(pen: ImageDraw.ImageDraw, counts: BoundaryCounts, width: int, height: int) -> None:
    """At the first point of the line or zone, as far as there is room."""
    text = drawable(f"{counts.boundary.name}: in {counts.total('in')}, out {counts.total('out')}")
    size = text_size(max(width, height))
    font = font_of(size)
    x, y = counts.boundary.points[0]
    left = max(0, min(round(x), width - round(font.getlength(text)) - 4))
    top = max(0, min(round(y), height - size - 4))
    pen.rectangle((left, top, left + font.getlength(text) + 4, top + size + 4), fill=DARK)
    pen.text((left + 2, top + size / 2 + 2), text, fill=WHITE, font=font, anchor="lm")


class MotFiles:
    """``mot/NAME.txt`` of each video: rows ``frame,id,left,top,width,height,score,class,-1,-1``.

    Frames, ids and classes count from 1, pixels from the image's corner. A video that is begun anew, as a list may name
    it twice, goes on in a further file, as its frames and ids repeat.
    """

    def __init__(self, folder: Path, names: OutputNames) -> None:
        self._folder = folder
        self._names = names
        self._files = PartFiles(folder, ".txt")
        self._open: dict[Path, tuple[Path, int]] = {}  # of each video its file and the last frame there

    def write(self, tracked: TrackedFrame) -> None:
        """Append a frame; a file for a video in which nothing is found, too."""
        self._folder.mkdir(exist_ok=True)
        found = tracked.detections
        assert found.ids is not None
        rows = zip(found.ids.tolist(), found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        with self._file(tracked).open("a", encoding="utf-8") as file:
            for number, kind, score, (x1, y1, x2, y2) in rows:
                box = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
                file.write(f"{tracked.moment.number + 1},{number},{box},{score:.4f},{kind + 1},-1,-1\n")

    def _file(self, tracked: TrackedFrame) -> Path:
        number = tracked.moment.number
        path, last = self._open.get(tracked.video, (None, -1))
        if path is None or number <= last:
            path = self._files.free(self._names.stem(tracked.video, video=True))
        self._open[tracked.video] = path, number
        return path


class CountFiles:
    """``crossings.csv`` as they happen; at the end ``counts.csv`` with their sums, and a plot of each video."""

    def __init__(self, folder: Path, names: OutputNames) -> None:
        self._folder = folder
        self._names = names
        self._file: TextIO = (folder / "crossings.csv").open(
            "w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1
        )
        self._rows = csv.writer(self._file)
        self._rows.writerow(CROSSING_COLUMNS)
        self._classes: Sequence[str] = ()
        self._boundaries: tuple[str, ...] = ()
        self._crossings: dict[Path, list[Crossing]] = {}
        self._ends: dict[Path, Moment] = {}

    def write(self, tracked: TrackedFrame, classes: Sequence[str]) -> None:
        """Take the crossings of one frame; ``classes`` are called so."""
        self._classes = classes
        self._boundaries = tuple(boundary.name for boundary, _ in tracked.counts)
        self._ends[tracked.video] = tracked.moment
        self._crossings.setdefault(tracked.video, []).extend(tracked.crossings)
        for crossing in tracked.crossings:
            number, seconds = crossing.moment
            when = (number, "" if seconds is None else f"{seconds:.3f}")
            what = (crossing.boundary, crossing.id, classes[crossing.kind], crossing.direction)
            self._rows.writerow((self._names.title(tracked.video), *when, *what))

    def close(self) -> None:
        """Write the sums and plots."""
        self._file.close()
        with (self._folder / "counts.csv").open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(COUNT_COLUMNS)
            for video, crossings in self._crossings.items():
                rows.writerows((self._names.title(video), *row) for row in self._sums(crossings))
        for video, crossings in self._crossings.items():
            path = self._folder / f"{self._names.stem(video, video=True)}_counts.png"
            self._plot(path, crossings, self._ends[video])

    def _sums(self, crossings: Sequence[Crossing]) -> list[tuple[str, str, int, int]]:
        """Rows of boundary, class, in, out; a boundary that nobody has crossed has one without a class."""
        rows: list[tuple[str, str, int, int]] = []
        for boundary in self._boundaries:
            counts = Counter((one.kind, one.direction) for one in crossings if one.boundary == boundary)
            kinds = sorted({kind for kind, _ in counts})
            rows += [(boundary, self._classes[kind], counts[kind, "in"], counts[kind, "out"]) for kind in kinds]
            rows += [] if kinds else [(boundary, "", 0, 0)]
        return rows

    def _plot(self, path: Path, crossings: Sequence[Crossing], end: Moment) -> None:
        """A panel for each boundary, of many those crossed most: counts of each class and direction over time."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        shown = self._shown(path, crossings)
        figure = Figure(figsize=(8, 3 * len(shown)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(shown), squeeze=False, sharex=True)[:, 0]
        for panel, boundary in zip(panels, shown, strict=True):
            _plot_counts(panel, [one for one in crossings if one.boundary == boundary], self._classes, end)
            panel.set_title(drawable(boundary), fontsize=10, parse_math=False)
        panels[-1].set_xlabel("frame" if end.seconds is None else "seconds")
        with atomic_file(path) as file:
            figure.savefig(file, dpi=120, format="png")

    def _shown(self, path: Path, crossings: Sequence[Crossing]) -> list[str]:
        """The boundaries that a plot has room for, in their order."""
        often = Counter(one.boundary for one in crossings)
        ranked = sorted(self._boundaries, key=lambda boundary: -often[boundary])
        if len(ranked) > MOST_PANELS:
            LOGGER.warning("%s: has the %d lines and zones crossed most; counts.csv has all", path, MOST_PANELS)
        shown = set(ranked[:MOST_PANELS])
        return [boundary for boundary in self._boundaries if boundary in shown]


def _plot_counts(panel: Axes, crossings: Sequence[Crossing], classes: Sequence[str], end: Moment) -> None:
    """Steps of each class, in and out, up to the end of the video."""
    from matplotlib.ticker import MaxNLocator

    for kind in sorted({one.kind for one in crossings}):
        for direction in DIRECTIONS:
            own = [one.moment for one in crossings if (one.kind, one.direction) == (kind, direction)]
            if not own:
                continue
            times = sorted(_time(moment) for moment in own)
            steps = list(accumulate([1] * len(own), initial=0))
            color = tuple(part / 255 for part in class_color(kind))
            panel.step(
                [0, *times, _time(end)],
                [*steps, steps[-1]],
                where="post",
                color=color,
                linestyle=DASHES[direction],
                label=f"{drawable(classes[kind])} {direction}".replace("$", r"\$"),  # no formula
            )
    panel.set_ylabel("objects")
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set(xlim=(0, max(_time(end), 1e-3)), ylim=(0, None))
    panel.grid(alpha=0.3)
    if crossings:
        panel.legend(loc="upper left", fontsize=8)


def _time(moment: Moment) -> float:
    return moment.number if moment.seconds is None else moment.seconds


def count_lines(counts: Sequence[BoundaryCounts], classes: Sequence[str]) -> list[str]:
    """``line 1: in 3 (2 car, 1 bus), out 0`` of each line and zone."""
    return [f"{one.boundary.name}: " + ", ".join(_total(one, way, classes) for way in DIRECTIONS) for one in counts]


def _total(counts: BoundaryCounts, direction: Direction, classes: Sequence[str]) -> str:
    own = sorted((-count, classes[kind]) for (kind, way), count in counts.of.items() if way == direction)
    parts = f" ({', '.join(f'{-count} {name}' for count, name in own)})" if own else ""
    return f"{direction} {counts.total(direction)}{parts}"

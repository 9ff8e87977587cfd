"""Boxes, names and a legend on images, readable where objects are small and many."""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.geometry.boxes import box_area, intersection
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections, Labels
from utils.reporting.tag_placing import TagPlacer

# Okabe and Ito, "Color Universal Design" (2008), without black: told apart with every common kind of colour vision.
# Bright hues first, as vegetation, asphalt and water are dull.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
DARK, WHITE = (20, 20, 20), (255, 255, 255)
SMALLEST_FONT, LARGEST_FONT = 9, 28  # pixels
TAGGED = 2.0  # an object has a tag if it is at least so many times as large
STRIP_FONT = 14  # pixels at most, of a legend below images
LEGEND_SHARE = 0.25  # of the image at most
LEGEND_STEPS = 9  # places along each edge of the image
GROUND = 0.65  # how far the image behind the legend is darkened


class Stroke(NamedTuple):
    """How a box is drawn."""

    color: tuple[int, int, int]
    dashes: tuple[int, int] | None = None  # lengths of line and gap, in line widths; None: an unbroken line


DASHES = (None, (5, 3), (2, 2))  # unbroken, dashed, dotted


class LegendEntry(NamedTuple):
    """One row of a legend."""

    stroke: Stroke | None  # None: a row of text alone
    name: str
    boxes: int | None = None  # how many there are

    @property
    def text(self) -> str:
        return drawable(self.name if self.boxes is None else f"{self.name} {self.boxes}")


@dataclass(frozen=True, slots=True)
class DrawingStyle:
    """What is drawn beside the boxes."""

    line_width: int | None = None  # pixels; by default from the sizes of image and box
    tags: str = "auto"  # where they hide nothing, with a legend of the rest; "all": at every box; "none": boxes alone
    scores: bool = True  # in tags
    steady: bool = False  # the legend in one corner whatever lies there, as the next frame's; else where it hides least


DEFAULT_STYLE = DrawingStyle()


@dataclass(frozen=True, slots=True)
class MarkedBoxes:
    """Boxes to draw, the first on top, and what each is called."""

    boxes: np.ndarray  # (N, 4) xyxy, pixels of the image
    kinds: Sequence[int]  # N keys of ``strokes`` and ``names``
    captions: Sequence[str]  # N texts of tags
    strokes: Mapping[int, Stroke]
    names: Mapping[int, str] | Sequence[str]  # in the legend
    whole_legend: bool = False  # of all ``strokes``, not only of kinds without a tag


def class_color(index: int) -> tuple[int, int, int]:
    """RGB colour of a class; colours repeat after seven classes."""
    return PALETTE[index % len(PALETTE)]


def class_strokes(classes: Iterable[int]) -> dict[int, Stroke]:
    """Strokes of the classes in an image: in those that share a colour the second is dashed, further ones dotted."""
    strokes: dict[int, Stroke] = {}
    for kind in sorted(set(classes)):
        color = class_color(kind)
        same = sum(stroke.color == color for stroke in strokes.values())
        strokes[kind] = Stroke(color, DASHES[min(same, len(DASHES) - 1)])
    return strokes


def marked_detections(detections: Detections, names: Sequence[str], *, scores: bool = True) -> MarkedBoxes:
    """Detections in the strokes of their classes, each called by name, id if it has one, and score."""
    kinds = detections.classes.tolist()
    captions = [names[kind] for kind in kinds]
    if detections.ids is not None:
        captions = [f"{text} #{number}" for text, number in zip(captions, detections.ids.tolist(), strict=True)]
    if scores:
        captions = [f"{text} {score:.2f}" for text, score in zip(captions, detections.scores.tolist(), strict=True)]
    return MarkedBoxes(detections.boxes.cpu().numpy(), kinds, captions, class_strokes(kinds), names)


def marked_labels(labels: Labels, names: Sequence[str]) -> MarkedBoxes:
    """Labels in the strokes of their classes, each called by name."""
    kinds = labels.classes.tolist()
    return MarkedBoxes(labels.boxes, kinds, [names[kind] for kind in kinds], class_strokes(kinds), names)


def draw_detections(
    image: np.ndarray, detections: Detections, names: Sequence[str], style: DrawingStyle = DEFAULT_STYLE
) -> np.ndarray:
    """A copy of ``image`` (H, W, 3) uint8 RGB with detections, whose boxes are in its pixels."""
    return draw_boxes(image, marked_detections(detections, names, scores=style.scores), style)


def draw_labels(
    image: np.ndarray, labels: Labels, names: Sequence[str], style: DrawingStyle = DEFAULT_STYLE
) -> np.ndarray:
    """A copy of ``image`` (H, W, 3) uint8 RGB with ground truth, whose boxes are in its pixels."""
    return draw_boxes(image, marked_labels(labels, names), style)


def draw_boxes(image: np.ndarray, marks: MarkedBoxes, style: DrawingStyle) -> np.ndarray:
    """A copy of the image with boxes, tags, and a legend of the kinds of which a box has no tag."""
    drawing = BoxDrawing(FrameSize(*image.shape[:2]), marks, style)
    return drawing.on(image, legend_entries([drawing]))


class BoxDrawing:
    """Boxes laid out for an image: which have a tag, and where it stands; nothing is drawn yet."""

    def __init__(self, size: FrameSize, marks: MarkedBoxes, style: DrawingStyle) -> None:
        self.size, self.marks, self.style = size, marks, style
        self.font_size = text_size(max(size))
        self.frames = [_framed(box, max(size), style) for box in marks.boxes.tolist()]
        self.tags: dict[int, tuple[int, int, int, int]] = {}  # box -> left top right bottom
        if style.tags != "none":
            self._place_tags()

    @property
    def in_legend(self) -> set[int]:
        """Kinds of which a box has no tag, or all; none where boxes are bare or all of them have a tag."""
        if self.marks.whole_legend:
            return set(self.marks.strokes)
        if self.style.tags != "auto":
            return set()
        return {kind for place, kind in enumerate(self.marks.kinds) if place not in self.tags}

    def on(self, image: np.ndarray, legend: Sequence[LegendEntry] = ()) -> np.ndarray:
        """A copy of the image with what was laid out."""
        placed = None
        if legend:
            obstacles = np.array([*self.marks.boxes, *self.tags.values()], dtype=np.float64).reshape(-1, 4)
            placed = _Legend.placed(legend, self.size, self.font_size, obstacles, steady=self.style.steady)
            if placed is not None:
                image = placed.darkened(image)
        canvas = Image.fromarray(image)
        pen = ImageDraw.Draw(canvas)
        for (box, line), kind in reversed(list(zip(self.frames, self.marks.kinds, strict=True))):
            draw_frame(pen, box, line, self.marks.strokes[kind])
        font = font_of(self.font_size)
        for place, (left, top, right, bottom) in self.tags.items():
            color = self.marks.strokes[self.marks.kinds[place]].color
            pen.rectangle((left, top, right - 1, bottom - 1), fill=color)
            middle = (left + 2, (top + bottom) / 2)
            pen.text(middle, drawable(self.marks.captions[place]), fill=_text_color(color), font=font, anchor="lm")
        if placed is not None:
            placed.write(pen)
        return np.array(canvas)

    def _place_tags(self) -> None:
        font, tag_height = font_of(self.font_size), self.font_size + 4
        placer = TagPlacer(self.marks.boxes, self.size)
        areas = box_area(self.marks.boxes.reshape(-1, 4))
        for place, ((box, line), caption) in enumerate(zip(self.frames, self.marks.captions, strict=True)):
            tag_width = math.ceil(font.getlength(drawable(caption))) + 4
            if self.style.tags == "auto" and areas[place] < TAGGED * tag_width * tag_height:
                continue
            x1, y1, x2, y2 = box
            around = (x1 - line, y1 - line, x2 + line, y2 + line)
            find = placer.clear_spot if self.style.tags == "auto" else placer.best_spot
            spot = find(around, tag_width, tag_height)
            if spot is not None:
                self.tags[place] = spot


def legend_entries(drawings: Sequence[BoxDrawing]) -> list[LegendEntry]:
    """Each kind that the legend of these drawings names, once, with its number of boxes in all of them.

    The drawings have the same strokes and names.
    """
    wanted = sorted(set().union(*(drawing.in_legend for drawing in drawings)))
    counts = Counter(kind for drawing in drawings for kind in drawing.marks.kinds)
    marks = drawings[0].marks
    return [LegendEntry(marks.strokes[kind], marks.names[kind], counts[kind]) for kind in wanted]


def text_size(longest_side: int) -> int:
    """Height of all letters on an image, pixels."""
    return min(max(round(longest_side / 55), SMALLEST_FONT), LARGEST_FONT)


def _framed(box: Sequence[float], longest_side: int, style: DrawingStyle) -> tuple[tuple[int, int, int, int], int]:
    """The box in whole pixels, and its line width: thicker on large images, thinner on small objects."""
    x1, y1, x2, y2 = map(round, box)
    shorter = min(box[2] - box[0], box[3] - box[1])
    line = max(1, min(round(longest_side / 320), round(shorter / 12))) if style.line_width is None else style.line_width
    return (x1, y1, max(x2, x1), max(y2, y1)), line


def draw_frame(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], line: int, stroke: Stroke) -> None:
    """A line around a box: of a 10 px object nothing is covered. A dark seam parts it from light ground."""
    x1, y1, x2, y2 = box
    for grow, color, width in ((line + 1, DARK, line + 1), (line, stroke.color, line)):
        pen.rectangle((x1 - grow, y1 - grow, x2 + grow - 1, y2 + grow - 1), outline=color, width=width)
    if stroke.dashes is None:
        return
    on, off = (line * length for length in stroke.dashes)
    left, top, right, bottom = x1 - line, y1 - line, x2 + line, y2 + line  # right and bottom are outside
    for x in range(left + on, right - on // 2, on + off):
        for y in (top, y2):
            pen.rectangle((x, y, min(x + off, right) - 1, y + line - 1), fill=DARK)
    for y in range(top + on, bottom - on // 2, on + off):
        for x in (left, x2):
            pen.rectangle((x, y, x + line - 1, min(y + off, bottom) - 1), fill=DARK)


@dataclass(frozen=True, slots=True)
class _Legend:
    """A legend with its place: entries in columns, from top to bottom."""

    entries: Sequence[LegendEntry]
    rows: int
    column: int  # width, pixels
    font_size: int
    left: int = 0
    top: int = 0

    @property
    def width(self) -> int:
        return self.column * math.ceil(len(self.entries) / self.rows)

    @property
    def height(self) -> int:
        return self.rows * _row_height(self.font_size) + 4

    @classmethod
    def placed(
        cls, entries: Sequence[LegendEntry], size: FrameSize, font_size: int, obstacles: np.ndarray, *, steady: bool
    ) -> _Legend | None:
        """Along an edge where it hides least of what is there; None in an image too small for one entry.

        Where not all entries fit, those of the fewest boxes are left out.
        """
        shapes: list[_Legend] = []
        kept = len(entries)
        while kept and not shapes:
            shown = _most_frequent(entries, kept)
            column = _column_width(shown, font_size)
            numbers = sorted({math.ceil(len(shown) / columns) for columns in range(1, len(shown) + 1)}, reverse=True)
            shapes = [shape for rows in numbers if (shape := cls(shown, rows, column, font_size)).fits(size)]
            kept -= 1
        if steady or not shapes:
            return shapes[0] if shapes else None
        places = [(shape, *place) for shape in shapes for place in shape.edge_places(size)]
        corners = np.array([(x, y, x + shape.width, y + shape.height) for shape, x, y in places], dtype=np.float64)
        hidden = (intersection(corners[:, None], obstacles[None]) / np.maximum(box_area(obstacles), 1e-9)).sum(axis=1)
        shape, left, top = places[int(hidden.argmin())]
        return replace(shape, left=left, top=top)

    def fits(self, size: FrameSize) -> bool:
        inside = self.width <= size.width and self.height <= size.height
        return inside and self.width * self.height <= LEGEND_SHARE * size.width * size.height

    def edge_places(self, size: FrameSize) -> list[tuple[int, int]]:
        """Left and top: the corners first, then along the edges."""
        right, bottom = size.width - self.width, size.height - self.height
        steps = np.linspace(0, 1, LEGEND_STEPS)
        along = [(round(right * part), y) for y in (0, bottom) for part in steps]
        along += [(x, round(bottom * part)) for x in (0, right) for part in steps]
        corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
        return corners + along

    def darkened(self, image: np.ndarray) -> np.ndarray:
        """A copy of the image with the ground of the legend: what lies there stays visible."""
        image = image.copy()
        ground = image[self.top : self.top + self.height, self.left : self.left + self.width]
        ground[:] = (ground * (1 - GROUND) + np.array(DARK) * GROUND).astype(np.uint8)
        return image

    def write(self, pen: ImageDraw.ImageDraw) -> None:
        font, row_height = font_of(self.font_size), _row_height(self.font_size)
        line = max(2, self.font_size // 5)
        for place, entry in enumerate(self.entries):
            left = self.left + place // self.rows * self.column + 6
            middle = self.top + 2 + place % self.rows * row_height + row_height // 2
            if entry.stroke:
                half = self.font_size // 2 - line
                box = (left + line, middle - half, left + 2 * self.font_size - line, middle + half)
                draw_frame(pen, box, line, entry.stroke)
            pen.text((left + 2 * self.font_size + 6, middle), entry.text, fill=WHITE, font=font, anchor="lm")


def legend_strip(entries: Sequence[LegendEntry], width: int) -> np.ndarray:
    """A legend of its own (H, width, 3) uint8 RGB, to stand below images; without entries H is 0."""
    font_size = min(text_size(width), STRIP_FONT)
    column = _column_width(entries, font_size)
    rows = math.ceil(len(entries) / max(width // max(column, 1), 1))
    legend = _Legend(entries, max(rows, 1), column, font_size)
    canvas = Image.new("RGB", (width, legend.height if entries else 0), DARK)
    if entries:
        legend.write(ImageDraw.Draw(canvas))
    return np.array(canvas).reshape(canvas.height, width, 3)


def _most_frequent(entries: Sequence[LegendEntry], count: int) -> list[LegendEntry]:
    """So many of the entries, in their order, and how many are left out."""
    if count == len(entries):
        return list(entries)
    kept = sorted(sorted(range(len(entries)), key=lambda place: -(entries[place].boxes or 0))[:count])
    return [*(entries[place] for place in kept), LegendEntry(None, f"+ {len(entries) - count} more")]


def _row_height(font_size: int) -> int:
    return font_size + 6


def _column_width(entries: Sequence[LegendEntry], font_size: int) -> int:
    font = font_of(font_size)
    return max((math.ceil(font.getlength(entry.text)) for entry in entries), default=0) + 2 * font_size + 18


def drawable(text: str) -> str:
    """The text without line breaks, control characters and broken encodings, which no font has."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _text_color(ground: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = ground
    return DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else WHITE


@lru_cache(maxsize=LARGEST_FONT)
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has Latin, Greek and Cyrillic letters."""
    found = importlib.util.find_spec("matplotlib")  # finds the package without the time of importing it
    assert found is not None and found.origin is not None, "matplotlib is a requirement"
    return ImageFont.truetype(str(Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"), size)

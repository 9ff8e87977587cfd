"""Counting objects that are followed through a video: who crosses a line, who enters and leaves a zone.

An object is where the centre of its box is, and goes straight from one frame to the next: one that is lost before a
line and found again behind it has crossed it. A crossing counts when the object is farther from the line than ``NEAR``
of its own size; one that turns back before has not crossed. So a box that trembles on a line counts once or not at
all.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from utils.geometry.letterbox import FrameSize
from utils.user_error import UsageError, UserError

NEAR = 0.1  # part of an object's size, the root of its box's area ...
LEAST_NEAR = 2.0  # ... but at least so many pixels
TRAIL = 30  # positions of each object that are kept
ZONE_FORM = '[{"name": "gate", "polygon": [[x, y], [x, y], [x, y]]}, ...]'

Direction = Literal["in", "out"]


class Point(NamedTuple):
    """A place in an image, pixels."""

    x: float
    y: float

    def __str__(self) -> str:
        return f"{self.x:g},{self.y:g}"


class Moment(NamedTuple):
    """When something was seen."""

    number: int  # of the frame in its video, from 0
    seconds: float | None  # since the video's start; None where nobody knows its rate


@dataclass(frozen=True, slots=True)
class CountLine:
    """A line between two points; in is from left to right for somebody who looks from the first to the second."""

    name: str
    points: tuple[Point, Point]
    flag: str  # as the user gave it

    @classmethod
    def parse(cls, text: str, name: str) -> CountLine:
        """``x1,y1,x2,y2``, pixels.

        Raises:
            UsageError: any other form, or two equal points.
        """
        given = f"--count-line {text}"
        try:
            x1, y1, x2, y2 = map(float, text.split(","))
        except ValueError:
            raise UsageError(f"{given}: not of the form x1,y1,x2,y2") from None
        if not all(map(math.isfinite, (x1, y1, x2, y2))):
            raise UsageError(f"{given}: not of the form x1,y1,x2,y2")
        if (x1, y1) == (x2, y2):
            raise UsageError(f"{given}: both ends are the same point")
        return cls(name, (Point(x1, y1), Point(x2, y2)), given)

    def crossing(self, start: Point, end: Point) -> int:
        """1 where the straight way between two points comes in, -1 where it goes out, 0 where it meets no line.

        A point on the line counts to its left side, so that a way in two steps crosses as often as the same in one.
        """
        first, second = self.points
        before, after = _turn(first, second, start) > 0, _turn(first, second, end) > 0
        sides = _turn(start, end, first), _turn(start, end, second)
        if before == after or min(sides) > 0 or max(sides) < 0:
            return 0
        return 1 if after else -1

    def distance(self, point: Point) -> float:
        """From the line between its ends, pixels."""
        (x1, y1), (x2, y2) = self.points
        width, height = x2 - x1, y2 - y1
        along = ((point.x - x1) * width + (point.y - y1) * height) / (width**2 + height**2)
        part = min(max(along, 0.0), 1.0)
        return math.hypot(point.x - x1 - part * width, point.y - y1 - part * height)


@dataclass(frozen=True, slots=True)
class CountZone:
    """A polygon, closed by itself; where its sides cross each other, what an odd number of them surrounds is inside."""

    name: str
    points: tuple[Point, ...]
    flag: str  # as the user gave it

    def crossing(self, start: Point, end: Point) -> int:
        """1 where somebody outside gets inside, -1 where somebody inside gets outside, otherwise 0."""
        return int(self._depth(end) > 0) - int(self._depth(start) > 0)

    def distance(self, point: Point) -> float:
        """From the polygon's sides, pixels."""
        return abs(self._depth(point))

    def _depth(self, point: Point) -> float:
        """Distance from the sides, negative outside, 0 on them."""
        return cv2.pointPolygonTest(np.array(self.points, dtype=np.float32), point, True)


Boundary = CountLine | CountZone


def _turn(start: Point, end: Point, point: Point) -> float:
    """Above 0 where the point is to the right of one who looks from start to end, y pointing down; 0 on that line."""
    return (end.x - start.x) * (point.y - start.y) - (end.y - start.y) * (point.x - start.x)


def read_boundaries(lines: Sequence[str], zone_file: str | None) -> tuple[Boundary, ...]:
    """The lines, called ``line 1``, ``line 2``, ..., and the zones of a file.

    Raises:
        UserError: a value or the file is not of its form.
    """
    parsed = [CountLine.parse(text, f"line {number}") for number, text in enumerate(lines, start=1)]
    zones = [] if zone_file is None else read_zones(Path(zone_file))
    for zone in zones:
        if zone.name in [line.name for line in parsed]:
            raise UserError(f"{zone.flag}: a line of --count-line has this name")
    return (*parsed, *zones)


def read_zones(path: Path) -> list[CountZone]:
    """The zones of a JSON file of the form ``ZONE_FORM``.

    Raises:
        UserError: it cannot be read, is of another form, or holds a polygon without an area; or a name repeats.
    """
    given = f"--count-zone {path}"
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{given}: cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{given}, line {error.lineno}: no JSON: {error.msg}") from None
    except (ValueError, RecursionError):  # no text, a number of thousands of digits, thousands of brackets
        raise UserError(f"{given}: no JSON") from None
    if not isinstance(content, list) or not content:
        raise UserError(f"{given}: no list of zones {ZONE_FORM}")
    zones = [_zone(entry, f"{given}: zone {number}") for number, entry in enumerate(content, start=1)]
    name, count = Counter(zone.name for zone in zones).most_common(1)[0]
    if count > 1:
        raise UserError(f"{given}: {name!r} is the name of {count} zones")
    return zones


def _zone(entry: object, given: str) -> CountZone:
    if not isinstance(entry, dict) or set(entry) != {"name", "polygon"}:
        raise UserError(f'{given}: not of the form {{"name": ..., "polygon": [[x, y], ...]}}')
    name, polygon = entry["name"], entry["polygon"]
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{given}: name {name!r}: no text")
    given = f"{given} ({name})"
    if not isinstance(polygon, list) or len(polygon) < 3:
        raise UserError(f"{given}: a polygon takes a list of at least 3 points [x, y]")
    points = [_point(corner, given) for corner in polygon]
    if all(_turn(points[0], one, other) == 0 for one in points for other in points):
        raise UserError(f"{given}: all points lie on one line")
    return CountZone(name, tuple(points), given)


def _point(corner: object, given: str) -> Point:
    if isinstance(corner, list) and len(corner) == 2:
        numbers = [one for one in corner if isinstance(one, int | float) and not isinstance(one, bool)]
        if len(numbers) == 2 and all(abs(one) < math.inf for one in numbers):
            with contextlib.suppress(OverflowError):
                return Point(float(numbers[0]), float(numbers[1]))
    raise UserError(f"{given}: {json.dumps(corner)}: no point [x, y]")


def check_inside(boundaries: Sequence[Boundary], size: FrameSize, title: str) -> None:
    """UserError where a line or a zone reaches out of the images of ``title``: it was meant for others."""
    for boundary in boundaries:
        for point in boundary.points:
            if not (0 <= point.x <= size.width and 0 <= point.y <= size.height):
                image = f"{title}, which is {size.width} x {size.height} pixels"
                raise UserError(f"{boundary.flag}: the point {point} lies outside of {image}")


@dataclass(frozen=True, slots=True)
class Crossing:
    """One object has crossed a line, or the border of a zone."""

    boundary: str  # its name
    direction: Direction
    id: int  # of the object in its video
    kind: int  # its class
    moment: Moment  # when its centre was seen on the other side


class _Begun(NamedTuple):
    """A boundary crossed by an object that is still near it."""

    steps: int  # crossings in less crossings out
    moment: Moment  # of the last of them


@dataclass(slots=True)
class Walk:
    """Where one object has been, and what it is."""

    points: deque[Point] = field(default_factory=lambda: deque(maxlen=TRAIL))
    # By class, the sum of the scores that it was found with.
    scores: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    begun: dict[str, _Begun] = field(default_factory=dict)  # boundary -> ...

    @property
    def kind(self) -> int:
        """The class that it was found as most surely and often until now."""
        return max(self.scores, key=self.scores.__getitem__)


class BoundaryCounts(NamedTuple):
    """How many have crossed a boundary until now."""

    boundary: Boundary
    of: Counter[tuple[int, Direction]]  # by class and direction

    def total(self, direction: Direction) -> int:
        return sum(count for (_, way), count in self.of.items() if way == direction)


class VideoCounter:
    """The counts of one video."""

    def __init__(self, boundaries: Sequence[Boundary]) -> None:
        self.counts = tuple(BoundaryCounts(boundary, Counter()) for boundary in boundaries)

    def step(self, walk: Walk, number: int, box: tuple[float, float, float, float], moment: Moment) -> list[Crossing]:
        """Take object ``number`` to where its box x1 y1 x2 y2 is now; the crossings that count from now on."""
        x1, y1, x2, y2 = box
        place = Point((x1 + x2) / 2, (y1 + y2) / 2)
        reach = max(LEAST_NEAR, NEAR * math.sqrt((x2 - x1) * (y2 - y1)))
        found: list[Crossing] = []
        for boundary, counted in self.counts:
            direction = _crossed(walk, boundary, place, reach, moment)
            if direction is not None:
                name, when = boundary.name, walk.begun.pop(boundary.name).moment
                found.append(Crossing(name, direction, number, walk.kind, when))
                counted[walk.kind, direction] += 1
        walk.points.append(place)
        return found


def _crossed(walk: Walk, boundary: Boundary, place: Point, reach: float, moment: Moment) -> Direction | None:
    """Whether an object that goes to ``place`` has left the boundary behind, and on which side."""
    step = boundary.crossing(walk.points[-1], place) if walk.points else 0
    begun = walk.begun.get(boundary.name)
    if step:
        begun = walk.begun[boundary.name] = _Begun(step + (begun.steps if begun else 0), moment)
    if begun is None or boundary.distance(place) <= reach:
        return None
    if not begun.steps:
        del walk.begun[boundary.name]
        return None
    return "in" if begun.steps > 0 else "out"

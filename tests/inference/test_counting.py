"""Lines and zones: what crosses them, by hand and for any way, what counts, and what the flags take."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.geometry.letterbox import FrameSize
from utils.inference.counting import (
    CountLine,
    CountZone,
    Crossing,
    Moment,
    Point,
    VideoCounter,
    Walk,
    check_inside,
    read_boundaries,
    read_zones,
)
from utils.user_error import UsageError, UserError

LINE = CountLine.parse("0,10,20,10", "line 1")  # from left to right: its right is below, where y is above 10
SQUARE = CountZone("square", (Point(10, 10), Point(30, 10), Point(30, 30), Point(10, 30)), "")
places = st.builds(Point, st.integers(-40, 40).map(float), st.integers(-40, 40).map(float))


@pytest.mark.parametrize(
    ("start", "end", "crossed"),
    [
        ((5, 5), (5, 15), 1),
        ((5, 15), (5, 5), -1),
        ((5, 5), (6, 9), 0),
        ((25, 5), (25, 15), 0),  # past its end
        ((19, 5), (23, 15), 0),  # meets y = 10 at x = 21
        ((19, 5), (21, 15), 1),  # at x = 20, its end
        ((5, 5), (5, 10), 0),  # as far as the line, which is on its left side
        ((5, 10), (5, 15), 1),
        ((5, 10), (9, 10), 0),  # along it
    ],
)
def test_a_line_is_crossed_between_its_ends(start: tuple[float, float], end: tuple[float, float], crossed: int) -> None:
    assert LINE.crossing(Point(*start), Point(*end)) == crossed


def meeting(line: CountLine, start: Point, end: Point) -> Fraction | None:
    """Where along the line, 0 to 1 between its ends, the way from start to end meets it; exact, by Cramer's rule."""
    (ax, ay), (bx, by) = ((Fraction(x), Fraction(y)) for x, y in line.points)
    dx, dy, ex, ey = bx - ax, by - ay, Fraction(end.x) - Fraction(start.x), Fraction(end.y) - Fraction(start.y)
    determinant = ex * dy - ey * dx
    if not determinant:
        return None
    px, py = Fraction(start.x) - ax, Fraction(start.y) - ay
    way = (dx * py - dy * px) / determinant
    return (ex * py - ey * px) / determinant if 0 <= way <= 1 else None


@given(places, places, places, places)
def test_any_way_crosses_a_line_where_the_two_meet(first: Point, second: Point, start: Point, end: Point) -> None:
    if first == second:
        return
    line = CountLine("", (first, second), "")
    along = meeting(line, start, end)
    if line.crossing(start, end):
        assert along is not None
        assert 0 <= along <= 1
    elif along is not None and 0 < along < 1:
        on_it = [(second.x - first.x) * (p.y - first.y) == (second.y - first.y) * (p.x - first.x) for p in (start, end)]
        assert any(on_it)  # only a way that ends on the line meets it without crossing


@given(places, places, places, places)
def test_a_way_in_two_steps_crosses_as_often_as_in_one(first: Point, second: Point, start: Point, end: Point) -> None:
    if first == second:
        return
    line = CountLine("", (first, second), "")
    half = Point((start.x + end.x) / 2, (start.y + end.y) / 2)
    assert line.crossing(start, half) + line.crossing(half, end) == line.crossing(start, end)


@given(st.lists(places, min_size=1))
def test_who_comes_back_has_entered_a_zone_as_often_as_left_it(way: list[Point]) -> None:
    steps = [SQUARE.crossing(start, end) for start, end in zip(way, [*way[1:], way[0]], strict=True)]
    assert sum(steps) == 0
    inside = [10 < x < 30 and 10 < y < 30 for x, y in way]
    assert steps == [int(after) - int(before) for before, after in zip(inside, [*inside[1:], inside[0]], strict=True)]


def test_distances() -> None:
    assert LINE.distance(Point(5, 14)) == 4
    assert LINE.distance(Point(23, 14)) == 5  # from its end: 3 and 4
    assert LINE.distance(Point(-3, 6)) == 5
    assert SQUARE.distance(Point(20, 12)) == 2
    assert SQUARE.distance(Point(33, 34)) == 5
    assert SQUARE.crossing(Point(0, 20), Point(40, 20)) == 0  # through it in one step


def crossings(heights: list[float], *, size: float = 40, x: float = 10) -> list[tuple[str, int]]:
    """Directions and frames of what counts where a box of so many pixels has its centre at these heights."""
    counter, walk = VideoCounter([LINE]), Walk()
    found: list[Crossing] = []
    for frame, y in enumerate(heights):
        walk.scores[0] += 1
        box = (x - size / 2, y - size / 2, x + size / 2, y + size / 2)
        found += counter.step(walk, 1, box, Moment(frame, None))
    (counts,) = counter.counts
    assert counts.of == Counter((0, crossing.direction) for crossing in found)
    return [(crossing.direction, crossing.moment.number) for crossing in found]


@pytest.mark.parametrize(
    ("heights", "counted"),
    [
        ([0, 9, 11, 20], [("in", 2)]),  # 11 is still near: a tenth of 40 px is 4; the crossing was there
        ([0, 50], [("in", 1)]),
        ([20, 0, 20], [("out", 1), ("in", 2)]),
        ([0, 9, 11, 9, 12, 8, 13, 9, 11, 20], [("in", 8)]),  # trembles, then goes on
        ([0, 11, 9, 12, 8, 0], []),  # trembles and turns back
        ([0, 11, 9, 12], []),  # still near at the end
        ([10, 10, 10], []),  # stands on it
        ([14.5, 9, 5], [("out", 1)]),
    ],
)
def test_what_counts(heights: list[float], counted: list[tuple[str, int]]) -> None:
    assert crossings(heights) == counted


def test_small_boxes_are_near_within_two_pixels() -> None:
    assert crossings([5, 11.9], size=4) == []
    assert crossings([5, 12.1], size=4) == [("in", 1)]


def test_past_the_end_of_a_line_nothing_counts() -> None:
    assert crossings([0, 20, 0], x=30) == []


@given(st.lists(st.floats(-30, 50), max_size=30))
def test_whatever_the_way_directions_alternate_and_their_sum_is_the_side_reached(heights: list[float]) -> None:
    directions = [direction for direction, _ in crossings([-30, *heights, 50])]
    assert directions == ["in", "out"] * (len(directions) // 2) + ["in"]


def test_an_object_that_begins_in_a_zone_only_leaves_it() -> None:
    counter, walk = VideoCounter([SQUARE]), Walk()
    walk.scores[3] = 1
    found = [counter.step(walk, 7, (x - 2, 18, x + 2, 22), Moment(n, n / 10)) for n, x in enumerate((20, 28, 32, 40))]
    assert found == [[], [], [], [Crossing("square", "out", 7, 3, Moment(2, 0.2))]]  # 2 px from its side is still near


def test_an_object_is_what_it_was_taken_for_most() -> None:
    walk = Walk()
    for kind, score in ((2, 0.5), (7, 0.9), (2, 0.6)):
        walk.scores[kind] += score
    assert walk.kind == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2,3", "not of the form x1,y1,x2,y2"),
        ("1,2,3,x", "not of the form x1,y1,x2,y2"),
        ("1,2,3,nan", "not of the form x1,y1,x2,y2"),
        ("5,5,5,5.0", "both ends are the same point"),
    ],
)
def test_a_wrong_line_is_named(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"^--count-line {text}: {said}$"):
        read_boundaries([text], None)


def test_zones_come_from_a_file_beside_numbered_lines(tmp_path: Path) -> None:
    file = tmp_path / "zones.json"
    file.write_text('[{"name": "gate", "polygon": [[0, 0], [9.5, 0], [0, 9]]}]')
    first, second, gate = read_boundaries(["0,0,1,1", "0,0,5,0"], str(file))
    assert (first.name, second.name, gate.name) == ("line 1", "line 2", "gate")
    assert list(gate.points) == [(0, 0), (9.5, 0), (0, 9)]
    file.write_text(file.read_text().replace("gate", "line 1"))
    with pytest.raises(UserError, match=r"zones.json: zone 1 \(line 1\): a line of --count-line has this name"):
        read_boundaries(["0,0,1,1"], str(file))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", ", line 1: no JSON: Expecting property name"),
        ("[" * 100_000, ": no JSON"),
        ("{}", ": no list of zones"),
        ("[]", ": no list of zones"),
        ("[3]", ': zone 1: not of the form {"name": ..., "polygon"'),
        ('[{"name": "a"}]', ': zone 1: not of the form {"name": ..., "polygon"'),
        ('[{"name": "", "polygon": []}]', ": zone 1: name '': no text"),
        ('[{"name": "a", "polygon": [[0, 0], [1, 1]]}]', ": zone 1 (a): a polygon takes a list of at least 3 points"),
        ('[{"name": "a", "polygon": [[0, 0], [1, "1"], [2, 0]]}]', ': zone 1 (a): [1, "1"]: no point [x, y]'),
        ('[{"name": "a", "polygon": [[0, 0], [1, NaN], [2, 0]]}]', ": zone 1 (a): [1, NaN]: no point [x, y]"),
        ('[{"name": "a", "polygon": [[0, 0], [1, 1' + "0" * 400 + "], [2, 0]]}]", ": zone 1 (a): [1, 1000"),
        ("[" + "1" * 5000 + "]", ": no JSON"),
        ('[{"name": "a", "polygon": [[0, 0], [1, 1], [2, 2]]}]', ": zone 1 (a): all points lie on one line"),
    ],
)
def test_a_wrong_file_of_zones_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "zones.json"
    file.write_text(content)
    with pytest.raises(UserError) as caught:
        read_zones(file)
    assert str(caught.value).startswith(f"--count-zone {file}{said}")


def test_a_missing_file_of_zones_and_a_repeated_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.json: cannot be read: No such file or directory"):
        read_zones(tmp_path / "none.json")
    zone = '{"name": "a", "polygon": [[0, 0], [1, 0], [0, 1]]}'
    (tmp_path / "zones.json").write_text(f"[{zone}, {zone}]")
    with pytest.raises(UserError, match=r"zones.json: 'a' is the name of 2 zones"):
        read_zones(tmp_path / "zones.json")


def test_a_line_outside_of_the_images_was_meant_for_others() -> None:
    check_inside([LINE, SQUARE], FrameSize(height=30, width=30), "v.mp4")  # up to the edge
    with pytest.raises(
        UserError, match=r"^--count-line 0,10,20,10: the point 20,10 lies outside of v.mp4, which is 19 x"
    ):
        check_inside([LINE], FrameSize(height=30, width=19), "v.mp4")

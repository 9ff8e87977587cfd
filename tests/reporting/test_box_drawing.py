"""Boxes stay readable: the object is not covered, captions find room, colours can be told apart by everybody."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections
from utils.reporting.box_drawing import (
    DASHES,
    PALETTE,
    BoxDrawing,
    DrawingStyle,
    LegendEntry,
    MarkedBoxes,
    Stroke,
    _most_frequent,
    class_color,
    class_strokes,
    draw_boxes,
    draw_detections,
    font_of,
    legend_entries,
    legend_strip,
    marked_detections,
    text_size,
)
from utils.reporting.tag_placing import MOST_HIDDEN, TagPlacer

BARE = DrawingStyle(tags="none")


def found(*boxes: tuple[float, float, float, float], height: int, width: int) -> Detections:
    count = len(boxes)
    return Detections(
        torch.tensor(boxes), torch.ones(count), torch.zeros(count, dtype=torch.int64), FrameSize(height, width)
    )


def changed(height: int, width: int, box: tuple[int, int, int, int], style: DrawingStyle = BARE) -> np.ndarray:
    """Which pixels (H, W) of a grey image the drawing of one box changes."""
    image = np.full((height, width, 3), 128, np.uint8)
    drawn = draw_detections(image, found(box, height=height, width=width), ("vehicle",), style)
    assert (image == 128).all(), "the image itself is left alone"
    mask: np.ndarray = (drawn != image).any(axis=2)
    return mask


@pytest.mark.parametrize("side", [4, 10, 20, 60])
@pytest.mark.parametrize("size", [320, 640, 2000])
def test_nothing_of_the_object_is_covered(side: int, size: int) -> None:
    for style in (BARE, DrawingStyle(), DrawingStyle(tags="all"), DrawingStyle(line_width=9)):
        mask = changed(size, size, (150, 150, 150 + side, 150 + side), style)
        assert not mask[150 : 150 + side, 150 : 150 + side].any()
        assert mask[149, 150 : 150 + side].all() and mask[150 + side, 150 : 150 + side].all()


def line_width(size: int, side: int) -> int:
    """Pixels of the line and its dark seam above a square object in the middle of an image."""
    top = size // 2 - side // 2
    return int(changed(size, size, (top, top, top + side, top + side))[:top, size // 2].sum())


def test_lines_follow_the_sizes_of_image_and_object() -> None:
    assert line_width(320, 8) == line_width(2000, 8) == 2  # one pixel and its seam: more would hide what is beside it
    assert line_width(2000, 200) > line_width(640, 200) >= line_width(320, 200) > 1
    widths = [line_width(2000, side) for side in (8, 24, 60, 120, 400)]
    assert widths == sorted(widths) and widths[-1] == round(2000 / 320) + 1
    assert int(changed(640, 640, (300, 300, 400, 400), DrawingStyle(5, tags="none"))[:300, 350].sum()) == 6


def test_all_letters_on_an_image_have_one_size() -> None:
    # Worked by hand: 2200 / 55 = 40, but 28 at most; 640 / 55 = 11.6; 320 / 55 = 5.8, but 9 at least.
    assert [text_size(side) for side in (2200, 640, 320)] == [28, 12, 9]


@given(
    width=st.integers(60, 400),
    height=st.integers(40, 300),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
    text=st.tuples(st.integers(10, 60), st.integers(9, 20)),
    others=st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=6),
)
def test_a_caption_never_covers_its_box_where_there_is_room(
    width: int,
    height: int,
    corners: tuple[float, float, float, float],
    text: tuple[int, int],
    others: list[tuple[float, float, float, float]],
) -> None:
    def box(parts: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
        (x1, x2), (y1, y2) = sorted((parts[0], parts[2])), sorted((parts[1], parts[3]))
        left, top = round(x1 * (width - 1)), round(y1 * (height - 1))
        return left, top, max(round(x2 * width), left + 1), max(round(y2 * height), top + 1)

    x1, y1, x2, y2 = box(corners)
    placer = TagPlacer(np.array([box(parts) for parts in (corners, *others)]), FrameSize(height, width))
    left, top, _, _ = placer.best_spot((x1, y1, x2, y2), *text)
    assert 0 <= left <= width - text[0] and 0 <= top <= height - text[1], "a caption stays in the image"
    room = max(y1, height - y2) >= text[1] or max(x1, width - x2) >= text[0]
    apart = left + text[0] <= x1 or left >= x2 or top + text[1] <= y1 or top >= y2
    assert apart or not room


def test_captions_keep_off_each_other_in_a_row_of_objects() -> None:
    boxes = np.array([(40.0 + 30 * k, 100.0, 52.0 + 30 * k, 112.0) for k in range(6)])
    placer = TagPlacer(boxes, FrameSize(200, 400))
    places = [placer.best_spot((x1, y1, x2, y2), 50, 12)[:2] for x1, y1, x2, y2 in boxes.astype(int).tolist()]
    for (x, y), (other_x, other_y) in itertools.combinations(places, 2):
        assert abs(x - other_x) >= 50 or abs(y - other_y) >= 12
    for x, y in places:
        for x1, y1, x2, y2 in boxes.tolist():
            assert x + 50 <= x1 or x >= x2 or y + 12 <= y1 or y >= y2


Box = tuple[float, float, float, float]


def laid_out(
    boxes: Sequence[Box], width: int, height: int, tags: str = "auto", kinds: list[int] | None = None
) -> BoxDrawing:
    """Boxes of the classes "car" and "boat", of "car" alone unless ``kinds`` says more."""
    detections = found(*boxes, height=height, width=width)
    kinds = kinds or [0] * len(boxes)
    names = ("car", "boat", *(f"c{k}" for k in range(2, 16)))
    marks = marked_detections(detections, names)
    marks = replace(marks, kinds=kinds, captions=[names[kind] for kind in kinds], strokes=class_strokes(kinds))
    return BoxDrawing(FrameSize(height, width), marks, DrawingStyle(tags=tags))


def shared(first: Box | tuple[int, ...], second: Box | tuple[int, ...]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def test_an_object_has_a_tag_from_twice_its_size_on() -> None:
    width, height = int(np.ceil(font_of(12).getlength("car"))) + 4, 16  # of the tag in an image of 640 px
    side = float(np.sqrt(2 * width * height))
    for tags, expected in (("auto", [0]), ("all", [0, 1]), ("none", [])):
        drawing = laid_out([(100, 100, 101 + side, 100 + side), (300, 300, 299 + side, 300 + side)], 640, 640, tags)
        assert list(drawing.tags) == expected


def test_a_tag_stands_where_it_hides_no_other_object_or_not_at_all() -> None:
    # Above and below the first object there are others, to the right and left of it none.
    boxes = [(200.0, 200.0, 300.0, 300.0), (150.0, 150.0, 350.0, 199.0), (150.0, 301.0, 350.0, 350.0)]
    left, top, right, bottom = laid_out(boxes, 640, 640).tags[0]
    assert (left, top, bottom) == (302, 198, 214) and right > left  # on the right, from the top of the line on
    walls = [(160.0, 190.0, 199.0, 330.0), (301.0, 190.0, 340.0, 330.0)]
    assert 0 not in laid_out([*boxes, *walls], 640, 640).tags
    assert 0 in laid_out([*boxes, *walls], 640, 640, "all").tags


def test_a_tag_may_stand_on_an_object_so_large_that_next_to_nothing_of_it_is_hidden() -> None:
    # On a table as large as the image, 640 x 640, a tag of 28 x 16 hides a thousandth.
    table = (0.0, 0.0, 640.0, 640.0)
    cups = [(100.0 + 120 * k, 300.0, 160.0 + 120 * k, 360.0) for k in range(4)]
    assert set(laid_out([table, *cups], 640, 640).tags) == {0, 1, 2, 3, 4}
    assert shared(laid_out([table, *cups], 640, 640).tags[0], table) > 0  # the table's own has no other place


@given(
    boxes=st.lists(st.tuples(*[st.integers(0, 300)] * 2, *[st.integers(1, 200)] * 2), min_size=1, max_size=12),
    kinds=st.lists(st.integers(0, 1), min_size=12, max_size=12),
)
def test_tags_never_hide_another_object_nor_another_tag(boxes: list[tuple[int, ...]], kinds: list[int]) -> None:
    corners = [(float(x), float(y), float(min(x + w, 320)), float(min(y + h, 320))) for x, y, w, h in boxes]
    tags = laid_out(corners, 320, 320, kinds=kinds[: len(corners)]).tags
    for tag in tags.values():
        assert 0 <= tag[0] < tag[2] <= 320 and 0 <= tag[1] < tag[3] <= 320
    for box in corners:
        area = (box[2] - box[0]) * (box[3] - box[1])
        assert sum(shared(tag, box) for tag in tags.values()) <= MOST_HIDDEN * area * 1.0001
    for first, second in itertools.combinations(tags.values(), 2):
        assert shared(first, second) == 0


def test_the_legend_has_each_class_without_a_tag_once_and_all_its_boxes_are_counted() -> None:
    # A large car and two small ones, a small boat; the large object of class 2 has its tag.
    boxes = [(10, 30, 110, 130), (200, 200, 208, 208), (220, 200, 228, 208), (300, 300, 308, 308), (400, 400, 500, 500)]
    drawing = laid_out(boxes, 640, 640, kinds=[0, 0, 0, 1, 2])
    entries = legend_entries([drawing])
    assert [(entry.name, entry.boxes) for entry in entries] == [("car", 3), ("boat", 1)]
    assert [entry.stroke for entry in entries] == [Stroke(PALETTE[0]), Stroke(PALETTE[1])]
    assert [(entry.name, entry.boxes) for entry in legend_entries([drawing, drawing])] == [("car", 6), ("boat", 2)]
    for tags in ("all", "none"):
        assert legend_entries([laid_out(boxes, 640, 640, tags, [0, 0, 0, 1, 2])]) == []


def legend_area(boxes: Sequence[Box], width: int = 640, height: int = 640, *, steady: bool = False) -> np.ndarray:
    """Which pixels (H, W) of a grey image the legend of these boxes covers."""
    drawing = laid_out(boxes, width, height)
    drawing.style = DrawingStyle(steady=steady)
    image = np.full((height, width, 3), 128, np.uint8)
    mask: np.ndarray = (drawing.on(image, legend_entries([drawing])) != drawing.on(image)).any(axis=2)
    return mask


def test_the_legend_is_in_the_first_corner_that_is_free() -> None:
    small = (300.0, 300.0, 308.0, 308.0)
    corner = (2.0, 2.0, 10.0, 10.0)
    assert legend_area([small])[:20, :60].all()
    moved = legend_area([small, corner])
    assert not moved[:40, :40].any() and moved[:20, -60:].all()  # the next corner is the upper right one
    steady = legend_area([small, corner], steady=True)
    assert steady[15, :60].all(), "in a video the legend stays"
    # What lies below remains visible, and its line lies above the ground of the legend.
    image = np.full((640, 640, 3), 200, np.uint8)
    shown = draw_boxes(image, laid_out([small, corner], 640, 640).marks, DrawingStyle(steady=True))
    assert (shown[1, 2:10] == class_color(0)).all() and (shown[4:8, 2:5] == 83).all()  # 0.35 x 200 + 0.65 x 20


def test_a_legend_takes_a_quarter_of_the_image_at_most() -> None:
    small: list[Box] = [(50.0 + 3 * k, 60.0, 52.0 + 3 * k, 62.0) for k in range(14)]
    drawing = laid_out(small, 160, 120, kinds=[*range(13), 12])
    entries = legend_entries([drawing])
    image = np.full((120, 160, 3), 128, np.uint8)
    covered = (drawing.on(image, entries) != drawing.on(image)).any(axis=2)
    assert len(entries) == 13 and 0 < covered.sum() <= 0.25 * covered.size
    tiny = laid_out([(5, 5, 8, 8)], 32, 32)  # no room for one entry
    image = np.full((32, 32, 3), 128, np.uint8)
    assert (tiny.on(image, legend_entries([tiny])) == tiny.on(image)).all()


def test_of_too_many_classes_the_rarest_are_left_out_of_the_legend() -> None:
    entries = [LegendEntry(Stroke(PALETTE[0]), name, count) for name, count in (("a", 1), ("b", 9), ("c", 2), ("d", 9))]
    assert [entry.text for entry in _most_frequent(entries, 4)] == ["a 1", "b 9", "c 2", "d 9"]
    assert [entry.text for entry in _most_frequent(entries, 2)] == ["b 9", "d 9", "+ 2 more"]


def test_a_legend_below_images_is_as_wide_as_they_are() -> None:
    assert legend_strip([], 300).shape == (0, 300, 3)
    entries = [LegendEntry(Stroke(PALETTE[k]), "car", 3) for k in range(3)]
    one_row, three_rows = legend_strip(entries, 300), legend_strip(entries, 100)
    assert one_row.shape == (9 + 6 + 4, 300, 3) and three_rows.shape == (3 * 15 + 4, 100, 3)
    for color in PALETTE[:3]:
        assert (one_row == color).all(axis=2).any() and (three_rows == color).all(axis=2).any()


def test_classes_of_one_colour_differ_in_their_lines() -> None:
    strokes = class_strokes([9, 0, 7, 2, 14, 21])  # of 0, 7, 14 and 21 the colour is the same, of 2 and 9 too
    assert {kind: stroke.dashes for kind, stroke in strokes.items()} == dict(
        zip((0, 2, 7, 9, 14, 21), (DASHES[0], DASHES[0], DASHES[1], DASHES[1], DASHES[2], DASHES[2]), strict=True)
    )
    # The upper line of a box of 16 px: 18 with its corners, of which 5 in 8 are coloured, then 2 in 4.
    for dashes, pattern in ((None, "1" * 18), ((5, 3), "111110001111100011"), ((2, 2), "110011001100110011")):
        marks = MarkedBoxes(np.array([(20, 20, 36, 36)]), [0], [""], {0: Stroke(PALETTE[0], dashes)}, ("car",))
        drawn = draw_boxes(np.full((64, 64, 3), 128, np.uint8), marks, BARE)
        assert "".join("01"[int((pixel == PALETTE[0]).all())] for pixel in drawn[19, 19:37]) == pattern
        assert (drawn[20:36, 20:36] == 128).all()


# Full protanopia, deuteranopia and tritanopia on linear RGB: Machado, Oliveira, Fernandes, "A Physiologically-based
# Model for Simulation of Color Vision Deficiency", IEEE TVCG 2009, table 1.
VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array(
        ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
    ),
    "deuteranopia": np.array(
        ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
    ),
    "tritanopia": np.array(
        ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900))
    ),
}


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_are_told_apart_with_every_kind_of_colour_vision(vision: str) -> None:
    seen = (np.array(PALETTE) / 255) ** 2.2 @ VISIONS[vision].T
    shown = (seen.clip(0, 1) ** (1 / 2.2)).astype(np.float32)
    lab = cv2.cvtColor(shown[None], cv2.COLOR_RGB2LAB)[0].astype(np.float64)
    distances = [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(lab, 2)]
    # A difference of 2.3 is just noticeable side by side (CIE 1976); thin lines far apart need several times that.
    assert min(distances) > 4 * 2.3

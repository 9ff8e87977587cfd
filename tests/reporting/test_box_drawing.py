"""Boxes stay readable: the object is not covered, captions find room, colours can be told apart by everybody."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections
from utils.reporting.box_drawing import PALETTE, DrawingStyle, LabelPlacer, caption_size, draw_detections

BARE = DrawingStyle(names=False, scores=False)


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
    for style in (BARE, DrawingStyle(), DrawingStyle(line_width=9)):
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
    assert (
        int(changed(640, 640, (300, 300, 400, 400), DrawingStyle(5, names=False, scores=False))[:300, 350].sum()) == 6
    )


def test_captions_follow_the_sizes_of_image_and_object() -> None:
    # An image of 2200 px has letters of 28 at most, worked by hand: 2200 / 55 = 40; one of 640 px 12, one of 320 px 9.
    assert [caption_size(side, 2200) for side in (8, 20, 30, 40, 300)] == [12, 12, 18, 24, 28]
    assert [caption_size(side, 640) for side in (8, 40, 300)] == [12, 12, 12]
    assert [caption_size(side, 320) for side in (8, 40, 300)] == [9, 9, 9]


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
    def box(parts: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        (x1, x2), (y1, y2) = sorted((parts[0], parts[2])), sorted((parts[1], parts[3]))
        left, top = round(x1 * (width - 1)), round(y1 * (height - 1))
        return left, top, max(round(x2 * width), left + 1), max(round(y2 * height), top + 1)

    x1, y1, x2, y2 = box(corners)
    placer = LabelPlacer(np.array([box(parts) for parts in (corners, *others)]), width, height)
    left, top = placer.place((x1, y1, x2, y2), *text)
    assert 0 <= left <= width - text[0] and 0 <= top <= height - text[1], "a caption stays in the image"
    room = max(y1, height - y2) >= text[1] or max(x1, width - x2) >= text[0]
    apart = left + text[0] <= x1 or left >= x2 or top + text[1] <= y1 or top >= y2
    assert apart or not room


def test_captions_keep_off_each_other_in_a_row_of_objects() -> None:
    boxes = np.array([(40.0 + 30 * k, 100.0, 52.0 + 30 * k, 112.0) for k in range(6)])
    placer = LabelPlacer(boxes, 400, 200)
    places = [placer.place((x1, y1, x2, y2), 50, 12) for x1, y1, x2, y2 in boxes.tolist()]
    for (x, y), (other_x, other_y) in itertools.combinations(places, 2):
        assert abs(x - other_x) >= 50 or abs(y - other_y) >= 12
    for x, y in places:
        for x1, y1, x2, y2 in boxes.tolist():
            assert x + 50 <= x1 or x >= x2 or y + 12 <= y1 or y >= y2


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

"""What augmentation does to images and their objects."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dataset.images import small_dataset
from utils.config.hyperparameters import Hyperparameters
from utils.dataset.affine_warp import (
    WarpRanges,
    clip_polygon,
    draw_warp,
    visible_objects,
    warp_image,
    warp_labels,
)
from utils.dataset.augmentation import Augmentation
from utils.dataset.detection_dataset import DetectionDataset
from utils.dataset.image_changes import JitterGains, draw_jitter, flip_image, flip_labels, jitter_color
from utils.dataset.mosaic import (
    Tile,
    View,
    draw_tiles,
    letterbox_tile,
    mix,
    mosaic9_tiles,
    mosaic_tiles,
    paste_mirrored,
    paste_small,
)
from utils.geometry.boxes import box_area, pairwise_iou
from utils.geometry.letterbox import PAD_VALUE, FrameSize
from utils.geometry.records import Labels

STILL = Hyperparameters(
    hsv_h=0, hsv_s=0, hsv_v=0, degrees=0, translate=0, scale=0, shear=0, flipud=0, fliplr=0, mosaic=0
)


def _labels(boxes: list[list[float]], size: FrameSize, *polygons: np.ndarray | None) -> Labels:
    count = len(boxes)
    outlines = polygons or (None,) * count
    return Labels(np.array(boxes, np.float32).reshape(-1, 4), np.arange(count), outlines, size)


class OneRectangle:
    """A source of black images, each with a white rectangle that is its object."""

    def __init__(self, sizes: list[tuple[int, int]], boxes: list[tuple[int, int, int, int]]) -> None:
        self.sizes, self.boxes = sizes, boxes

    def source_size(self, index: int) -> FrameSize:
        return FrameSize(*self.sizes[index])

    def source_image(self, index: int, scale: float = 1.0) -> np.ndarray:
        image = np.zeros((*self.sizes[index], 3), np.uint8)
        x1, y1, x2, y2 = self.boxes[index]
        image[y1:y2, x1:x2] = 255
        return image

    def source_labels(self, index: int) -> Labels:
        labels = _labels([list(self.boxes[index])], self.source_size(index))
        return replace(labels, classes=np.array([index]))


def _bright_box(image: np.ndarray) -> list[int]:
    ys, xs = np.nonzero(image[..., 0] > 127)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


# --- warp


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.0008]))
def test_boxes_stay_inside_and_hold_the_warped_object(seed: int, perspective: float) -> None:
    rng = np.random.default_rng(seed)
    canvas = FrameSize(128, 128)
    x1, y1 = rng.integers(20, 60, 2)
    x2, y2 = x1 + rng.integers(24, 48), y1 + rng.integers(24, 48)
    image = np.zeros((128, 128, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    warp = draw_warp(rng, WarpRanges(30, 0.2, 0.4, 10, perspective), canvas, FrameSize(96, 96))
    outline = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float32)
    warped = warp_image(image, warp)
    for polygon in (None, outline):
        labels = warp_labels(_labels([[x1, y1, x2, y2]], canvas, polygon), warp)
        if not len(labels):
            continue
        box = labels.boxes[0]
        assert (box >= 0).all()
        assert (box <= 96).all()
        # The white of the image ends within 2 px of the geometric edge, more at a sharp corner.
        seen = np.array(_bright_box(warped))
        assert (seen[:2] >= box[:2] - 1).all()
        assert (seen[2:] <= box[2:] + 1).all()
        corners, _ = warp.apply(outline)
        if polygon is not None or ((corners > 0) & (corners < 96)).all():
            np.testing.assert_allclose(seen, box, atol=4)


def test_a_warp_without_ranges_moves_middle_to_middle() -> None:
    warp = draw_warp(np.random.default_rng(0), WarpRanges(), FrameSize(200, 200), FrameSize(100, 100))
    assert warp.is_axis_aligned
    points, depth = warp.apply(np.array([[100.0, 100.0], [60.0, 120.0]]))
    np.testing.assert_allclose(points, [[50, 50], [10, 70]])
    assert depth.tolist() == [1, 1]


def test_draws_stay_in_their_ranges() -> None:
    zooms, shifts = [], []
    for seed in range(300):
        warp = draw_warp(np.random.default_rng(seed), WarpRanges(0, 0.1, 0.5), FrameSize(200, 200), FrameSize(100, 100))
        zooms.append(warp.zoom)
        shifts.append(warp.apply(np.array([[100.0, 100.0]]))[0][0, 0])
    assert 0.5 <= min(zooms) < 0.55
    assert 1.45 < max(zooms) <= 1.5
    assert 40 <= min(shifts) < 42
    assert 58 < max(shifts) <= 60


def test_objects_that_are_dropped() -> None:
    frame = FrameSize(100, 100)
    boxes: list[list[float]] = [
        [10, 10, 30, 30],  # whole
        [-19, 10, 1, 30],  # 1 px wide: too thin
        [-18, 10, 3, 30],  # 3 of 21 px are left, more than a tenth
        [-38, 10, 3, 30],  # 3 of 41 px: less than a tenth
        [0, 50, 99, 52.5],  # 99 : 2.5
        [200, 200, 220, 220],  # outside
    ]
    labels = _labels(boxes, frame)
    whole = np.array([(b[2] - b[0]) * (b[3] - b[1]) for b in boxes])
    kept = visible_objects(labels, whole)
    assert kept.classes.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(kept.boxes[1], [0, 10, 3, 30])
    # An outline may lose up to 99 %.
    square = np.array([(-38, 10), (3, 10), (3, 30), (-38, 30)], np.float32)
    assert len(visible_objects(_labels([boxes[3]], frame, square), whole[3:4])) == 1


def test_clip_polygon_by_hand() -> None:
    triangle = np.array([(-10, 0), (10, 0), (0, 10)], np.float32)
    # The left side cuts the edge (0, 10)-(-10, 0) in (0, 10) and the base in (0, 0).
    clipped = clip_polygon(triangle, (0, 0, 100, 100))
    assert {tuple(point) for point in clipped.tolist()} == {(0, 0), (10, 0), (0, 10)}
    assert len(clip_polygon(triangle, (20, 20, 30, 30))) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_box_of_a_clipped_outline_is_that_of_its_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * math.pi, 9))
    polygon = 50 + np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(15, 60, (9, 1)) + rng.uniform(-40, 40, 2)
    clipped = clip_polygon(polygon.astype(np.float32), (0, 0, 100, 100))
    # Drawn eight times as large, since the tip of a narrow spike covers no whole pixel.
    mask = np.zeros((2400, 2400), np.uint8)
    cv2.fillPoly(mask, [np.round((polygon + 100) * 8).astype(np.int32)], 1)
    ys, xs = np.nonzero(mask[800:1600, 800:1600])
    if len(xs) == 0 or len(clipped) == 0:
        assert len(xs) <= 800  # no more than a line of pixels along the border
        return
    box = [*clipped.min(axis=0), *clipped.max(axis=0)]
    np.testing.assert_allclose(box, np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / 8, atol=0.6)


# --- tiles


def test_mosaic_tiles_meet_in_a_point_of_the_middle_half() -> None:
    source = OneRectangle([(60, 80), (80, 60), (20, 100), (50, 50)], [(0, 0, 5, 5)] * 4)
    for seed in range(20):
        tiles = mosaic_tiles(source, [0, 1, 2, 3], 100, np.random.default_rng(seed))
        meet = (tiles[3].left, tiles[3].top)
        assert all(50 <= value <= 150 for value in meet)
        for tile, (side_x, side_y) in zip(tiles, ((1, 1), (0, 1), (1, 0), (0, 0)), strict=True):
            height, width = source.source_size(tile.image)
            assert max(height, width) * tile.scale == pytest.approx(100)
            corner = (tile.left + side_x * width * tile.scale, tile.top + side_y * height * tile.scale)
            assert corner == pytest.approx(meet)


def test_nine_tiles_surround_the_first() -> None:
    source = OneRectangle([(60, 60)] * 9, [(0, 0, 5, 5)] * 9)
    tiles = mosaic9_tiles(source, list(range(9)), 60, np.random.default_rng(0))
    corners = {(round(t.left - tiles[0].left), round(t.top - tiles[0].top)) for t in tiles}
    assert corners == {(x, y) for x in (-60, 0, 60) for y in (-60, 0, 60)}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_drawn_tile_and_its_box_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(40, 120, 2).tolist()
    x1, y1 = rng.integers(0, width - 20), rng.integers(0, height - 20)
    box = (int(x1), int(y1), int(x1 + 20), int(y1 + 20))
    source = OneRectangle([(height, width)], [box])
    tile = Tile(0, float(rng.uniform(0.8, 2)), *rng.uniform(-40, 60, 2).tolist())
    shift_x, shift_y = rng.uniform(-60, 20, 2).tolist()
    view = View(float(rng.uniform(0.6, 1.5)), shift_x, shift_y, FrameSize(96, 96))
    image, labels, whole = draw_tiles(source, [tile], FrameSize(160, 160), view)
    seen = visible_objects(labels, whole)
    if len(seen):
        # Where the canvas cuts both, the image is cut at a whole source pixel.
        np.testing.assert_allclose(_bright_box(image), seen.boxes[0], atol=2.5)
        # Whole-pixel crops and rectangles move it by at most a source pixel, here 3 px of the output.
        on_canvas = (np.array(box) * tile.scale + (tile.left, tile.top) * 2).clip(0, 160)
        exact = (on_canvas * view.zoom + (view.shift_x, view.shift_y) * 2).clip(0, 96)
        np.testing.assert_allclose(seen.boxes[0], exact, atol=3)


def test_neighbouring_tiles_leave_no_gap() -> None:
    source = OneRectangle([(50, 50)] * 4, [(0, 0, 50, 50)] * 4)
    tiles = mosaic_tiles(source, [0, 1, 2, 3], 50, np.random.default_rng(3))
    image, _, _ = draw_tiles(source, tiles, FrameSize(100, 100), View(1.13, -20.4, -31.7, FrameSize(50, 50)))
    x1, y1, x2, y2 = _bright_box(image)
    assert (image[y1:y2, x1:x2] == 255).all()


def test_where_no_tile_lies_it_is_grey() -> None:
    source = OneRectangle([(50, 100)], [(0, 0, 5, 5)])
    tile = letterbox_tile(source, 0, FrameSize(64, 64))
    image, _, _ = draw_tiles(source, [tile], FrameSize(64, 64), View(1, 0, 0, FrameSize(64, 64)))
    assert (image[:16] == PAD_VALUE).all()
    assert (image[48:] == PAD_VALUE).all()
    assert (image[20:46] == 0).all()


# --- colour, flips, mixup, copy-paste


@pytest.mark.parametrize("hue", [0.015, 0.1, 1.0])  # with 1.0, hues may more than double and go round
@pytest.mark.parametrize("seed", range(5))
def test_jitter_equals_direct_arithmetic(seed: int, hue: float) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    gains = draw_jitter(rng, hue, 0.7, 0.4)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv *= np.array(gains, np.float32)
    hsv = hsv.round()
    hsv[..., 0] %= 180
    expected = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    difference = np.abs(jitter_color(image, gains).astype(np.int64) - expected)
    # A product that ends in one half may be rounded either way: one step of hue, which is at most 9 of a channel.
    assert difference.max() <= 9 and (difference > 0).mean() < 0.005


def test_gains_of_one_change_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert jitter_color(image, JitterGains(1, 1, 1)) is image
    assert draw_jitter(np.random.default_rng(0), 0, 0, 0) == (1, 1, 1)


@pytest.mark.parametrize(("left_right", "up_down"), [(False, False), (True, False), (False, True), (True, True)])
def test_flips_move_the_object_with_its_image(left_right: bool, up_down: bool) -> None:
    source = OneRectangle([(40, 60)], [(5, 7, 20, 30)])
    image = flip_image(source.source_image(0), left_right=left_right, up_down=up_down)
    outline = np.array([(5, 7), (20, 7), (20, 30)], np.float32)
    labels = flip_labels(_labels([[5, 7, 20, 30]], FrameSize(40, 60), outline), left_right=left_right, up_down=up_down)
    assert labels.boxes[0].tolist() == _bright_box(image)
    polygon = labels.polygons[0]
    assert polygon is not None
    np.testing.assert_array_equal([*polygon.min(axis=0), *polygon.max(axis=0)], labels.boxes[0])
    twice = flip_labels(labels, left_right=left_right, up_down=up_down)
    np.testing.assert_array_equal(twice.boxes, [[5, 7, 20, 30]])


def test_mixup_blends_about_evenly_and_keeps_all_objects() -> None:
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    labels = _labels([[0, 0, 2, 2]], FrameSize(4, 4))
    image, both = mix((black, labels), (white, replace(labels, classes=np.array([5]))), np.random.default_rng(0))
    assert 64 < image[0, 0, 0] < 192
    assert both.classes.tolist() == [0, 5]


def test_copy_paste_mirrors_object_and_pixels() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[10:20, 5:25] = 250
    outline = np.array([(5, 10), (25, 10), (25, 20), (5, 20)], np.float32)
    labels = _labels([[5, 10, 25, 20]], FrameSize(40, 100), outline)
    pasted, both = paste_mirrored(image, labels, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(both.boxes, [[5, 10, 25, 20], [75, 10, 95, 20]])
    assert both.classes.tolist() == [0, 0]
    assert (pasted[10:20, 75:95] == 250).all()
    assert (pasted[10:20, 5:25] == 250).all()
    assert (pasted[:, 30:70] == 0).all()
    assert (image[10:20, 75:95] == 0).all()  # the input is as it was


def test_copy_paste_hides_nothing() -> None:
    outline = np.array([(5, 10), (25, 10), (25, 20), (5, 20)], np.float32)
    labels = _labels([[5, 10, 25, 20], [80, 10, 90, 20]], FrameSize(40, 100), outline, None)
    image = np.zeros((40, 100, 3), np.uint8)
    assert paste_mirrored(image, labels, 1.0, np.random.default_rng(0))[1] is labels


@st.composite
def small_scenes(draw: st.DrawFn) -> tuple[np.ndarray, Labels]:
    """Noise of 60 x 90 pixels without padding, with up to eight objects, every other one outlined as a diamond."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 8))
    low = rng.uniform(0, 1, (count, 2)) * (70, 40)
    high = np.minimum(low + rng.uniform(3, 24, (count, 2)), (90, 60))
    boxes = np.concatenate([low, high], axis=1).astype(np.float32)
    outlines: list[np.ndarray | None] = []
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        outlines.append(np.array([(x, y1), (x2, y), (x, y2), (x1, y)], np.float32) if number % 2 else None)
    labels = Labels(boxes, np.arange(count), tuple(outlines), FrameSize(60, 90))
    return rng.integers(0, PAD_VALUE, (60, 90, 3), dtype=np.uint8), labels


@settings(max_examples=60, deadline=None)
@given(small_scenes(), st.sampled_from([0.5, 1.0]), st.integers(0, 2**32 - 1))
def test_pasted_small_objects_are_whole_apart_and_what_was_there(
    scene: tuple[np.ndarray, Labels], share: float, seed: int
) -> None:
    image, labels = scene
    before = image.copy()
    result, both = paste_small(image, labels, share, 12, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(both.boxes[: len(labels)], labels.boxes)
    assert ((both.boxes >= 0) & (both.boxes <= (90, 60, 90, 60))).all()
    assert len(set(both.classes[len(labels) :])) == len(both) - len(labels), "each at most once"
    expected = before.copy()
    for new in range(len(labels), len(both)):
        old = int(both.classes[new])  # of the object that it copies: the classes are their numbers
        shift = np.round(both.boxes[new] - labels.boxes[old]).astype(int)
        np.testing.assert_allclose(both.boxes[new], labels.boxes[old] + shift, atol=1e-4)
        x1, y1 = np.floor(labels.boxes[old, :2]).astype(int).tolist()
        x2, y2 = np.ceil(labels.boxes[old, 2:]).astype(int).tolist()
        assert box_area(labels.boxes[old]) < 12**2
        others = np.delete(both.boxes, new, axis=0)
        assert not (pairwise_iou(both.boxes[new : new + 1], others) > 0).any()
        mask = np.ones((y2 - y1, x2 - x1), np.uint8)
        outline, moved = labels.polygons[old], both.polygons[new]
        if outline is not None and moved is not None:
            np.testing.assert_allclose(moved, outline + shift[:2], atol=1e-4)
            mask = cv2.fillPoly(np.zeros_like(mask), [np.round(outline - (x1, y1)).astype(np.int32)], 1)
        left, top = x1 + shift[0], y1 + shift[1]
        there = expected[top : top + y2 - y1, left : left + x2 - x1]
        there[mask > 0] = before[y1:y2, x1:x2][mask > 0]
    np.testing.assert_array_equal(result, expected)


def test_a_small_object_is_copied_once_and_a_larger_one_is_not() -> None:
    image = np.zeros((60, 90, 3), np.uint8)
    image[10:16, 20:28] = 250
    labels = _labels([[20, 10, 28, 16], [50, 20, 62, 32]], FrameSize(60, 90))
    result, both = paste_small(image, labels, 1.0, 7, np.random.default_rng(0))  # 8 x 6 = 48 pixels, 7 x 7 = 49
    assert both.classes.tolist() == [0, 1, 0]
    assert int((result[..., 0] == 250).sum()) == 2 * 48
    x1, y1, x2, y2 = both.boxes[2].astype(int)
    assert (x2 - x1, y2 - y1) == (8, 6) and (result[y1:y2, x1:x2] == 250).all()
    assert paste_small(image, labels, 1.0, 6.9, np.random.default_rng(0))[1] is labels


@pytest.mark.parametrize(
    ("boxes", "background"),
    [
        pytest.param([[0, 10, 8, 16]], 0, id="cut by the border of the image"),
        pytest.param([[20, 10, 28, 16], [26, 12, 60, 40]], 0, id="hidden in part"),
        pytest.param([[20, 10, 28, 16], [0, 0, 19, 60], [29, 0, 90, 60], [19, 17, 29, 60]], 0, id="no place is free"),
        pytest.param([[20, 10, 28, 16]], PAD_VALUE, id="around it there is only padding"),
    ],
)
def test_a_small_object_that_is_not_copied(boxes: list[list[float]], background: int) -> None:
    image = np.full((60, 90, 3), background, np.uint8)
    x1, y1, x2, y2 = (int(side) for side in boxes[0])
    image[y1:y2, x1:x2] = 250
    labels = _labels(boxes, FrameSize(60, 90))
    for seed in range(10):
        result, both = paste_small(image, labels, 1.0, 8, np.random.default_rng(seed))
        assert both is labels and result is image


# --- the whole recipe


def _augmented(dataset: DetectionDataset, hyp: Hyperparameters, seed: int) -> tuple[np.ndarray, Labels]:
    return Augmentation(dataset, len(dataset), 64, hyp)(seed % len(dataset), np.random.default_rng(seed))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mosaic9": 1.0},
        {"mixup": 1.0, "flipud": 0.5},
        {"copy_paste": 1.0},
        {"paste_small": 1.0, "mixup": 0.5},
        {"paste_small": 1.0, "mosaic": 0.0, "degrees": 10.0},
        {"degrees": 25.0, "shear": 8.0, "perspective": 0.0008},
        {"mosaic": 0.0, "scale": 0.9},
    ],
)
def test_every_recipe_gives_sound_samples(tmp_path: Path, changes: dict[str, float]) -> None:
    dataset = small_dataset(tmp_path, outlines=True)
    hyp = replace(Hyperparameters(mosaic=1.0), **changes)  # type: ignore[arg-type]
    seen = 0
    for seed in range(12):
        image, labels = _augmented(dataset, hyp, seed)
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8
        assert labels.size == (64, 64)
        assert labels.boxes.dtype == np.float32
        assert ((labels.boxes >= 0) & (labels.boxes <= 64)).all()
        assert (labels.boxes[:, 2:] - labels.boxes[:, :2] > 2).all()
        assert len(labels.boxes) == len(labels.classes) == len(labels.polygons)
        for box, polygon in zip(labels.boxes, labels.polygons, strict=True):
            if polygon is not None:
                np.testing.assert_allclose([*polygon.min(axis=0), *polygon.max(axis=0)], box, atol=1e-3)
        again, _ = _augmented(dataset, hyp, seed)
        np.testing.assert_array_equal(again, image)
        seen += len(labels)
    assert seen > 12


def test_where_no_object_is_small_nothing_changes(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path, outlines=True)
    hyp = Hyperparameters(mosaic=0.5, mixup=0.5)
    pasted = 0
    for seed in range(8):
        image, labels = _augmented(dataset, hyp, seed)
        same, same_labels = _augmented(dataset, replace(hyp, paste_small=1.0, paste_small_size=1.0), seed)
        np.testing.assert_array_equal(same, image)
        np.testing.assert_array_equal(same_labels.boxes, labels.boxes)
        pasted += len(_augmented(dataset, replace(hyp, paste_small=1.0), seed)[1]) - len(labels)
    assert pasted > 0


def test_no_augmentation_is_a_letterbox(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    _, labels = _augmented(dataset, STILL, 0)
    source = dataset.source_labels(0)  # 40 x 72 to 64: scale 0.889, 14.2 px of grey above
    scale = 64 / 72
    expected = source.boxes * scale + np.array([0, (64 - 40 * scale) / 2] * 2)
    np.testing.assert_allclose(labels.boxes, expected, atol=0.6)  # whole-pixel rectangle
    np.testing.assert_array_equal(labels.classes, source.classes)


def test_classes_follow_their_objects() -> None:
    """Images that are all object, each of a colour of its own: the colour under a box tells its class."""

    class Plain(OneRectangle):
        def source_image(self, index: int, scale: float = 1.0) -> np.ndarray:
            return np.full((*self.sizes[index], 3), 10 + 20 * index, np.uint8)

    source = Plain([(40, 60)] * 5, [(0, 0, 60, 40)] * 5)
    augmentation = Augmentation(source, 5, 64, replace(STILL, mosaic=1.0, scale=0.4, translate=0.2, fliplr=0.5))
    for seed in range(20):
        image, labels = augmentation(seed % 5, np.random.default_rng(seed))
        assert len(labels)
        for box, number in zip(labels.boxes, labels.classes, strict=True):
            x, y = ((box[:2] + box[2:]) / 2).astype(int)
            assert image[y, x, 0] == 10 + 20 * number

"""Letterbox: proportions, padding, and the way back to the image on disk."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.geometry.letterbox import (
    PAD_VALUE,
    FrameSize,
    letterbox,
    middle_square,
    padded_frame,
    resize_to_long_side,
)

SIDES = st.integers(1, 400)


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, st.integers(1, 12), st.integers(1, 12), st.booleans(), st.integers(0, 2**32 - 1))
def test_to_source_undoes_to_network(
    height: int, width: int, rows: int, columns: int, enlarge: bool, seed: int
) -> None:
    network = FrameSize(rows * 32, columns * 32)
    _, transform = letterbox(np.zeros((height, width, 3), np.uint8), network, enlarge=enlarge)
    corners = np.random.default_rng(seed).uniform(0, 1, (8, 2, 2)) * (width, height)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    np.testing.assert_allclose(transform.to_source(transform.to_network(boxes)), boxes, atol=1e-3)
    tensor = torch.from_numpy(boxes)
    np.testing.assert_allclose(transform.to_source(transform.to_network(tensor)).numpy(), boxes, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, st.integers(1, 12), st.integers(1, 12))
def test_image_lies_inside_its_frame(height: int, width: int, rows: int, columns: int) -> None:
    network = FrameSize(rows * 32, columns * 32)
    image, transform = letterbox(np.zeros((height, width, 3), np.uint8), network)
    assert image.shape == (*network, 3)
    whole = transform.to_network(np.array([[0, 0, width, height]], np.float32))[0]
    assert whole[:2].min() >= 0
    assert whole[2] <= network.width + 1e-3
    assert whole[3] <= network.height + 1e-3
    assert (image == PAD_VALUE).all(axis=2).sum() == network.height * network.width - round(
        float((whole[2] - whole[0]) * (whole[3] - whole[1]))
    )


def test_numbers_worked_by_hand() -> None:
    # 100 x 50 into 64 x 64: ratio 0.64, resized 32 x 64, 16 rows of grey above and below.
    image, transform = letterbox(np.zeros((50, 100, 3), np.uint8), FrameSize(64, 64))
    assert (transform.scale_x, transform.scale_y, transform.pad_left, transform.pad_top) == (0.64, 0.64, 0, 16)
    assert (image[:16] == PAD_VALUE).all()
    assert (image[16:48] == 0).all()
    box = transform.to_network(np.array([[10, 20, 50, 40]], np.float32))
    np.testing.assert_allclose(box, [[6.4, 28.8, 32.0, 41.6]], rtol=1e-6)


def test_odd_rest_goes_to_the_bottom() -> None:
    _, transform = letterbox(np.zeros((31, 64, 3), np.uint8), FrameSize(64, 64))
    assert transform.pad_top == 16  # 33 rows left: 16 above, 17 below


def test_a_scaled_copy_leads_back_to_the_file() -> None:
    scaled = resize_to_long_side(np.zeros((50, 100, 3), np.uint8), 50, smooth=True)
    _, transform = letterbox(scaled, FrameSize(64, 64), source=FrameSize(50, 100), enlarge=False)
    np.testing.assert_allclose(transform.to_source(np.array([[7.0, 19.0, 57.0, 44.0]])), [[0, 0, 100, 50]], atol=1e-6)


def test_scaled_sizes_are_rounded_up() -> None:
    assert resize_to_long_side(np.zeros((33, 100, 3), np.uint8), 64, smooth=False).shape == (22, 64, 3)


def test_padded_frame_is_the_smallest_multiple_of_the_stride() -> None:
    assert padded_frame(FrameSize(480, 640), 320, 32) == (256, 320)
    assert padded_frame(FrameSize(1, 640), 320, 32) == (32, 320)


def test_the_middle_square() -> None:
    rows, columns = np.mgrid[0:10, 0:20]
    image = np.stack((rows, columns, rows * 0), axis=-1).astype(np.uint8)
    square = middle_square(image, 10)
    assert square[0, 0].tolist() == [0, 5, 0] and square[9, 9].tolist() == [9, 14, 0]
    assert middle_square(np.zeros((30, 20, 3), np.uint8), 10).shape == (10, 10, 3)

"""Images in the forms that Python programs have them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from utils.inference.image_inputs import as_images
from utils.user_error import UserError

# Two rows of three pixels, all values different.
RGB = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10
GREY = RGB[..., 0]
LARGE = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (LARGE, LARGE),
        (LARGE.transpose(2, 0, 1), LARGE),
        (np.dstack((LARGE, np.zeros((6, 5), np.uint8))), LARGE),  # what alpha hides is still there
        (LARGE[..., 0], np.repeat(LARGE[..., :1], 3, axis=2)),
        (LARGE[..., :1], np.repeat(LARGE[..., :1], 3, axis=2)),
        (LARGE[None, ..., 0], np.repeat(LARGE[..., :1], 3, axis=2)),  # one channel, first
        (LARGE / 255, LARGE),
        ((LARGE / 255).astype(np.float32), LARGE),
        (LARGE[::-1, ::-1], LARGE[::-1, ::-1]),  # a view
        (RGB, RGB),  # three pixels wide: channels are last
    ],
)
def test_arrays(array: np.ndarray, expected: np.ndarray) -> None:
    (image,) = as_images(array)
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.pixels.dtype == np.uint8 and image.pixels.flags.c_contiguous and image.name == "image0.jpg"


@pytest.mark.parametrize(
    ("array", "line"),
    [
        (np.zeros((6, 5, 2), np.uint8), r"image 1: an array of shape \(6, 5, 2\)"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"image 1: an array of shape \(1, 4, 5, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), r"image 1: an array of shape \(0, 5, 3\)"),
        (np.zeros(5, np.uint8), r"image 1: an array of shape \(5,\)"),
        (np.zeros((4, 5, 3), np.int64), "image 1: an array of int64"),
        (np.full((4, 5, 3), 1.01), "image 1: an array of float64"),
        (np.full((4, 5, 3), -0.01), "image 1: an array of float64"),
        (np.full((4, 5, 3), np.nan), "image 1: an array of float64"),
        (None, "image 1: a NoneType"),
        (b"bytes", "image 1: a bytes"),
    ],
)
def test_what_is_no_image_is_named_by_its_place(array: Any, line: str) -> None:
    with pytest.raises(UserError, match=line):
        as_images([RGB, array])


def test_names_are_those_of_files_and_places_otherwise(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.b.png")
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as opened:
        images = as_images((str(tmp_path / "a.b.png"), tmp_path / "grey.png", opened, Image.fromarray(RGB), RGB))
    assert [image.name for image in images] == ["a.b.jpg", "grey.jpg", "grey.jpg", "image3.jpg", "image4.jpg"]
    for image in (images[0], images[3], images[4]):
        np.testing.assert_array_equal(image.pixels, RGB)
    for image in images[1:3]:
        np.testing.assert_array_equal(image.pixels, np.repeat(GREY[..., None], 3, axis=2))
    assert as_images([]) == []


def test_a_turned_photo_stands_upright() -> None:
    photo = Image.fromarray(RGB)
    photo.getexif()[0x0112] = 3  # upside down
    (image,) = as_images(photo)
    np.testing.assert_array_equal(image.pixels, RGB[::-1, ::-1])

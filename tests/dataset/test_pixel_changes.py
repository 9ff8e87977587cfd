"""Blur, grey and local contrast by albumentations, which is not among the requirements (it brings a second OpenCV)."""

from __future__ import annotations

import numpy as np
import pytest

from utils.dataset.image_changes import CHANGES, PixelChanges, change_pixels, draw_pixel_changes

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_changes_pixels_and_is_a_function_of_its_seed(name: str) -> None:
    pytest.importorskip("albumentations", reason="albumentations is not installed")
    changed = change_pixels(IMAGE, PixelChanges((name,), 3))
    assert changed.shape == IMAGE.shape and changed.dtype == np.uint8
    assert not np.array_equal(changed, IMAGE)
    np.testing.assert_array_equal(change_pixels(IMAGE, PixelChanges((name,), 3)), changed)
    if name == "ToGray":
        assert np.ptp(changed, axis=2).max() <= 1


def test_a_hundredth_of_the_images_gets_each_change() -> None:
    rng = np.random.default_rng(1)
    drawn = [draw_pixel_changes(rng).chosen for _ in range(20_000)]
    for name in CHANGES:
        assert sum(name in chosen for chosen in drawn) == pytest.approx(200, abs=60)  # four deviations


def test_no_change_gives_the_same_image() -> None:
    assert change_pixels(IMAGE, PixelChanges((), 0)) is IMAGE

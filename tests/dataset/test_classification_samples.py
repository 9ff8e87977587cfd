"""What a classifier is shown: functions of the sample's place, squares of the asked size, values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.config.classification_recipe import ClassificationRecipe
from utils.dataset.batch_loader import LoaderSettings
from utils.dataset.classification_dataset import ArrayImages, from_array
from utils.dataset.classification_loaders import (
    augmented,
    classification_evaluation_loader,
    classification_training_loader,
    random_crop,
    shifted,
)
from utils.geometry.records import COLOUR_DEVIATION, COLOUR_MEAN

PLAIN = ClassificationRecipe(crop_area=1.0, fliplr=0.0, hsv_s=0.0, hsv_v=0.0)


def numbered(height: int, width: int) -> np.ndarray:
    """An image whose pixels tell their row (red) and column (green)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def test_a_shift_leaves_black_behind() -> None:
    image = numbered(6, 6)
    moved = shifted(image, right=2, down=-1)
    assert moved[0, 2].tolist() == [1, 0, 0]  # what was in row 1, column 0
    assert not moved[:, :2].any() and not moved[5].any()
    np.testing.assert_array_equal(shifted(image, 0, 0), image)


@pytest.mark.parametrize("aspect", [0.0, 0.5, 1.0])
def test_a_crop_has_the_asked_area_and_lies_inside(aspect: float) -> None:
    image = numbered(100, 100)
    for place in ((0.0, 0.0), (1.0, 1.0), (0.3, 0.9)):
        crop = random_crop(image, 0.25, aspect, place)
        assert crop.shape[0] * crop.shape[1] == pytest.approx(2500, rel=0.05)
        assert crop.shape[1] / crop.shape[0] == pytest.approx(0.75 * (16 / 9) ** aspect, rel=0.05)
    assert random_crop(image, 1.0, 0.5, (0.5, 0.5)).shape == (100, 100, 3)


def test_augmentation_draws_as_often_whatever_the_recipe() -> None:
    ends = []
    for recipe in (PLAIN, ClassificationRecipe(), ClassificationRecipe(shift=0.3, flipud=0.5, hsv_h=0.2)):
        rng = np.random.default_rng(0)
        image = augmented(numbered(40, 50), 32, recipe, rng)
        assert image.shape == (32, 32, 3) and image.flags.c_contiguous
        ends.append(rng.random())
    assert len(set(ends)) == 1


def test_flips_are_sure_or_never() -> None:
    image = numbered(8, 8)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(augmented(image, 8, PLAIN, rng), image)
    both = ClassificationRecipe(crop_area=1.0, fliplr=1.0, flipud=1.0, hsv_s=0.0, hsv_v=0.0)
    np.testing.assert_array_equal(augmented(image, 8, both, rng), image[::-1, ::-1])


def dataset(count: int = 7) -> ArrayImages:
    images = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return ArrayImages(images, np.arange(count) % 3, ("a", "b", "c"), "array")


def test_samples_depend_on_seed_epoch_and_position_only() -> None:
    part = from_array(dataset(), "train")

    def epoch(number: int, seed: int, settings: LoaderSettings | None = None) -> torch.Tensor:
        loader = classification_training_loader(part, 16, ClassificationRecipe(), seed, settings or LoaderSettings(3))
        loader.set_epoch(number)
        return torch.cat([batch.images for batch in loader])

    base = epoch(1, 5)
    assert torch.equal(epoch(1, 5), base) and torch.equal(epoch(1, 5, LoaderSettings(7)), base)
    assert not torch.equal(epoch(2, 5), base) and not torch.equal(epoch(1, 6), base)
    halves = [epoch(1, 5, LoaderSettings(2, rank=rank, world=2)) for rank in (0, 1)]
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1)[:7], base)  # ranks take turns; the last one goes round


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing() -> None:
    part = from_array(dataset(9), "train")
    found = []
    for workers in (0, 1, 2):
        loader = classification_training_loader(part, 16, ClassificationRecipe(), 0, LoaderSettings(4, workers=workers))
        loader.set_epoch(3)
        found.append([(batch.images, batch.classes, batch.indices) for batch in loader])
    for other in found[1:]:
        for (images, classes, indices), (images2, classes2, indices2) in zip(found[0], other, strict=True):
            assert torch.equal(images, images2) and torch.equal(classes, classes2) and indices == indices2


def test_an_evaluation_sees_every_image_once_over_all_ranks() -> None:
    part = from_array(dataset(), "val")
    seen = [
        index
        for rank in (0, 1)
        for batch in classification_evaluation_loader(part, 16, LoaderSettings(2, rank=rank, world=2))
        for index in batch.indices
    ]
    assert sorted(seen) == list(range(7))


def test_normalized_as_imagenet() -> None:
    part = from_array(ArrayImages(np.full((1, 4, 4, 3), 255, np.uint8), np.zeros(1, np.int64), ("a",), ""), "val")
    (batch,) = classification_evaluation_loader(part, 4, LoaderSettings(1))
    images = batch.on(torch.device("cpu")).images
    expected = [(1 - mean) / deviation for mean, deviation in zip(COLOUR_MEAN, COLOUR_DEVIATION, strict=True)]
    assert images[0, :, 2, 3].tolist() == pytest.approx(expected, rel=1e-5)
    assert images.is_contiguous(memory_format=torch.channels_last)

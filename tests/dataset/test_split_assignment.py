"""Groups go to parts whole, parts are near their shares, and rare classes reach train and val."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.dataset.label_index import LabelIndex, PathList
from utils.dataset.split.assignment import assign_groups, object_cells

NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.int64))


@st.composite
def grouped_objects(draw: st.DrawFn) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], int]:
    """Groups of up to 9 images in any order, with objects of up to 4 classes."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=3, max_size=30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    group_of = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    classes = draw(st.integers(1, 4))
    images = np.sort(rng.integers(0, len(group_of), draw(st.integers(0, 60))))
    return group_of, (images, rng.integers(0, classes * 3, len(images))), classes


@settings(max_examples=60, deadline=None)
@given(grouped_objects(), st.sampled_from([(0.8, 0.1, 0.1), (0.7, 0.3, 0.0), (0.5, 0.25, 0.25)]), st.integers(0, 99))
def test_shares_are_met_within_a_group(
    drawn: tuple[np.ndarray, tuple[np.ndarray, np.ndarray], int], shares: tuple[float, ...], seed: int
) -> None:
    group_of, objects, classes = drawn
    part_of_group = assign_groups(group_of, objects, classes, shares, seed)
    assert ((part_of_group >= 0) & (part_of_group < 3)).all(), "every group, and so every image, has one part"
    assert (part_of_group == assign_groups(group_of, objects, classes, shares, seed)).all()
    images = np.bincount(part_of_group[group_of], minlength=3)
    largest = np.bincount(group_of).max()
    assert (images < np.array(shares) * len(group_of) + largest).all()
    assert all(images[part] > 0 for part in range(3) if shares[part] > 0) and (shares[2] > 0 or not images[2])


def test_without_objects_the_images_decide() -> None:
    part_of_group = assign_groups(np.arange(100), NOTHING, 1, (0.8, 0.1, 0.1), 0)
    assert np.bincount(part_of_group).tolist() == [80, 10, 10]


def test_another_seed_is_another_split() -> None:
    first, second = (assign_groups(np.arange(50), NOTHING, 1, (0.8, 0.1, 0.1), seed) for seed in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize("seed", range(5))
def test_a_class_with_two_groups_is_in_train_and_val(seed: int) -> None:
    # 40 images with an object of class 0; class 1 is in two of them, class 2 in one.
    images = np.array([*range(40), 7, 23, 11])
    cells = np.array([0] * 40 + [3, 3, 6])
    part = assign_groups(np.arange(40), (images, cells), 3, (0.8, 0.1, 0.1), seed)
    assert sorted(part[[7, 23]].tolist()) == [0, 1] and part[11] == 0
    assert np.bincount(part).tolist() == [32, 4, 4]


def test_sizes_are_spread_as_classes_are() -> None:
    # One class; every tenth image has ten small objects, the others a large one.
    images = np.concatenate([np.repeat(np.arange(0, 200, 10), 10), np.setdiff1d(np.arange(200), np.arange(0, 200, 10))])
    cells = np.where(images % 10 == 0, 0, 2)
    part = assign_groups(np.arange(200), (images, cells), 1, (0.8, 0.1, 0.1), 0)
    small = np.bincount(part[images[cells == 0]], minlength=3)
    assert small.tolist() == [160, 20, 20]


def test_an_image_that_is_left_out_is_in_no_group() -> None:
    group_of = np.array([0, -1, 1, 2, -1])
    part = assign_groups(group_of, (np.array([0, 1, 4]), np.array([0, 3, 3])), 2, (0.5, 0.5, 0.0), 0)
    assert len(part) == 3 and set(part.tolist()) == {0, 1}


def test_cells_of_objects_are_classes_by_size() -> None:
    # In an image of 200 x 100 (height x width): 10 x 10, 40 x 20, 32 x 32, 100 x 100 and 100 x 200 pixels.
    rows = [(0, 0.1, 0.05), (1, 0.4, 0.1), (1, 0.32, 0.16), (0, 1, 0.5), (2, 1, 1)]
    nothing = np.zeros(0, np.float32)
    index = LabelIndex(
        paths=PathList(["a", "b", "c"]),
        sizes=np.array([[200, 100]] * 3, np.int32),
        rows=np.array([(kind, 0.5, 0.5, w, h) for kind, w, h in rows], np.float32),
        row_ends=np.array([2, 2, 5]),
        points=nothing.reshape(0, 2),
        point_ends=np.zeros(5, np.int64),
        ignored=nothing.reshape(0, 5),
        ignored_ends=np.zeros(3, np.int64),
        unlabelled=0,
        duplicates=0,
        problems=(),
    )
    images, cells = object_cells(index)
    assert images.tolist() == [0, 0, 2, 2, 2]
    assert cells.tolist() == [0, 3, 4, 2, 8]

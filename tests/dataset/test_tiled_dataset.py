"""Windows of large images: their objects by hand, their pixels, and that every object is whole in some window."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dataset.images import NAMES, write_image, write_labels
from utils.config.hyperparameters import Hyperparameters
from utils.dataset.batch_loader import LoaderSettings
from utils.dataset.detection_dataset import DetectionDataset, open_dataset
from utils.dataset.image_cache import cached_dataset
from utils.dataset.label_index import LabelIndex, PathList
from utils.dataset.tiled_dataset import LEAST_VISIBLE, OVERLAP, TiledDataset, tiled_index
from utils.dataset.training_loader import training_loader


def is_mapped(array: np.ndarray) -> bool:
    """Whether the array's memory is that of a mapped file."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def one_image(root: Path) -> DetectionDataset:
    """160 x 260 pixels of noise. Windows of 100 pixels begin at x 0, 80, 160 and y 0, 60."""
    noise = np.random.default_rng(0).integers(0, 256, (160, 260, 3), dtype=np.uint8)
    write_image(root / "images" / "a.png", noise)
    write_labels(
        root / "labels" / "a.txt",
        f"0 {20 / 260} {20 / 160} {20 / 260} {20 / 160}",  # x 10-30, y 10-30: in the first window only
        f"1 {90 / 260} {20 / 160} {40 / 260} {20 / 160}",  # x 70-110: 30 of 40 columns in the first, 30 in the second
        f"2 {100 / 260} {130 / 160} {10 / 260} {20 / 160}",  # x 95-105, y 120-140: half in the first column
    )
    return open_dataset((root / "images",), NAMES, cache_folder=root)


def test_windows_by_hand(tmp_path: Path) -> None:
    whole = one_image(tmp_path)
    tiled = TiledDataset(whole, 100)
    corners = [tuple(corner) for corner in tiled.windows.corners.tolist()]
    # Four windows of the six have objects, so that both of the others may stay.
    assert sorted(corners) == [
        *((0, 0, 100, 100), (0, 60, 100, 160), (80, 0, 180, 100)),
        *((80, 60, 180, 160), (160, 0, 260, 100), (160, 60, 260, 160)),
    ]
    assert tiled.index.unlabelled == 2
    found = {corner: tiled.source_labels(row) for row, corner in enumerate(corners)}
    first = found[0, 0, 100, 100]
    np.testing.assert_allclose(first.boxes, [[10, 10, 30, 30], [70, 10, 100, 30]], atol=1e-4)
    assert first.classes.tolist() == [0, 1]
    np.testing.assert_allclose(found[80, 0, 180, 100].boxes, [[0.0, 10.0, 30.0, 30.0]], atol=1e-4)
    np.testing.assert_allclose(found[0, 60, 100, 160].boxes, [[95.0, 60.0, 100.0, 80.0]], atol=1e-4)
    np.testing.assert_allclose(found[80, 60, 180, 160].boxes, [[15.0, 60.0, 25.0, 80.0]], atol=1e-4)
    image = whole.source_image(0)
    for row, (x1, y1, x2, y2) in enumerate(corners):
        assert np.array_equal(tiled.source_image(row), image[y1:y2, x1:x2])
        assert tiled.source_size(row) == (100, 100)


def test_an_object_seen_too_little_of_is_left_out(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", np.zeros((100, 180, 3), np.uint8))
    # x 71-101 in windows 0-100 and 80-180: 29 and 21 of 30 columns; x 94-124: 6 of 30 in the first.
    write_labels(
        tmp_path / "labels" / "a.txt",
        f"0 {86 / 180} 0.5 {30 / 180} 0.2",
        f"1 {109 / 180} 0.5 {30 / 180} 0.2",
    )
    index, _ = tiled_index(open_dataset((tmp_path / "images",), NAMES).index, 100)
    assert [index.labels(row).classes.tolist() for row in range(len(index))] == [[0], [0, 1]]


def test_an_outline_is_cut_and_its_box_with_it(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", np.zeros((100, 180, 3), np.uint8))
    # A triangle with corners (60, 20), (140, 20), (60, 100); right of x = 80 its height is 60.
    points = [(60, 20), (140, 20), (60, 100)]
    write_labels(tmp_path / "labels" / "a.txt", "0 " + " ".join(f"{x / 180} {y / 100}" for x, y in points))
    index, _ = tiled_index(open_dataset((tmp_path / "images",), NAMES).index, 100)
    right = index.labels(1)
    np.testing.assert_allclose(right.boxes, [[0.0, 20.0, 60.0, 80.0]], atol=1e-3)
    assert right.polygons[0] is not None
    assert set(map(tuple, right.polygons[0].round(3).tolist())) == {(0, 20), (60, 20), (0, 80)}


def test_windows_without_objects_are_as_many_as_those_with(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", np.zeros((500, 500, 3), np.uint8))
    write_labels(tmp_path / "labels" / "a.txt", "0 0.05 0.05 0.02 0.02")
    tiled = TiledDataset(open_dataset((tmp_path / "images",), NAMES), 100)
    assert [len(tiled.source_labels(row)) for row in range(len(tiled))] == [1, 0]


def test_a_small_image_is_its_own_window(tmp_path: Path) -> None:
    dataset = one_image(tmp_path)
    index, windows = tiled_index(dataset.index, 300)
    assert windows.corners.tolist() == [[0, 0, 260, 160]]
    np.testing.assert_allclose(index.labels(0).boxes, dataset.index.labels(0).boxes, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 300), st.integers(40, 300), st.integers(40, 120), st.integers(0, 2**32 - 1))
def test_what_is_smaller_than_the_overlap_lies_whole_in_a_window(height: int, width: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sides = rng.uniform(2, OVERLAP * size, (12, 2))
    centres = rng.uniform(sides / 2, [width, height] - sides / 2)
    rows = np.column_stack((np.zeros(12), centres / [width, height], sides / [width, height])).astype(np.float32)
    ends = np.array([12])
    index = LabelIndex(
        paths=PathList(["a.png"]),
        sizes=np.array([[height, width]], dtype=np.int32),
        rows=rows,
        row_ends=ends,
        points=np.zeros((0, 2), np.float32),
        point_ends=np.zeros(12, np.int64),
        ignored=np.zeros((0, 5), np.float32),
        ignored_ends=np.zeros(1, np.int64),
        unlabelled=0,
        duplicates=0,
        problems=(),
    )
    tiled, windows = tiled_index(index, size)
    boxes, objects = index.labels(0).boxes, set()
    for row, corner in enumerate(windows.corners):
        for box in tiled.labels(row).boxes + np.tile(corner[:2], 2):
            assert (box[2:] <= corner[2:] + 1e-3).all() and (box[:2] >= corner[:2] - 1e-3).all()
            inside = np.abs(boxes - box).max(axis=1) < 0.02
            objects.update(np.flatnonzero(inside).tolist())
    assert objects == set(range(12))
    assert LEAST_VISIBLE < 1


def test_training_batches_of_windows_come_from_one_mapped_file(tmp_path: Path) -> None:
    tiled = TiledDataset(cached_dataset(one_image(tmp_path), "disk"), 100)
    assert is_mapped(tiled.source_image(0))
    hyp = Hyperparameters(mosaic=0.0, scale=0.0, translate=0.0, fliplr=0.0, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0)
    loader = training_loader(tiled, 100, hyp, 0, LoaderSettings(6))
    loader.set_epoch(0)
    (batch,) = loader
    for place, row in enumerate(batch.indices):
        own = batch.boxes[batch.image_index == place].numpy()
        np.testing.assert_allclose(own, tiled.source_labels(row).boxes, atol=1e-3)
        assert np.array_equal(batch.images[place].permute(1, 2, 0).numpy(), tiled.source_image(row))

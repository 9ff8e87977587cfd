"""Images that look the same are found however they were stored, others are not; files that do not open are named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.dataset.images import NAMES, write_image, write_labels
from utils.dataset.demo_scenes import draw_scene
from utils.dataset.detection_dataset import open_dataset
from utils.dataset.image_checks import (
    HASH_SIDE,
    NEAR,
    alike,
    check_images,
    difference_hash,
    labels_without_images,
)
from utils.dataset.label_index import LabelIndex


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [draw_scene(np.random.default_rng(seed), (160, 224))[0] for seed in range(8)]


def index_of(folder: Path) -> LabelIndex:
    return open_dataset((folder,), NAMES, cache_folder=folder.parent).index


def test_an_image_stored_in_another_way_is_the_same(scenes: list[np.ndarray]) -> None:
    for image in scenes:
        kept = difference_hash(image)
        small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        coded = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
        assert coded is not None
        brighter = (image.astype(np.float32) * 0.9 + 20).astype(np.uint8)
        for changed in (small, coded, brighter):
            assert (difference_hash(changed) != kept).sum() <= NEAR


def test_different_images_are_far_apart(scenes: list[np.ndarray]) -> None:
    hashes = [difference_hash(image) for image in scenes]
    distances = [int((a != b).sum()) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 3 * NEAR
    assert HASH_SIDE**2 == 256


def test_pairs_by_hand(tmp_path: Path, scenes: list[np.ndarray]) -> None:
    for place, image in enumerate(scenes[:4]):
        write_image(tmp_path / "images" / f"{place}.png", image)
    write_image(tmp_path / "images" / "4.jpg", scenes[2])  # the third again
    (tmp_path / "images" / "5.png").write_bytes((tmp_path / "images" / "1.png").read_bytes())
    for name in ("6", "7"):  # black frames look like any other, and are told apart by their bytes only
        write_image(tmp_path / "images" / f"{name}.png", np.zeros((100 + int(name), 100, 3), np.uint8))
    checks = check_images(index_of(tmp_path / "images"))
    assert checks.copies() == [[1, 5]]
    assert [(pair.first, pair.second) for pair in alike(checks)] == [(1, 5), (2, 4)]
    write_image(tmp_path / "other" / "a.jpg", scenes[3])
    write_image(tmp_path / "other" / "b.jpg", scenes[7])
    other = check_images(index_of(tmp_path / "other"))
    assert [(pair.first, pair.second) for pair in alike(checks, other)] == [(3, 0)]


def test_a_file_that_goes_bad_is_named(tmp_path: Path, scenes: list[np.ndarray]) -> None:
    for place, image in enumerate(scenes[:3]):
        write_image(tmp_path / "images" / f"{place}.png", image)
    index = index_of(tmp_path / "images")
    (tmp_path / "images" / "1.png").write_bytes(b"no image")
    (tmp_path / "images" / "2.png").unlink()
    checks = check_images(index)
    assert [(Path(p.file).name, p.text) for p in checks.problems] == [
        ("1.png", "not an image that can be read"),
        ("2.png", "cannot be read: No such file or directory"),
    ]
    assert checks.readable.tolist() == [True, False, False]
    assert alike(checks) == []


def test_labels_without_images(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", np.zeros((20, 20, 3), np.uint8))
    write_image(tmp_path / "images" / "unlisted.png", np.zeros((20, 20, 3), np.uint8))
    for name in ("a", "unlisted", "lost"):
        write_labels(tmp_path / "labels" / f"{name}.txt", "0 0.5 0.5 0.5 0.5")
    (tmp_path / "list.txt").write_text("images/a.png\n")
    index = open_dataset((tmp_path / "list.txt",), NAMES, cache_folder=tmp_path).index
    assert labels_without_images(index, [tmp_path / "labels" / "a.txt"]) == [tmp_path / "labels" / "lost.txt"]

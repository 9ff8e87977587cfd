"""Label rows, COCO results and crops of detections worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.small_cases import detections_of
from utils.geometry.letterbox import FrameSize
from utils.reporting.detection_files import (
    CropFiles,
    coco_results,
    crop_windows,
    label_rows,
    write_coco_results,
    write_image,
    write_label_file,
)

SIZE = FrameSize(height=100, width=200)
# From (20, 10) to (60, 40): centre (40, 25), sides 40 x 30; as parts 0.2 0.25 0.2 0.3.
ONE = detections_of((2, 0.75, 20, 10, 60, 40), size=SIZE)


def test_label_rows_are_parts_of_width_and_height() -> None:
    assert label_rows(ONE, with_scores=False) == ["2 0.2 0.25 0.2 0.3"]
    assert label_rows(ONE, with_scores=True) == ["2 0.2 0.25 0.2 0.3 0.75"]
    assert label_rows(ONE, with_scores=True, corners=True) == ["2 0.1 0.1 0.3 0.4 0.75"]
    assert label_rows(detections_of(size=SIZE), with_scores=True) == []


sides = st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)).map(sorted)


@given(x=sides, y=sides, width=st.integers(1, 8000), height=st.integers(1, 8000), kind=st.integers(0, 900))
def test_a_label_row_gives_its_box_back_to_six_digits(
    x: list[float], y: list[float], width: int, height: int, kind: int
) -> None:
    box = (x[0] * width, y[0] * height, x[1] * width, y[1] * height)
    found = detections_of((kind, 0.5, *box), size=FrameSize(height, width))
    (row,) = label_rows(found, with_scores=False)
    name, cx, cy, w, h = row.split()
    read = np.array(
        [float(cx) - float(w) / 2, float(cy) - float(h) / 2, float(cx) + float(w) / 2, float(cy) + float(h) / 2]
    )
    assert int(name) == kind
    np.testing.assert_allclose(read * (width, height, width, height), box, atol=3e-6 * max(width, height))


def test_an_image_without_detections_has_no_label_file(tmp_path: Path) -> None:
    write_label_file(tmp_path / "none.txt", detections_of(size=SIZE), with_scores=True)
    write_label_file(tmp_path / "one.txt", ONE, with_scores=False)
    assert [path.name for path in tmp_path.iterdir()] == ["one.txt"]
    assert (tmp_path / "one.txt").read_text() == "2 0.2 0.25 0.2 0.3\n"


def test_coco_results_are_corner_and_sides(tmp_path: Path) -> None:
    found = detections_of((1, 0.1234567, 1.23456, 2, 11.5, 22.25), (0, 0.1, 0, 0, 1, 1), size=SIZE)
    entries = coco_results(found, 17)
    assert entries == [
        {"image_id": 17, "category_id": 1, "bbox": [1.235, 2.0, 10.265, 20.25], "score": 0.12346},
        {"image_id": 17, "category_id": 0, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.1},
    ]
    assert [entry["category_id"] for entry in coco_results(found, "a", category_ids=(44, 62))] == [62, 44]
    write_coco_results(tmp_path / "a.json", entries)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == entries and " " not in text


def test_a_crop_is_a_fiftieth_and_ten_pixels_larger() -> None:
    # Half of 40 x 1.02 + 10 is 25.4, half of 30 x 1.02 + 10 is 20.3, around (40, 25): 14.6 to 65.4 and 4.7 to 45.3.
    image = np.zeros((*SIZE, 3), np.uint8)
    assert crop_windows(image, ONE) == [(14, 4, 65, 45)]
    corner = detections_of((0, 0.5, 190, 0, 200, 100), (0, 0.5, 300, 300, 310, 310), size=SIZE)
    first, outside = crop_windows(image, corner)
    assert first == (184, 0, 200, 100)  # 195 - 10.1 rounded down; the rest ends at the image's borders
    assert outside[0] >= outside[2] or outside[1] >= outside[3]


def test_crops_lie_by_class_and_never_replace_each_other(tmp_path: Path) -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:, :100], image[:, 100:] = (250, 0, 0), (0, 0, 250)
    found = detections_of(
        (0, 0.9, 20, 10, 60, 40), (0, 0.8, 140, 10, 160, 40), (1, 0.7, 20, 10, 60, 40), (1, 0.6, 300, 300, 310, 310),
        size=SIZE,
    )  # fmt: skip
    crops = CropFiles(tmp_path)
    crops.write(image, found, ("cat", "a/b: c"), "v")
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    assert written == ["a_b_ c/v.jpg", "cat/v.jpg", "cat/v2.jpg"]
    before = {name: (tmp_path / name).read_bytes() for name in written}
    red, blue = (np.asarray(cv2.imread(str(tmp_path / "cat" / name))) for name in ("v.jpg", "v2.jpg"))
    assert red.shape == (41, 51, 3)
    assert red.mean(axis=(0, 1)).argmax() == 2 and blue.mean(axis=(0, 1)).argmax() == 0  # BGR as OpenCV reads
    for later in (crops, CropFiles(tmp_path)):  # a later frame of the run, and a later run in the folder
        later.write(image, found, ("cat", "x"), "v")
    assert {name: (tmp_path / name).read_bytes() for name in written} == before
    assert sorted(path.name for path in (tmp_path / "cat").iterdir()) == ["v.jpg", *(f"v{k}.jpg" for k in range(2, 7))]


@pytest.mark.parametrize("name", ["..", ".", "/", "...", " "])
def test_a_class_name_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    CropFiles(tmp_path / "crops").write(np.zeros((*SIZE, 3), np.uint8), ONE, ("", "", name), "v")
    (path,) = tmp_path.rglob("v.jpg")
    assert path.resolve().parent.parent == (tmp_path / "crops").resolve()


def test_an_image_is_written_as_rgb_in_the_format_of_its_name(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(np.asarray(cv2.imread(str(tmp_path / "a.png")))[..., ::-1], image)
    write_image(tmp_path / "a.jpg", image)
    assert (tmp_path / "a.jpg").read_bytes()[:2] == b"\xff\xd8"

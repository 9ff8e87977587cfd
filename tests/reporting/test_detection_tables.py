"""Tables of a whole run, written entry by entry."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.evaluation.small_cases import detections_of
from utils.geometry.letterbox import FrameSize
from utils.reporting.detection_output import CocoDataset, CocoResultsTable, CsvTable, JsonArray

SIZE = FrameSize(height=20, width=30)
TWO = detections_of((1, 0.875, 2, 3, 12, 7), (0, 0.25, 0, 0, 2.5, 2.5), size=SIZE)
NONE = detections_of(size=SIZE)
NAMES = ("cat", 'dog, "big"')


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_array_grows_beside_its_place_and_is_moved_there(tmp_path: Path, count: int) -> None:
    array = JsonArray(tmp_path / "a.json")
    for number in range(count):
        array.append({"n": number, "text": '"],['})
    assert not (tmp_path / "a.json").exists(), "nobody reads half an array"
    array.close()
    assert json.loads((tmp_path / "a.json").read_text()) == [{"n": n, "text": '"],['} for n in range(count)]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_an_older_array_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    array = JsonArray(tmp_path / "a.json")
    array.append({"n": 2})
    assert (tmp_path / "a.json").read_text() == "[1]"
    array.close()
    assert json.loads((tmp_path / "a.json").read_text()) == [{"n": 2}]


def test_csv_rows_are_image_class_and_score(tmp_path: Path) -> None:
    table = CsvTable(tmp_path / "p.csv")
    table.write("ä, b.jpg", TWO, NAMES)
    table.write("c.jpg", NONE, NAMES)
    table.close()
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["Image Name", "Prediction", "Confidence"]
    assert rows == [["ä, b.jpg", 'dog, "big"', "0.88"], ["ä, b.jpg", "cat", "0.25"]]


def test_coco_results_of_a_run(tmp_path: Path) -> None:
    table = CocoResultsTable(tmp_path / "r.json")
    table.write(42, TWO)
    table.write("a42", TWO)
    table.write(7, NONE)
    table.close()
    entries = json.loads((tmp_path / "r.json").read_text())
    assert [entry["image_id"] for entry in entries] == [42, 42, "a42", "a42"]
    assert entries[0] == {"image_id": 42, "category_id": 1, "bbox": [2, 3, 10, 4], "score": 0.875}


def test_a_coco_data_set_has_every_image_and_annotations_that_point_at_them(tmp_path: Path) -> None:
    dataset = CocoDataset(tmp_path / "coco.json")
    for title, number, detections in (("x/a.jpg", None, TWO), ("b.jpg", None, NONE), ("v.mp4", 9, TWO)):
        dataset.write(title, number, detections, NAMES)
    dataset.close()
    content = json.loads((tmp_path / "coco.json").read_text())
    assert [(one["id"], one["file_name"], one.get("frame")) for one in content["images"]] == [
        (1, "x/a.jpg", None),
        (2, "b.jpg", None),
        (3, "v.mp4", 9),
    ]
    assert {(one["width"], one["height"]) for one in content["images"]} == {(30, 20)}
    assert content["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": 'dog, "big"'}]
    assert [(one["id"], one["image_id"], one["category_id"], one["area"]) for one in content["annotations"]] == [
        (1, 1, 1, 40.0),
        (2, 1, 0, 6.25),
        (3, 3, 1, 40.0),
        (4, 3, 0, 6.25),
    ]
    assert content["annotations"][0]["bbox"] == [2, 3, 10, 4] and content["annotations"][0]["iscrowd"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["coco.json"], "the parts are taken away"


def test_a_coco_data_set_of_no_image_is_valid(tmp_path: Path) -> None:
    CocoDataset(tmp_path / "coco.json").close()
    assert json.loads((tmp_path / "coco.json").read_text()) == {"images": [], "annotations": [], "categories": []}

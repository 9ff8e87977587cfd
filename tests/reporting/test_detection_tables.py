"""Tables of a whole run, written entry by entry."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.small_cases import detections_of
from utils.geometry.letterbox import FrameSize
from utils.inference.frames import Frame, VideoFacts
from utils.reporting.detection_tables import CocoDataset, CocoResultsTable, CsvTable, JsonArray

SIZE = FrameSize(height=20, width=30)
TWO = detections_of((1, 0.875, 2, 3, 12, 7), (0, 0.25, 0, 0, 2.5, 2.5), size=SIZE)
NONE = detections_of(size=SIZE)
NAMES = ("cat", 'dog, "big"')


def frame(name: str, index: int = 0, video: VideoFacts | None = None) -> Frame:
    return Frame(np.zeros((*SIZE, 3), np.uint8), Path("somewhere") / name, index, video)


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
    for found in (frame("ä, b.jpg"), frame("c.jpg")):
        table.write(found, TWO if found.path.name != "c.jpg" else NONE, NAMES)
    table.close()
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["Image Name", "Prediction", "Confidence"]
    assert [row[1:] for row in rows] == [['dog, "big"', "0.88"], ["cat", "0.25"]]
    assert all(row[0].endswith("ä, b.jpg") for row in rows)


def test_coco_results_count_images_by_the_number_in_their_name(tmp_path: Path) -> None:
    table = CocoResultsTable(tmp_path / "r.json")
    table.write("000042", TWO)
    table.write("a42", TWO)
    table.write("7", NONE)
    table.close()
    entries = json.loads((tmp_path / "r.json").read_text())
    assert [entry["image_id"] for entry in entries] == [42, 42, "a42", "a42"]
    assert entries[0] == {"image_id": 42, "category_id": 1, "bbox": [2, 3, 10, 4], "score": 0.875}


def test_a_coco_data_set_has_every_image_and_annotations_that_point_at_them(tmp_path: Path) -> None:
    dataset = CocoDataset(tmp_path / "coco.json")
    video = VideoFacts(25.0, 10)
    for found, detections in ((frame("a.jpg"), TWO), (frame("b.jpg"), NONE), (frame("v.mp4", 9, video), TWO)):
        dataset.write(found, detections, NAMES)
    dataset.close()
    content = json.loads((tmp_path / "coco.json").read_text())
    assert [(one["id"], Path(one["file_name"]).name, one.get("frame")) for one in content["images"]] == [
        (1, "a.jpg", None),
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

"""Which files a run of detect.py writes, by its flags and by what the frames come from, and what its tables hold."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.evaluation.small_cases import detections_of
from utils.config.detect_flags import DetectConfig
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections
from utils.inference.frames import Frame, VideoFacts
from utils.reporting.detection_output import (
    CocoDataset,
    CocoResultsTable,
    CsvTable,
    DetectionOutput,
    FoundInFrame,
    JsonArray,
    drawing_style,
)
from utils.user_error import UserError

SIZE = FrameSize(height=48, width=64)
ONE = detections_of((0, 0.5, 16, 12, 48, 36), size=SIZE)
NONE = detections_of(size=SIZE)
VIDEO = VideoFacts(10.0, 3)

SMALL = FrameSize(height=20, width=30)
TWO = detections_of((1, 0.875, 2, 3, 12, 7), (0, 0.25, 0, 0, 2.5, 2.5), size=SMALL)
NONE_SMALL = detections_of(size=SMALL)
TWO_NAMES = ("cat", 'dog, "big"')


def image(name: str, size: FrameSize = SIZE) -> Frame:
    return Frame(np.full((*size, 3), 128, np.uint8), Path(name), 0, None)


def video_frame(name: str, index: int, size: FrameSize = SIZE) -> Frame:
    return Frame(np.full((*size, 3), 128, np.uint8), Path(name), index, VIDEO)


def written(folder: Path, found: Iterable[tuple[Frame, Detections]], **flags: Any) -> list[str]:
    """Write to ``folder`` what was found; the files below it."""
    with DetectionOutput(folder, DetectConfig(**flags), {}) as output:
        for frame, detections in found:
            output.write(FoundInFrame(frame, detections, ("cat",)))
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("flags", "files"),
    [
        ({}, ["a.png"]),
        ({"nosave": True}, []),
        ({"save_txt": True}, ["a.png", "labels/a.txt"]),
        ({"nosave": True, "save_csv": True}, ["predictions.csv"]),
        ({"nosave": True, "save_json": True}, ["predictions.json"]),
        ({"nosave": True, "save_coco": True}, ["coco.json"]),
        ({"nosave": True, "save_crop": True}, ["crops/cat/a.jpg"]),
    ],
)
def test_each_flag_has_its_files(tmp_path: Path, flags: dict[str, bool], files: list[str]) -> None:
    assert written(tmp_path, [(image("x/a.png"), ONE)], **flags) == files


def test_rows_of_label_files_follow_the_flags(tmp_path: Path) -> None:
    for name, flags in (("plain", {}), ("scores", {"save_conf": True}), ("corners", {"save_format": 1})):
        (tmp_path / name).mkdir()
        written(tmp_path / name, [(image("a.png"), ONE)], save_txt=True, nosave=True, **flags)
    rows = {path.parent.parent.name: path.read_text().strip() for path in tmp_path.rglob("a.txt")}
    # From (16, 12) to (48, 36) of 64 x 48: the middle half of both sides.
    assert rows == {"plain": "0 0.5 0.5 0.5 0.5", "scores": "0 0.5 0.5 0.5 0.5 0.5", "corners": "0 0.25 0.25 0.75 0.75"}


def test_every_image_is_written_but_label_files_only_where_something_was_found(tmp_path: Path) -> None:
    files = written(tmp_path, [(image("a.png"), ONE), (image("b.bmp"), NONE)], save_txt=True)
    assert files == ["a.png", "b.bmp", "labels/a.txt"]
    assert (np.asarray(cv2.imread(str(tmp_path / "b.bmp"))) == 128).all()
    assert (np.asarray(cv2.imread(str(tmp_path / "a.png"))) != 128).any()


def test_a_format_that_cannot_be_written_becomes_jpeg(tmp_path: Path) -> None:
    assert written(tmp_path, [(image("a.heic"), ONE), (image("b.PNG"), ONE)]) == ["a.jpg", "b.PNG"]


def test_frames_of_a_video_are_numbered_in_labels_and_results(tmp_path: Path) -> None:
    found = [(video_frame("x/v.mp4", index), ONE) for index in (0, 3, 6)]
    files = written(tmp_path, found, save_txt=True, save_json=True, nosave=True)
    assert files == [*(f"labels/v_{index}.txt" for index in (0, 3, 6)), "predictions.json"]
    entries = json.loads((tmp_path / "predictions.json").read_text())
    assert [entry["image_id"] for entry in entries] == ["v_0", "v_3", "v_6"]


def frames_of(path: Path) -> tuple[int, tuple[int, int]]:
    """How many frames the video holds, and their height and width."""
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.grab():
        count += 1
    size = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    capture.release()
    return count, size


def test_a_video_whose_size_changes_goes_on_in_a_further_file(tmp_path: Path) -> None:
    large = FrameSize(height=64, width=96)
    none_there = detections_of(size=large)
    found = [(video_frame("v.mp4", index), NONE) for index in range(3)]
    found += [(video_frame("v.mp4", index, large), none_there) for index in range(3, 5)]
    assert written(tmp_path, found) == ["v.mp4", "v_part2.mp4"]
    assert frames_of(tmp_path / "v.mp4") == (3, (48, 64))
    assert frames_of(tmp_path / "v_part2.mp4") == (2, (64, 96))


def test_a_video_that_is_listed_twice_is_written_twice(tmp_path: Path) -> None:
    assert written(tmp_path, [(video_frame("v.mp4", index), NONE) for index in (0, 1, 2) * 2]) == [
        "v.mp4",
        "v_part2.mp4",
    ]
    assert frames_of(tmp_path / "v.mp4") == frames_of(tmp_path / "v_part2.mp4") == (3, (48, 64))


def test_two_sources_of_one_name_have_two_files(tmp_path: Path) -> None:
    files = written(tmp_path, [(image("x/a.png"), ONE), (image("y/a.png"), ONE)], save_txt=True)
    assert len(files) == 4 and sum(name.startswith("labels/") for name in files) == 2


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("in the way")
    with pytest.raises(UserError, match=r"labels.*cannot be written"):
        written(tmp_path, [(image("a.png"), ONE)], save_txt=True)


def test_what_is_drawn_beside_the_boxes() -> None:
    photo = image("a.png")
    style = drawing_style(DetectConfig(line_thickness=5, hide_labels=True), photo)
    assert (style.line_width, style.tags, style.scores, style.steady) == (5, "none", True, False)
    style = drawing_style(DetectConfig(hide_conf=True), replace(photo, video=VIDEO))
    assert (style.line_width, style.tags, style.scores, style.steady) == (None, "auto", False, True)
    assert drawing_style(DetectConfig(tags="all"), photo).tags == "all"


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
    table.write("ä, b.jpg", TWO, TWO_NAMES)
    table.write("c.jpg", NONE_SMALL, TWO_NAMES)
    table.close()
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["Image Name", "Prediction", "Confidence"]
    assert rows == [["ä, b.jpg", 'dog, "big"', "0.88"], ["ä, b.jpg", "cat", "0.25"]]


def test_coco_results_of_a_run(tmp_path: Path) -> None:
    table = CocoResultsTable(tmp_path / "r.json")
    table.write(42, TWO)
    table.write("a42", TWO)
    table.write(7, NONE_SMALL)
    table.close()
    entries = json.loads((tmp_path / "r.json").read_text())
    assert [entry["image_id"] for entry in entries] == [42, 42, "a42", "a42"]
    assert entries[0] == {"image_id": 42, "category_id": 1, "bbox": [2, 3, 10, 4], "score": 0.875}


def test_a_coco_data_set_has_every_image_and_annotations_that_point_at_them(tmp_path: Path) -> None:
    dataset = CocoDataset(tmp_path / "coco.json")
    for title, number, detections in (("x/a.jpg", None, TWO), ("b.jpg", None, NONE_SMALL), ("v.mp4", 9, TWO)):
        dataset.write(title, number, detections, TWO_NAMES)
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

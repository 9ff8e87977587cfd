"""Which files a run of detect.py writes, by its flags and by what the frames come from."""

from __future__ import annotations

import json
from collections.abc import Iterable
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
from utils.reporting.detection_output import DetectionOutput, FoundInFrame, drawing_style
from utils.user_error import UserError

SIZE = FrameSize(height=48, width=64)
ONE = detections_of((0, 0.5, 16, 12, 48, 36), size=SIZE)
NONE = detections_of(size=SIZE)
VIDEO = VideoFacts(10.0, 3)


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


def test_two_sources_of_one_name_have_two_files(tmp_path: Path) -> None:
    files = written(tmp_path, [(image("x/a.png"), ONE), (image("y/a.png"), ONE)], save_txt=True)
    assert len(files) == 4 and sum(name.startswith("labels/") for name in files) == 2


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("in the way")
    with pytest.raises(UserError, match=r"labels.*cannot be written"):
        written(tmp_path, [(image("a.png"), ONE)], save_txt=True)


def test_what_is_drawn_beside_the_boxes() -> None:
    style = drawing_style(DetectConfig(line_thickness=5, hide_labels=True))
    assert (style.line_width, style.names, style.scores) == (5, False, True)
    style = drawing_style(DetectConfig(hide_conf=True))
    assert (style.line_width, style.names, style.scores) == (None, True, False)

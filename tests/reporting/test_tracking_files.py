"""What is written and drawn of objects that are followed: ids in every file, MOTChallenge's format, counts."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from tests.evaluation.small_cases import detections_of
from utils.config.detect_flags import DetectConfig
from utils.geometry.letterbox import FrameSize
from utils.inference.counting import BoundaryCounts, CountLine, CountZone, Crossing, Moment, Point
from utils.inference.frames import Frame, VideoFacts
from utils.inference.tracking import TrackedFrame, Trail
from utils.reporting import tracking_files
from utils.reporting.box_drawing import class_color, marked_detections
from utils.reporting.detection_output import FILES_OF_ONE_RUN, DetectionOutput, FoundInFrame
from utils.reporting.run_directory import set_aside_older
from utils.reporting.tracking_files import count_lines, draw_tracks

SIZE = FrameSize(height=48, width=64)
NAMES = ("cat", "$dog$")
LINE = CountLine.parse("0,40,60,40", "line 1")
ZONE = CountZone("gate", (Point(40, 10), Point(60, 10), Point(60, 30)), "")
IDS = torch.tensor([7, 1_234_567])


def followed(index: int, crossings: tuple[Crossing, ...] = (), *, path: str = "v.mp4") -> FoundInFrame:
    frame = Frame(np.full((*SIZE, 3), 128, np.uint8), Path(path), index, VideoFacts(10.0, 3))
    boxes = detections_of((0, 0.5, 16, 12, 48, 36), (1, 0.25, 2, 3, 12, 7.5), size=SIZE)
    detections = replace(boxes, ids=IDS)
    counts = (BoundaryCounts(LINE, Counter()), BoundaryCounts(ZONE, Counter({(0, "in"): 1})))
    trails = (Trail(0, (Point(5, 44), Point(15, 44))),)
    tracked = TrackedFrame(frame.path, Moment(index, index / 10), detections, trails, crossings, counts)
    return FoundInFrame(frame, detections, NAMES, tracked)


def written(folder: Path, *found: FoundInFrame, **flags: Any) -> list[str]:
    with DetectionOutput(folder, DetectConfig(nosave=True, **flags), {}) as output:
        for one in found:
            output.write(one)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_ids_are_in_every_file(tmp_path: Path) -> None:
    written(
        tmp_path, followed(3), track=True, save_txt=True, save_conf=True, save_csv=True, save_json=True, save_coco=True
    )
    assert (tmp_path / "labels" / "v_3.txt").read_text().splitlines() == [
        "0 0.5 0.5 0.5 0.5 0.5 7",
        "1 0.109375 0.109375 0.15625 0.09375 0.25 1234567",
    ]
    assert list(csv.reader((tmp_path / "predictions.csv").open())) == [
        ["Image Name", "Prediction", "Confidence", "Frame", "Track ID"],
        ["v.mp4", "cat", "0.50", "3", "7"],
        ["v.mp4", "$dog$", "0.25", "3", "1234567"],
    ]
    for entries in (
        json.loads((tmp_path / "predictions.json").read_text()),
        json.loads((tmp_path / "coco.json").read_text())["annotations"],
    ):
        assert [entry["track_id"] for entry in entries] == IDS.tolist()


def test_without_scores_the_id_follows_the_box(tmp_path: Path) -> None:
    written(tmp_path, followed(0), track=True, save_txt=True)
    assert (tmp_path / "labels" / "v_0.txt").read_text().splitlines()[0] == "0 0.5 0.5 0.5 0.5 7"


def test_tags_name_the_id() -> None:
    detections = followed(0).detections
    assert marked_detections(detections, NAMES).captions == ["cat #7 0.50", "$dog$ #1234567 0.25"]
    assert marked_detections(detections, NAMES, scores=False).captions[0] == "cat #7"


def test_mot_rows(tmp_path: Path) -> None:
    files = written(tmp_path, followed(0), followed(5), followed(0, path="other/w.mp4"), save_mot=True)
    assert files == ["mot/v.txt", "mot/w.txt"]
    assert (tmp_path / "mot" / "v.txt").read_text().splitlines() == [
        f"{frame},{row}"
        for frame in (1, 6)
        for row in ("7,16.00,12.00,32.00,24.00,0.5000,1,-1,-1", "1234567,2.00,3.00,10.00,4.50,0.2500,2,-1,-1")
    ]


def test_a_video_that_is_begun_anew_has_a_further_mot_file(tmp_path: Path) -> None:
    found = [followed(number, path=path) for path in ("v.mp4", "w.mp4", "v.mp4") for number in (0, 1)]
    assert written(tmp_path, *found, save_mot=True) == ["mot/v.txt", "mot/v_part2.txt", "mot/w.txt"]
    first, second, _ = (np.loadtxt(path, delimiter=",") for path in sorted((tmp_path / "mot").iterdir()))
    np.testing.assert_array_equal(first, second)
    assert len({(frame, number) for frame, number, *_ in first.tolist()}) == len(first) == 4


def test_crossings_and_their_sums(tmp_path: Path) -> None:
    first = Crossing("gate", "in", 7, 0, Moment(0, 0.0))
    more = (Crossing("gate", "out", 7, 0, Moment(4, 0.4)), Crossing("gate", "in", 1_234_567, 1, Moment(5, 0.5)))
    found = (followed(0), followed(1, (first,)), followed(6, more), followed(0, path="w.mp4"))
    files = written(tmp_path, *found, count_line=("0,40,60,40",), count_zone="zones.json")
    assert files == ["counts.csv", "crossings.csv", "v_counts.png", "w_counts.png"]
    assert (tmp_path / "crossings.csv").read_text().splitlines() == [
        "video,frame,seconds,boundary,id,class,direction",
        "v.mp4,0,0.000,gate,7,cat,in",
        "v.mp4,4,0.400,gate,7,cat,out",
        "v.mp4,5,0.500,gate,1234567,$dog$,in",
    ]
    assert (tmp_path / "counts.csv").read_text().splitlines() == [
        "video,boundary,class,in,out",
        "v.mp4,line 1,,0,0",
        "v.mp4,gate,cat,1,1",
        "v.mp4,gate,$dog$,1,0",
        "w.mp4,line 1,,0,0",
        "w.mp4,gate,,0,0",
    ]
    plots = [np.asarray(cv2.imread(str(tmp_path / name))) for name in ("v_counts.png", "w_counts.png")]
    assert plots[0].shape == plots[1].shape == (720, 960, 3)
    assert (plots[0] != plots[1]).any()


def test_a_plot_has_room_for_the_boundaries_crossed_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert 360 * tracking_files.MOST_PANELS < 2**16, "more pixels than an image of matplotlib may have"
    monkeypatch.setattr(tracking_files, "MOST_PANELS", 3)
    gates = [CountZone(f"gate {number}", ZONE.points, "") for number in range(9)]
    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda _, text, **style: titles.append(text))
    crossings = tuple(Crossing(f"gate {number}", "in", 7, 0, Moment(0, 0.0)) for number in (6, 8))
    found = followed(0, crossings)
    assert found.tracked is not None
    counts = tuple(BoundaryCounts(gate, Counter()) for gate in gates)
    written(tmp_path, replace(found, tracked=replace(found.tracked, counts=counts)), count_zone="zones.json")
    assert titles == ["gate 0", "gate 6", "gate 8"]
    assert np.asarray(cv2.imread(str(tmp_path / "v_counts.png"))).shape == (3 * 360, 960, 3)
    assert len((tmp_path / "counts.csv").read_text().splitlines()) == 10
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'v_counts.png'}: has the 3 lines and zones crossed most; counts.csv has all"
    ]


def test_without_a_rate_there_are_no_seconds(tmp_path: Path) -> None:
    one = followed(0, (Crossing("gate", "in", 7, 0, Moment(3, None)),))
    written(tmp_path, one, count_zone="zones.json")
    assert (tmp_path / "crossings.csv").read_text().splitlines()[1] == "v.mp4,3,,gate,7,cat,in"


def test_trails_lines_and_counts_are_drawn() -> None:
    tracked = followed(0).tracked
    assert tracked is not None
    line = CountLine.parse("10,200,310,200", "line 1")
    image = np.full((240, 320, 3), 128, np.uint8)
    drawn = draw_tracks(image, replace(tracked, counts=(BoundaryCounts(line, Counter()),)))
    assert (image == 128).all()
    assert np.abs(drawn[44, 10].astype(int) - class_color(0)).max() < 40  # smoothed
    assert (drawn[200, 250] == 255).all()  # the line
    assert (drawn[205, 160] == 255).all()  # its arrow, down, where in is
    assert (drawn[195, 160] == 128).all()
    assert (drawn[210, 20] != 128).any()  # its counts
    assert (drawn[100] == 128).all()


def test_the_last_lines_of_the_log() -> None:
    counts = [BoundaryCounts(LINE, Counter({(0, "in"): 2, (1, "in"): 3})), BoundaryCounts(ZONE, Counter())]
    assert count_lines(counts, NAMES) == ["line 1: in 5 (3 $dog$, 2 cat), out 0", "gate: in 0, out 0"]


@pytest.mark.parametrize("flags", [{"save_mot": True}, {"count_line": ("0,0,1,1",)}, {"count_zone": "z.json"}])
def test_flags_that_need_ids_follow(flags: dict[str, Any]) -> None:
    assert DetectConfig(**flags).follows
    assert not DetectConfig().follows


def test_counts_of_an_earlier_run_are_set_aside(tmp_path: Path) -> None:
    for name in ("counts.csv", "crossings.csv", "gate_counts.png", "gate.mp4"):
        (tmp_path / name).touch()
    set_aside_older(tmp_path, FILES_OF_ONE_RUN)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".older") == ["gate.mp4"]

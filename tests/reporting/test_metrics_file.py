"""Figures as the console and metrics.json show them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reporting.hand_made import COCO, class_report, report_of
from utils.evaluation.area_ranges import WITHOUT_END
from utils.evaluation.coco_average_precision import AreaFigures
from utils.evaluation.evaluation_report import LossFigures
from utils.reporting.evaluation_files import figure_text, format_table, speed_line, write_metrics


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.12345, "0.123"),
        (0.6666, "0.667"),
        (0.001, "0.001"),
        (0.00099, "9.9e-04"),
        (-1.0, "-"),
        (math.nan, "-"),
    ],
)
def test_three_digits_or_a_dash(value: float, text: str) -> None:
    assert figure_text(value) == text


@given(st.floats(0, 1))
def test_a_figure_fits_its_column_and_is_right_to_three_digits(value: float) -> None:
    text = figure_text(value)
    assert len(text) < 8 or 0 < value < 1e-99, "the narrowest column has eight places, the first of them blank"
    assert float(text) == pytest.approx(value, rel=0.06 if 0 < value < 0.001 else 0.005)


def rows(block: str) -> list[list[str]]:
    return [line.split() for line in block.splitlines()]


def test_the_two_blocks_of_a_report() -> None:
    yolov5, coco = format_table(report_of(class_report("cat", 0), class_report("dog", 1, map50=1.0, objects=9))).split(
        "\n\n"
    )
    assert rows(yolov5) == [
        ["Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95"],
        ["all", "5", "21", "0.5", "0.25", "0.375", "0.3"],
        ["cat", "3", "7", "0.9", "0.8", "0.7", "0.6"],
        ["dog", "3", "9", "0.9", "0.8", "1", "0.6"],
    ]
    assert rows(coco)[0] == ["Class", *COCO._fields]
    figures = ["0.5", "0.75", "0.25", "0.125", "0.6", "-", "0.1", "0.2", "0.3", "0.4", "0.5", "-"]
    assert rows(coco)[1:] == [[name, *figures] for name in ("all", "cat", "dog")]
    # Columns stand below each other: right edges at 22 + 11 k and, of the twelve of COCO, at 22 + 8 k.
    for block, width in ((yolov5, 22 + 6 * 11), (coco, 22 + 12 * 8)):
        assert {len(line) for line in block.splitlines()} == {width}


@pytest.mark.parametrize(
    ("count", "verbose", "shown"),
    [(1, False, 0), (1, True, 1), (2, False, 2), (49, False, 49), (50, False, 0), (50, True, 50)],
)
def test_when_classes_are_listed(count: int, verbose: bool, shown: int) -> None:
    report = report_of(*(class_report(f"c{index}", index) for index in range(count)))
    for block in format_table(report, verbose=verbose).split("\n\n"):
        assert len(rows(block)) == 2 + shown  # the header, the whole


def test_a_long_name_widens_its_column() -> None:
    name = "a very long name of a class, indeed"
    yolov5, coco = format_table(report_of(class_report(name, 0)), verbose=True).split("\n\n")
    for block in (yolov5, coco):
        assert len({len(line) for line in block.splitlines()}) == 1
        assert block.splitlines()[2].startswith(f"  {name}")


def test_ranges_of_area_have_a_block_of_their_own() -> None:
    areas = (AreaFigures("tiny", 0, 256, 4, 0.5, 0.25, 0.125), AreaFigures("big", 256, WITHOUT_END, 0, -1, -1, -1))
    _, _, block = format_table(report_of(class_report("cat", 0), by_area=areas)).split("\n\n")
    assert rows(block) == [
        ["Area,", "px^2", "Instances", "AP", "AP50", "AR100"],
        ["tiny", "0-256", "4", "0.5", "0.25", "0.125"],
        ["big", "256-", "0", "-", "-", "-"],
    ]


def test_times_per_image() -> None:
    assert speed_line(report_of()) == "Speed: 1.2 ms pre-process, 20.0 ms inference, 3.5 ms NMS per image"


def test_metrics_json_holds_figures_settings_and_what_comes_beside(tmp_path: Path) -> None:
    report = report_of(class_report("cat", 4), loss=LossFigures(0.1, 0.2, 0.3))
    settings = {"imgsz": 640, "project": Path("runs/val")}  # JSON has no form for a path
    returned = write_metrics(tmp_path / "metrics.json", report, "a.pt", settings, {"errors": [1, 2]})
    read = json.loads((tmp_path / "metrics.json").read_text())
    assert list(read) == list(returned)
    assert read["settings"] == {"imgsz": 640, "project": "runs/val"}
    assert (read["weights"], read["errors"]) == ("a.pt", [1, 2])
    assert [read[key] for key in ("precision", "recall", "map50", "map50_95")] == [0.5, 0.25, 0.375, 0.3]
    assert {key: read[key] for key in COCO._fields} == COCO._asdict()
    assert read["loss"] == {"box": 0.1, "objectness": 0.2, "classification": 0.3}
    assert read["speed_ms"] == {"preprocess": 1.25, "inference": 20.0, "nms": 3.5}
    (cat,) = read["per_class"]
    assert (cat["name"], cat["index"], cat["images"], cat["objects"], cat["AP_L"]) == ("cat", 4, 3, 7, -1)

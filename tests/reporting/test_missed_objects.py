"""Which objects are shown as missed, in which order, and how."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from tests.dataset.images import NAMES, write_image, write_labels
from tests.evaluation.small_cases import detections_of, labels_of
from tests.reporting.hand_made import FIGURES, class_report, report_of
from utils.dataset.detection_dataset import DetectionDataset, open_dataset
from utils.dataset.image_files import ImageReadError
from utils.evaluation.coco_average_precision import findings_from_detections, truth_from_labels
from utils.evaluation.error_analysis import ErrorAnalysis, RecallBySize, analyse_errors
from utils.evaluation.evaluation_report import EvaluatedImage, EvaluationReport, RunFigures, SpeedFigures, report_on
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections
from utils.reporting import missed_objects
from utils.reporting.box_drawing import Stroke
from utils.reporting.labelled_images import MISSED, RIGHT, VERDICT_STROKES
from utils.reporting.missed_objects import CELL, COLUMNS, write_found_alone, write_missed_objects

SIZE = FrameSize(600, 600)  # of the grey images
WHITE = 255
Row = tuple[float, float, float, float, float, float]  # of detections_of


@pytest.fixture
def images(tmp_path: Path) -> DetectionDataset:
    """One image of 200 x 200: three small objects of 10, 10 and 20 pixels and a medium one of 60."""
    write_image(tmp_path / "images" / "a.png", np.full((200, 200, 3), 90, dtype=np.uint8))
    write_labels(
        tmp_path / "labels" / "a.txt",
        "0 0.1 0.1 0.05 0.05",
        "0 0.3 0.1 0.05 0.05",
        "1 0.6 0.1 0.1 0.1",
        "2 0.5 0.6 0.3 0.3",
    )
    return open_dataset((tmp_path / "images",), NAMES, cache_folder=tmp_path)


def evaluated(images: DetectionDataset, found: Detections) -> EvaluationReport:
    run = RunFigures(None, SpeedFigures(0.0, 0.0, 0.0))
    return report_on([EvaluatedImage(0, images.source_labels(0), found)], NAMES, None, (), run)


def test_one_row_for_each_range_with_missed_objects(
    tmp_path: Path, images: DetectionDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first 10 px object is found; of the second a half; nothing near the others.
    size = images.source_labels(0).size
    report = evaluated(images, detections_of([0, 0.9, 15, 15, 25, 25], [0, 0.2, 60, 15, 70, 25], size=size))
    analysis = analyse_errors(report.coco_figures)
    assert analysis is not None
    captions, sizes = [], []

    def captioned(cut: np.ndarray, frames: list[tuple[np.ndarray, Stroke]], caption: str) -> np.ndarray:
        captions.append(caption)
        sizes.append(frames[-1][0][2] - frames[-1][0][0])
        assert [stroke for _, stroke in frames] == [VERDICT_STROKES[RIGHT], VERDICT_STROKES[MISSED]]
        return cut

    monkeypatch.setattr(missed_objects, "captioned_cut", captioned)
    write_missed_objects(tmp_path / "missed.png", images, report, analysis)
    # Cuts of 61 (three times a little more than 20), 48 and 180 pixels, enlarged to 180.
    assert captions == ["disc, 20 px", "square, 10 px", "bar, 60 px"]
    assert sizes == [pytest.approx(side, abs=0.7) for side in (59, 37.5, 60)]
    sheet = cv2.imread(str(tmp_path / "missed.png"))
    assert sheet is not None and sheet.shape == (2 * CELL + 24, COLUMNS * CELL, 3)  # a legend
    assert (sheet[:CELL, 2 * CELL :] == 255).all() and (sheet[CELL : 2 * CELL, CELL:] == 255).all()


def test_nothing_missed_nothing_written(tmp_path: Path, images: DetectionDataset) -> None:
    labels = images.source_labels(0)
    rows = [[kind, 0.9, *box] for kind, box in zip(labels.classes.tolist(), labels.boxes.tolist(), strict=True)]
    report = evaluated(images, detections_of(*rows, size=labels.size))
    analysis = analyse_errors(report.coco_figures)
    assert analysis is not None
    write_missed_objects(tmp_path / "missed.png", images, report, analysis)
    assert not (tmp_path / "missed.png").exists()


class GreyImages:
    """Image i has the grey 20 + 10 i everywhere."""

    def __init__(self, broken: frozenset[int] = frozenset()) -> None:
        self.broken = broken

    def source_image(self, index: int) -> np.ndarray:
        if index in self.broken:
            raise ImageReadError("gone")
        return np.full((*SIZE, 3), 20 + 10 * index, np.uint8)


def sheet(
    folder: Path,
    objects: list[tuple[float, float, float, float]],
    found: dict[int, list[Row]] | None = None,
    missed: list[int] | None = None,
    broken: frozenset[int] = frozenset(),
) -> list[list[int]]:
    """The numbers of the images shown, row by row, of one object each of class 0; -1 for an empty cell."""
    found = found or {}
    truth = truth_from_labels([labels_of((0, *box), size=SIZE) for box in objects])
    findings = findings_from_detections([detections_of(*found.get(i, []), size=SIZE) for i in range(len(objects))])
    figures = replace(FIGURES, truth=truth, findings=findings)
    report = report_of(class_report("cat", 0), class_report("dog", 1), coco_figures=figures)
    none = np.zeros(1, int)
    chosen = np.array(range(len(objects)) if missed is None else missed, dtype=int)
    analysis = ErrorAnalysis((), RecallBySize(np.array([0.0, 4.0]), none, none, none), chosen)
    path = folder / "missed.png"
    write_missed_objects(path, cast(DetectionDataset, GreyImages(broken)), report, analysis)
    if not path.exists():
        return []
    image: Any = cv2.imread(str(path))
    image = image[: image.shape[0] // CELL * CELL]  # without the legend
    greys = image[CELL // 8 :: CELL, CELL // 2 :: CELL, 0]  # above the object, off frames and title
    return [[-1 if grey == WHITE else (int(grey) - 20) // 10 for grey in row] for row in greys]


def square(side: float) -> tuple[float, float, float, float]:
    return (300 - side / 2, 300 - side / 2, 300 + side / 2, 300 + side / 2)


def test_rows_are_small_medium_and_large_and_of_equals_the_largest_is_first(tmp_path: Path) -> None:
    # Areas on a border (32 and 96) belong to the smaller range.
    rows = sheet(tmp_path, [square(side) for side in (10, 33, 32, 100, 96, 20)])
    empty = [-1] * COLUMNS
    assert rows == [[2, 5, 0, *empty[3:]], [4, 1, *empty[2:]], [3, *empty[1:]]]


def test_an_object_that_nothing_comes_near_is_worse_than_one_almost_found(tmp_path: Path) -> None:
    x1, y1, x2, y2 = square(20)
    found: dict[int, list[Row]] = {
        0: [(0, 0.1, x1 + 4, y1, x2 + 4, y2)],  # IoU 16 / 24 = 0.67
        1: [(1, 0.1, x1, y1, x2, y2)],  # of another class: nothing
        2: [(0, 0.9, x1 + 10, y1, x2 + 10, y2), (0, 0.1, 0, 0, 20, 20)],  # IoU 10 / 30 = 0.33, and a stranger
    }
    assert sheet(tmp_path, [square(20)] * 3, found) == [[1, 2, 0, *[-1] * (COLUMNS - 3)]]


def test_overlaps_that_round_alike_are_equal(tmp_path: Path) -> None:
    # 6 / 34 = 0.18 and 9 / 39 = 0.23 are both 0.2, so that the larger object is first though more of it was found.
    def shifted(side: float, by: float) -> Row:
        x1, y1, x2, y2 = square(side)
        return (0, 0.1, x1 + by, y1, x2 + by, y2)

    assert sheet(tmp_path, [square(20), square(24)], {0: [shifted(20, 14)], 1: [shifted(24, 15)]})[0][:2] == [1, 0]


def test_only_the_missed_and_no_more_than_a_row_of_each(tmp_path: Path) -> None:
    assert sheet(tmp_path, [square(20)] * 4, missed=[1, 3]) == [[1, 3, *[-1] * (COLUMNS - 2)]]
    sides = [10 + k for k in range(COLUMNS + 3)]
    assert sheet(tmp_path, [square(side) for side in sides]) == [[COLUMNS + 2 - k for k in range(COLUMNS)]]


def test_nothing_missed_is_no_file_and_an_image_that_is_gone_an_empty_cell(tmp_path: Path) -> None:
    assert sheet(tmp_path, [square(20)], missed=[]) == []
    assert sheet(tmp_path, [square(20)] * 2, broken=frozenset({0})) == [[-1, 1, *[-1] * (COLUMNS - 2)]]


@pytest.mark.parametrize(
    ("box", "name"), [((0.0, 0.0, 20.0, 20.0), "corner"), ((560.0, 580.0, 600.0, 600.0), "other corner")]
)
def test_a_cut_reaches_over_the_border(tmp_path: Path, box: tuple[float, float, float, float], name: str) -> None:
    sheet(tmp_path, [box])
    image: Any = cv2.imread(str(tmp_path / "missed.png"))
    cell = image[:CELL, :CELL]
    # The object is in the middle: beyond the border of the image lies the grey of letterboxing.
    outside = cell[10, 10] if name == "corner" else cell[CELL - 30, CELL - 10]
    assert outside.tolist() == [114] * 3, name
    assert cell[CELL // 2, CELL // 2].tolist() == [20] * 3


def test_images_in_which_two_models_differ(tmp_path: Path, images: DetectionDataset) -> None:
    labels = images.source_labels(0)
    rows = [[kind, 0.9, *box] for kind, box in zip(labels.classes.tolist(), labels.boxes.tolist(), strict=True)]
    rows[3][1] = 0.2  # found by neither, as not surely
    first, second = (evaluated(images, detections_of(*own, size=labels.size)) for own in (rows[:2], rows[1:]))
    assert write_found_alone(tmp_path / "same", images, first, first) == 0 and not (tmp_path / "same").exists()
    assert write_found_alone(tmp_path / "alone", images, first, second) == 1
    drawn = cv2.imread(str(tmp_path / "alone" / "0.jpg"))
    assert drawn is not None and drawn.shape == (200 + 19, 406, 3)  # and a legend of one row
    touched = np.abs(drawn[:200].astype(int) - 90).max(axis=2) > 40
    left, right = touched[:, :200], touched[:, 206:]
    frames = [(slice(13, 16), slice(15, 26)), (slice(13, 16), slice(55, 66)), (slice(8, 11), slice(110, 131))]
    # Upper edges of the objects: the first is the first model's alone, the second both found, the third the other's.
    assert [bool(left[frame].any()) for frame in frames] == [True, False, False]
    assert [bool(right[frame].any()) for frame in frames] == [False, False, True]
    assert not touched[118:123, 70:130].any()

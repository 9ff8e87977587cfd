"""The page of missed objects: which are shown, in which order, and how."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.dataset.images import NAMES, write_image, write_labels
from tests.evaluation.small_cases import detections_of
from utils.dataset.detection_dataset import DetectionDataset, open_dataset
from utils.evaluation.error_analysis import analyse_errors
from utils.evaluation.evaluation_report import EvaluatedImage, EvaluationReport, RunFigures, SpeedFigures, report_on
from utils.geometry.records import Detections
from utils.reporting import missed_objects
from utils.reporting.missed_objects import CELL, COLUMNS, write_missed_objects


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


def report_of(images: DetectionDataset, found: Detections) -> EvaluationReport:
    run = RunFigures(None, SpeedFigures(0.0, 0.0, 0.0))
    return report_on([EvaluatedImage(0, images.source_labels(0), found)], NAMES, None, (), run)


def test_one_row_for_each_range_with_missed_objects(
    tmp_path: Path, images: DetectionDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first 10 px object is found; of the second a half; nothing near the others.
    size = images.source_labels(0).size
    report = report_of(images, detections_of([0, 0.9, 15, 15, 25, 25], [0, 0.2, 60, 15, 70, 25], size=size))
    analysis = analyse_errors(report.coco_figures)
    assert analysis is not None
    captions, sizes = [], []

    def captioned(cut: np.ndarray, target: np.ndarray, others: object, caption: str) -> np.ndarray:
        captions.append(caption)
        sizes.append(target[2] - target[0])
        return cut

    monkeypatch.setattr(missed_objects, "captioned_cut", captioned)
    write_missed_objects(tmp_path / "missed.png", images, report, analysis)
    # Cuts of 61 (three times a little more than 20), 48 and 180 pixels, enlarged to 180.
    assert captions == ["disc, 20 px", "square, 10 px", "bar, 60 px"]
    assert sizes == [pytest.approx(side, abs=0.7) for side in (59, 37.5, 60)]
    sheet = cv2.imread(str(tmp_path / "missed.png"))
    assert sheet is not None and sheet.shape == (2 * CELL, COLUMNS * CELL, 3)
    assert (sheet[:CELL, 2 * CELL :] == 255).all() and (sheet[CELL:, CELL:] == 255).all()


def test_nothing_missed_nothing_written(tmp_path: Path, images: DetectionDataset) -> None:
    labels = images.source_labels(0)
    rows = [[kind, 0.9, *box] for kind, box in zip(labels.classes.tolist(), labels.boxes.tolist(), strict=True)]
    report = report_of(images, detections_of(*rows, size=labels.size))
    analysis = analyse_errors(report.coco_figures)
    assert analysis is not None
    write_missed_objects(tmp_path / "missed.png", images, report, analysis)
    assert not (tmp_path / "missed.png").exists()

"""Epochs and figures of a classifier, and its images with their classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from utils.evaluation.classification import ClassificationReport
from utils.reporting.classification_files import (
    CAPTION,
    SMALLEST_TILE,
    ClassificationRecord,
    accuracy_table,
    captioned_tiles,
    write_accuracy,
)

# Of four cats three are found and one is taken for a dog; of one dog none; there is no bird.
REPORT = ClassificationReport(
    names=("cat", "dog", "bird"),
    confusion=np.array([[3, 1, 0], [1, 0, 0], [0, 0, 0]]),
    top5_hits=np.array([4, 1, 0]),
    loss=0.75,
    milliseconds=2.5,
)


def test_the_table_has_a_dash_for_a_class_without_images() -> None:
    assert [line.split() for line in accuracy_table(REPORT, verbose=True).splitlines()] == [
        ["Class", "Images", "top1_acc", "top5_acc"],
        ["all", "5", "0.6", "1"],
        ["cat", "4", "0.75", "1"],
        ["dog", "1", "0", "1"],
        ["bird", "0", "-", "-"],
    ]
    assert len(accuracy_table(REPORT, verbose=False).splitlines()) == 2


def test_columns_stand_below_each_other_whatever_the_names() -> None:
    long = ClassificationReport(("a name longer than the usual column",), np.array([[1]]), np.array([1]), 0, 0)
    for report in (REPORT, long):
        assert len({len(line) for line in accuracy_table(report, verbose=True).splitlines()}) == 1


def test_metrics_json(tmp_path: Path) -> None:
    returned = write_accuracy(tmp_path / "m.json", REPORT, Path("a.pt"), {"imgsz": 224, "data": Path("x")})
    read = json.loads((tmp_path / "m.json").read_text())
    assert {key: read[key] for key in ("top1", "top5", "loss", "images", "milliseconds_per_picture", "weights")} == {
        "top1": 0.6,
        "top5": 1.0,
        "loss": 0.75,
        "images": 5,
        "milliseconds_per_picture": 2.5,
        "weights": "a.pt",
    }
    assert read["classes"] == returned["classes"]
    assert read["classes"] == [
        {"name": "cat", "images": 4, "top1": 0.75},
        {"name": "dog", "images": 1, "top1": 0.0},
        {"name": "bird", "images": 0, "top1": None},  # JSON has no NaN
    ]
    assert read["confusion"] == [[3, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert read["settings"] == {"imgsz": 224, "data": "x"}


def test_an_epoch_for_the_console() -> None:
    measured = ClassificationRecord(epoch=2, part="test", train_loss=1.5, val_loss=2.5, top1=0.25, top5=0.5, lr0=0.01)
    assert measured.line() == "epoch 2: loss 1.5000 | test loss 2.5000  top-1 0.2500  top-5 0.5000"
    assert ClassificationRecord(epoch=3, train_loss=1.5, lr0=0.01).line() == "epoch 3: loss 1.5000"


def grey(value: int, side: int) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (4, 2, 2), (5, 2, 3), (7, 3, 3)])
@pytest.mark.parametrize(("side", "drawn"), [(32, 96), (128, 128)])
def test_tiles_fill_a_grid_row_by_row(count: int, rows: int, columns: int, side: int, drawn: int) -> None:
    sheet = captioned_tiles([grey(10 + 20 * k, side) for k in range(count)], [f"c{k}" for k in range(count)])
    assert sheet.shape == (rows * (drawn + 16), columns * drawn, 3)
    for place in range(rows * columns):
        top, left = place // columns * (drawn + 16), place % columns * drawn
        tile, caption = (
            sheet[top : top + drawn, left : left + drawn],
            sheet[top + drawn : top + drawn + 16, left : left + drawn],
        )
        assert (tile == (10 + 20 * place if place < count else 255)).all()
        assert (caption < 100).any() == (place < count)


def test_a_long_caption_stays_under_its_own_image() -> None:
    sheet = captioned_tiles([grey(0, 96)] * 2, ["W" * 200, ""])
    assert (sheet[96:, :96] < 100).any() and (sheet[96:, 96:] == 255).all()


def test_small_images_are_enlarged_and_named() -> None:
    images = [np.full((32, 32, 3), value, dtype=np.uint8) for value in (10, 20, 30)]
    grid = captioned_tiles(images, ["a", "b", ""])
    side, step = SMALLEST_TILE, SMALLEST_TILE + CAPTION
    assert grid.shape == (2 * step, 2 * side, 3)
    cells = (grid[:side, :side], grid[:side, side:], grid[step : step + side, :side])
    assert [np.unique(cell).tolist() for cell in cells] == [[10], [20], [30]]
    assert grid[side:step].min() < 100  # letters
    assert (grid[step + side :] == 255).all() and (grid[step:, side:] == 255).all()  # no caption, no fourth image

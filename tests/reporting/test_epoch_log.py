"""results.csv: YOLOv5's columns, then AP by size."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.training.test_early_stopping import records
from utils.reporting.epoch_log import write_results_csv

YOLOV5_COLUMNS = [
    "epoch",
    *(f"train/{part}_loss" for part in ("box", "obj", "cls")),
    *("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95"),
    *(f"val/{part}_loss" for part in ("box", "obj", "cls")),
    *("x/lr0", "x/lr1", "x/lr2"),
]


def test_columns_and_rows(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_results_csv(path, records(0.25, 1 / 3))
    with path.open() as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    assert rows[0] == [*YOLOV5_COLUMNS, "metrics/AP_S", "metrics/AP_M", "metrics/AP_L"]
    assert len(rows) == 3
    assert rows[2][0] == "1" and rows[2][6] == "0.33333"


def test_the_table_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_results_csv(path, records(0.1, 0.2, 0.3))
    write_results_csv(path, records(0.1, 0.2))
    assert len(path.read_text().splitlines()) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]

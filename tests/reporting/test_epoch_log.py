"""results.csv: YOLOv5's columns, then AP by size; an epoch's figures out of an evaluation, its fitness and its line."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas
import pytest

from tests.reporting.hand_made import class_report, report_of
from tests.training.test_early_stopping import records
from utils.reporting.epoch_log import EpochRecord, epoch_record, moved_figure, write_results_csv
from utils.reporting.watchers import figures
from utils.user_error import UserError

YOLOV5_COLUMNS = [
    "epoch",
    *(f"train/{part}_loss" for part in ("box", "obj", "cls")),
    *("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95"),
    *(f"val/{part}_loss" for part in ("box", "obj", "cls")),
    *("x/lr0", "x/lr1", "x/lr2"),
]

LOSSES, RATES = {"box": 0.5, "objectness": 0.25, "classification": 0.125}, (0.1, 0.01, 0.001)
# Each column has a value of its own, so that no two can change places unseen.
COLUMNS = {
    "epoch": 7,
    "train/box_loss": 0.5,
    "train/obj_loss": 0.25,
    "train/cls_loss": 0.125,
    "metrics/precision": 0.55,
    "metrics/recall": 0.26,
    "metrics/mAP_0.5": 0.375,
    "metrics/mAP_0.5:0.95": 0.3,
    "val/box_loss": 3.0,
    "val/obj_loss": 2.0,
    "val/cls_loss": 1.0,
    "x/lr0": 0.1,
    "x/lr1": 0.01,
    "x/lr2": 0.001,
    "metrics/AP_S": 0.125,
    "metrics/AP_M": 0.6,
    "metrics/AP_L": -1,
}


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


def test_every_figure_comes_into_its_column(tmp_path: Path) -> None:
    report = report_of(
        class_report("cat", 0), loss={"box": 3.0, "objectness": 2.0, "classification": 1.0}, precision=0.55, recall=0.26
    )
    record = epoch_record(7, LOSSES, RATES, report)
    assert record.row() == COLUMNS and list(record.row()) == list(COLUMNS)
    assert record.evaluated
    # A tenth of mAP50 and nine tenths of mAP50-95: 0.0375 + 0.27.
    assert record.fitness == pytest.approx(0.3075)
    write_results_csv(tmp_path / "r.csv", [record])
    with (tmp_path / "r.csv").open() as file:
        header, row = csv.reader(file)
    assert [cell.strip() for cell in header] == list(COLUMNS)
    assert row.pop() == ""  # no large objects
    assert [float(cell) for cell in row] == list(COLUMNS.values())[:-1]
    assert {len(cell) for cell in (*header, *row)} == {20}


def test_an_epoch_that_was_not_evaluated_has_losses_and_rates_only(tmp_path: Path) -> None:
    record = epoch_record(7, LOSSES, RATES, None)
    known = {name: value for name, value in record.row().items() if not math.isnan(value)}
    assert list(known) == [name for name in COLUMNS if name == "epoch" or name.startswith(("train/", "x/"))]
    assert not record.evaluated
    write_results_csv(tmp_path / "r.csv", [record])
    assert (tmp_path / "r.csv").read_text().count("nan") == len(COLUMNS) - len(known)


def test_without_a_loss_in_the_report_only_the_loss_is_missing() -> None:
    row = epoch_record(7, LOSSES, RATES, report_of(class_report("cat", 0))).row()
    assert [name for name, value in row.items() if math.isnan(value)] == [
        f"val/{part}_loss" for part in ("box", "obj", "cls")
    ]


def test_another_fitness_has_its_column(tmp_path: Path) -> None:
    report = report_of(class_report("cat", 0))
    record = epoch_record(7, LOSSES, RATES, report, "0.5*AP_S+0.25*AP_M")
    # 0.5 x 0.125 + 0.25 x 0.6
    assert record.fitness == record.row()["fitness"] == pytest.approx(0.2125)
    assert list(record.row()) == [*COLUMNS, "fitness"]
    unmeasured = epoch_record(8, LOSSES, RATES, None, "0.5*AP_S+0.25*AP_M")
    assert math.isnan(unmeasured.fitness) and not unmeasured.evaluated
    write_results_csv(tmp_path / "r.csv", [replace(unmeasured, epoch=6), record, unmeasured])
    table = pandas.read_csv(tmp_path / "r.csv", skipinitialspace=True)
    assert list(table.columns)[-1] == "fitness" and table["epoch"].tolist() == [6, 7, 8]
    assert table["fitness"].tolist()[1] == 0.2125 and table["fitness"].isna().tolist() == [True, False, True]
    with pytest.raises(UserError, match="--fitness AP_L: the validation images have no object that AP_L counts"):
        epoch_record(7, LOSSES, RATES, report, "AP_L")


def test_the_line_of_an_epoch() -> None:
    losses = "epoch 7: box 0.5000  obj 0.2500  cls 0.1250"
    assert epoch_record(7, LOSSES, RATES, None).line() == losses
    assert epoch_record(7, LOSSES, RATES, report_of(class_report("cat", 0))).line() == (
        f"{losses} | P 0.500  R 0.250  mAP50 0.375  mAP50-95 0.300\n         AP_S 0.125  AP_M 0.600  AP_L -"
    )


def test_a_head_without_anchors_has_its_own_column() -> None:
    losses = {"box": 3.0, "distribution": 2.0, "classification": 1.0}
    record = epoch_record(7, losses, RATES, report_of(class_report("cat", 0), loss=losses))
    row = record.row()
    assert (row["train/box_loss"], row["train/dfl_loss"], row["train/cls_loss"]) == (3.0, 2.0, 1.0)
    assert row["val/dfl_loss"] == 2.0 and "train/obj_loss" not in row and "val/obj_loss" not in row
    assert record.line().startswith("epoch 7: box 3.0000  dfl 2.0000  cls 1.0000")


def test_a_record_comes_back_out_of_a_checkpoint() -> None:
    record = epoch_record(
        7, LOSSES, RATES, report_of(class_report("cat", 0), loss={"box": 3.0, "objectness": 2.0, "classification": 1.0})
    )
    read: Callable[..., EpochRecord] = EpochRecord
    assert read(**record.as_dict()) == record


@pytest.mark.case("Words on the terminal", "no object of a size in the data set", "empty in results.csv")
def test_sizes_without_objects_are_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    first, second = records(0.1, 0.2)
    write_results_csv(path, [first, replace(second, ap_s=0.25, ap_m=-1.0, ap_l=-1.0)])
    unmeasured, measured = path.read_text().splitlines()[1:]
    assert unmeasured.endswith("nan") and measured.endswith("0.25,,")
    assert figures(replace(first, map50=math.nan, ap_s=0.25, ap_m=-1.0)).keys() >= {"metrics/AP_S", "x/lr0"}
    assert not figures(replace(first, ap_m=-1.0)).keys() & {"metrics/AP_M", "metrics/AP_L", "val/box_loss"}
    table = pandas.read_csv(path, skipinitialspace=True)
    assert table["metrics/AP_L"].isna().all() and table["metrics/AP_L"].dtype == float


@pytest.mark.case("Words on the terminal", "the line of an epoch", "100 columns at most, - for sizes without objects")
def test_the_line_of_an_epoch_is_at_most_100_columns_wide() -> None:
    (record,) = records(0.123)
    assert record.line().splitlines()[1].split() == ["AP_S", "nan", "AP_M", "nan", "AP_L", "nan"]
    losses = {"train_box": 12345.678, "train_obj": 99.123456, "train_cls": 0.001}
    wide = replace(record, epoch=9999, precision=1.0, recall=1.0, ap_s=0.5, ap_m=-1.0, ap_l=-1.0, **losses)
    lines = wide.line().splitlines()
    assert max(map(len, lines)) <= 100, lines
    assert lines[0].startswith("epoch 9999: box 1.235e+04  obj 99.12  cls 0.0010 | P 1.000  R 1.000  mAP50 0.123")
    assert lines[1].split() == ["AP_S", "0.500", "AP_M", "-", "AP_L", "-"]
    assert "\n" not in replace(record, map50_95=math.nan).line()


def test_a_figure_that_moved_is_named() -> None:
    (before,) = records(0.5)
    before = replace(before, ap_s=math.nan)
    assert moved_figure(replace(before, train_box=9.0, val_box=9.0, map50_95=0.5009), before) == ""
    assert moved_figure(replace(before, map50_95=0.4985), before) == "mAP_0.5:0.95 is 0.4985 instead of 0.5000"
    assert moved_figure(replace(before, ap_s=0.1), before) == "AP_S is 0.1000 instead of nan"

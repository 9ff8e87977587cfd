"""Finished epochs as rows of ``results.csv``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from utils.config.fitness import YOLOV5_MIX, Fitness
from utils.evaluation.evaluate import EvaluationReport
from utils.runtime.atomic_files import write_text

# Field -> column, in file order: YOLOv5's columns under its names, then AP by object size.
COLUMNS = {
    "epoch": "epoch",
    "train_box": "train/box_loss",
    "train_obj": "train/obj_loss",
    "train_cls": "train/cls_loss",
    "precision": "metrics/precision",
    "recall": "metrics/recall",
    "map50": "metrics/mAP_0.5",
    "map50_95": "metrics/mAP_0.5:0.95",
    "val_box": "val/box_loss",
    "val_obj": "val/obj_loss",
    "val_cls": "val/cls_loss",
    "lr0": "x/lr0",
    "lr1": "x/lr1",
    "lr2": "x/lr2",
    "ap_s": "metrics/AP_S",
    "ap_m": "metrics/AP_M",
    "ap_l": "metrics/AP_L",
}
ANCHOR_FREE_COLUMNS = {
    field.replace("_obj", "_dfl"): column.replace("/obj_", "/dfl_") for field, column in COLUMNS.items()
}
# Parts of the losses -> how they are called here, as in YOLOv5 and YOLOv5u.
PARTS = {"box": "box", "objectness": "obj", "distribution": "dfl", "classification": "cls"}
COLUMN_WIDTH = 20
SAME_FIGURE = 0.001


class FinishedEpoch(Protocol):
    """Figures of one epoch, whatever is learned."""

    @property
    def epoch(self) -> int:
        """From 0."""

    @property
    def evaluated(self) -> bool: ...

    @property
    def fitness(self) -> float:
        """The single figure by which the best epoch is chosen, the higher the better."""

    def line(self) -> str:
        """The epoch for the console."""

    def row(self) -> dict[str, float]:
        """Figures by the columns of ``results.csv``, in their order.

        NaN for what was not measured; below 0, as no other figure, for objects that do not exist.
        """

    def as_dict(self) -> dict[str, float | str]:
        """Plain values for a checkpoint, by the names of the fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """Figures of one epoch; NaN where the epoch was not evaluated. AP of a size without objects is -1, as COCO's."""

    epoch: int  # from 0
    train_box: float
    train_cls: float
    train_obj: float = math.nan  # or, from a head without anchors, train_dfl
    train_dfl: float = math.nan
    precision: float = math.nan
    recall: float = math.nan
    map50: float = math.nan
    map50_95: float = math.nan
    val_box: float = math.nan
    val_obj: float = math.nan
    val_dfl: float = math.nan
    val_cls: float = math.nan
    lr0: float
    lr1: float
    lr2: float
    ap_s: float = math.nan
    ap_m: float = math.nan
    ap_l: float = math.nan
    own_fitness: float = math.nan  # what --fitness names, where that is not YOLOv5's mix

    @property
    def evaluated(self) -> bool:
        return not math.isnan(self.map50_95)

    @property
    def fitness(self) -> float:
        """YOLOv5's single figure for choosing the best epoch, unless another one is asked for."""
        return 0.1 * self.map50 + 0.9 * self.map50_95 if math.isnan(self.own_fitness) else self.own_fitness

    def line(self) -> str:
        """The epoch for the console: YOLOv5's figures, and COCO's in a second line, as one would be too wide."""
        learned = {"obj": self.train_obj} if math.isnan(self.train_dfl) else {"dfl": self.train_dfl}
        values = {"box": self.train_box, **learned, "cls": self.train_cls}
        losses = "  ".join(f"{n} {value:{'.4f' if value < 10 else '.4g'}}" for n, value in values.items())
        if not self.evaluated:
            return f"epoch {self.epoch}: {losses}"
        yolov5 = {"P": self.precision, "R": self.recall, "mAP50": self.map50, "mAP50-95": self.map50_95}
        sizes = {"AP_S": self.ap_s, "AP_M": self.ap_m, "AP_L": self.ap_l}
        first, second = (
            "  ".join(f"{name} -" if value < 0 else f"{name} {value:.3f}" for name, value in row.items())
            for row in (yolov5, sizes)
        )
        start = f"epoch {self.epoch}: "
        return f"{start}{losses} | {first}\n{' ' * len(start)}{second}"

    def row(self) -> dict[str, float]:
        """Figures by the columns of ``results.csv``, see ``FinishedEpoch``."""
        own = {} if math.isnan(self.own_fitness) else {"fitness": self.own_fitness}
        columns = COLUMNS if math.isnan(self.train_dfl) else ANCHOR_FREE_COLUMNS
        return {column: getattr(self, field) for field, column in columns.items()} | own

    def as_dict(self) -> dict[str, float | str]:
        return asdict(self)


def epoch_record(
    epoch: int,
    train_loss: Mapping[str, float],
    rates: tuple[float, float, float],
    report: EvaluationReport | None,
    fitness: str = YOLOV5_MIX,
) -> EpochRecord:
    """The row of an epoch from the parts of its mean training loss by their names, last rates and evaluation.

    Raises:
        UserError: ``fitness`` counts objects that the evaluation has none of.
    """
    figures: dict[str, float] = {}
    if report is not None:
        figures = {
            "precision": report.precision,
            "recall": report.recall,
            "map50": report.map50,
            "map50_95": report.map50_95,
            **{f"val_{PARTS[name]}": value for name, value in (report.loss or {}).items()},
            "ap_s": report.coco.AP_S,
            "ap_m": report.coco.AP_M,
            "ap_l": report.coco.AP_L,
        }
        if fitness != YOLOV5_MIX:
            by_name = report.coco._asdict() | {"mAP50": report.map50, "mAP50-95": report.map50_95}
            figures["own_fitness"] = Fitness.from_text(fitness).of(by_name)
    losses = {f"train_{PARTS[name]}": value for name, value in train_loss.items()}
    learning = dict(zip(("lr0", "lr1", "lr2"), rates, strict=True))
    return EpochRecord(epoch=epoch, **losses, **learning, **figures)


def moved_figure(found: FinishedEpoch, expected: FinishedEpoch) -> str:
    """The first figure of an evaluation that is further than `SAME_FIGURE` from the expected one, in words."""
    before = expected.row()
    for column, value in found.row().items():
        if not column.startswith("metrics/"):
            continue
        same = abs(value - before[column]) <= SAME_FIGURE or (math.isnan(value) and math.isnan(before[column]))
        if not same:
            return f"{column.removeprefix('metrics/')} is {value:.4f} instead of {before[column]:.4f}"
    return ""


def write_results_csv(path: Path, records: Sequence[FinishedEpoch]) -> None:
    """Write the table of all finished epochs, at least one, whole, so that no row is ever repeated or lost."""
    # An epoch that was not evaluated may have no column for the fitness that is asked for.
    columns = max((record.row() for record in records), key=len)
    header = ",".join(column.rjust(COLUMN_WIDTH) for column in columns)
    # A cell without a value is quite empty: one of blanks is a text to pandas, and to float() no number.
    table = ([row.get(column, math.nan) for column in columns] for row in (record.row() for record in records))
    rows = [",".join("" if value < 0 else f"{value:{COLUMN_WIDTH}.5g}" for value in row) for row in table]
    write_text(path, "\n".join([header, *rows]) + "\n")

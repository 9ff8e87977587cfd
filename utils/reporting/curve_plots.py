"""Figures of a run: training curves, precision and recall, confusion matrix, sizes of labelled objects.

Figures are objects with a canvas of their own; matplotlib's global state is never touched. It is imported inside the
functions, as that takes longer than most scripts take to start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.evaluation.average_precision import PrecisionRecall
from utils.evaluation.evaluation_report import EvaluationReport
from utils.reporting.epoch_log import COLUMNS, EpochRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Order of the panels of results.png: fields of EpochRecord, training above validation.
RESULT_PANELS = (
    ("train_box", "train_obj", "train_cls", "precision", "recall", "ap_s", "ap_m"),
    ("val_box", "val_obj", "val_cls", "map50", "map50_95", "ap_l", "lr0"),
)
FEW_CLASSES = 10  # up to this number each class has its own line and its name in the legend
READABLE_CLASSES = 40  # up to this number class names and counts are written into the confusion matrix
SIZE_BORDERS = (32, 96)  # pixels; COCO's small < 32^2 <= medium < 96^2 <= large
BLUE, GREY = "#0072B2", "#999999"


def plot_results(path: Path, records: Sequence[EpochRecord]) -> None:
    """``results.png``: losses, figures of the evaluation and learning rate over the epochs."""
    figure = _figure(width=21, height=6)
    axes = figure.subplots(len(RESULT_PANELS), len(RESULT_PANELS[0]))
    epochs = np.array([record.epoch for record in records])
    for row, fields in zip(axes, RESULT_PANELS, strict=True):
        for panel, name in zip(row, fields, strict=True):
            values = np.array([getattr(record, name) for record in records], dtype=float)
            if name.startswith("ap_"):
                values[values < 0] = np.nan  # no object of that size in the data set
            known = ~np.isnan(values)
            panel.plot(epochs[known], values[known], marker=".", color=BLUE)
            panel.set_title(COLUMNS[name], fontsize=10)
            panel.set_xlabel("epoch", fontsize=8)
            panel.grid(alpha=0.3)
    _save(figure, path)


def plot_curves(folder: Path, report: EvaluationReport) -> tuple[Path, ...]:
    """``PR_curve.png``, ``P_curve.png``, ``R_curve.png``, ``F1_curve.png``, at IoU 0.5; the paths written."""
    curves, names = report.curves, report.names
    recall = np.linspace(0, 1, curves.precision_at_recall.shape[1])
    figures = (
        ("PR_curve.png", recall, curves.precision_at_recall, ("recall", "precision"), f"mAP50 {report.map50:.3f}"),
        ("P_curve.png", curves.confidence, curves.precision_curve, ("confidence", "precision"), None),
        ("R_curve.png", curves.confidence, curves.recall_curve, ("confidence", "recall"), None),
        ("F1_curve.png", curves.confidence, curves.f1_curve, ("confidence", "F1"), None),
    )
    for file, axis, lines, labels, summary in figures:
        figure = _figure(width=8, height=6)
        panel = figure.subplots()
        _class_lines(panel, axis, lines, curves, names)
        if len(lines):
            mean = lines.mean(axis=0)
            caption = summary or f"{mean.max():.2f} at {axis[mean.argmax()]:.3f}"
            panel.plot(axis, mean, color=BLUE, linewidth=3, label=f"all classes, {caption}")
            panel.legend(loc="best", fontsize=8)
        panel.set(
            xlabel=labels[0], ylabel=labels[1], xlim=(0, 1), ylim=(0, 1.02), title=f"{labels[1]} over {labels[0]}"
        )
        panel.grid(alpha=0.3)
        _save(figure, folder / file)
    return tuple(folder / file for file, *_ in figures)


def plot_confusion_matrix(path: Path, counts: np.ndarray, names: Sequence[str]) -> None:
    """Counts (C + 1, C + 1), rows predicted, columns true, as parts of each true class; background is last."""
    totals = counts.sum(axis=0, keepdims=True)
    parts = counts / np.maximum(totals, 1)
    labels = [*names, "background"]
    readable = len(labels) <= READABLE_CLASSES
    side = max(6.0, 0.45 * len(labels)) if readable else 12.0
    figure = _figure(width=side + 1.5, height=side)
    panel = figure.subplots()
    image = panel.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=panel, fraction=0.046)
    panel.set(xlabel="true", ylabel="predicted", title="Confusion matrix, parts of each true class")
    if readable:
        panel.set_xticks(range(len(labels)), labels, rotation=90)
        panel.set_yticks(range(len(labels)), labels)
        for row, column in zip(*np.nonzero(parts >= 0.005), strict=True):
            color = "white" if parts[row, column] > 0.5 else "black"
            panel.text(column, row, f"{parts[row, column]:.2f}", ha="center", va="center", color=color, fontsize=7)
    _save(figure, path)


def plot_label_sizes(path: Path, sizes: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> None:
    """``labels.png``: objects per class, and how large they are.

    Args:
        path: file to write.
        sizes: (N, 2) width and height of the labelled boxes, source pixels.
        classes: (N,) class index.
        names: of the classes.
    """
    from matplotlib.colors import LogNorm

    figure = _figure(width=14, height=5.5)
    bars, cloud, histogram = figure.subplots(1, 3)
    bars.bar(range(len(names)), np.bincount(classes, minlength=len(names)), color=BLUE)
    bars.set(ylabel="objects", title="Objects per class")
    if len(names) <= READABLE_CLASSES:
        bars.set_xticks(range(len(names)), list(names), rotation=90)

    sides = np.sqrt(sizes.prod(axis=1)) if len(sizes) else np.zeros(0)
    largest = float(max(sizes.max(), SIZE_BORDERS[1])) * 1.1 if len(sizes) else 128.0
    if len(sizes):
        edges = np.geomspace(1, largest, 60)
        cloud.hist2d(*sizes.clip(1).T, bins=(edges, edges), norm=LogNorm(), cmap="viridis")
        histogram.hist(sides.clip(1), bins=list(np.geomspace(1, largest, 40)), color=BLUE)
    axis = np.geomspace(1, largest, 200)
    for border in SIZE_BORDERS:
        cloud.plot(axis, border**2 / axis, color="#D55E00", linewidth=1)  # all shapes of this area
        histogram.axvline(border, color="#D55E00", linewidth=1)
    cloud.set(xscale="log", yscale="log", xlim=(1, largest), ylim=(1, largest))
    cloud.set(xlabel="width, px", ylabel="height, px", title="Box sizes")
    histogram.set(xscale="log", xlabel="square root of area, px", ylabel="objects", title=_size_shares(sides))
    _save(figure, path)


def _size_shares(sides: np.ndarray) -> str:
    small = float((sides < SIZE_BORDERS[0]).mean()) if len(sides) else 0.0
    large = float((sides >= SIZE_BORDERS[1]).mean()) if len(sides) else 0.0
    medium = 1 - small - large if len(sides) else 0.0
    return f"small {small:.0%}, medium {medium:.0%}, large {large:.0%}"


def _class_lines(
    panel: Axes, axis: np.ndarray, lines: np.ndarray, curves: PrecisionRecall, names: Sequence[str]
) -> None:
    """One thin line per class; named in the legend where they are few."""
    if len(lines) > FEW_CLASSES:
        panel.plot(axis, lines.T, color=GREY, linewidth=0.7, alpha=0.6)
        return
    for line, index, ap in zip(lines, curves.classes.tolist(), curves.ap[:, 0], strict=True):
        panel.plot(axis, line, linewidth=1, label=f"{names[index]} {ap:.3f}")


def _figure(*, width: float, height: float) -> Figure:
    """A figure of so many inches with its own Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120)

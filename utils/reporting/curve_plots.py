"""Figures of a run: training curves, precision and recall, confusion matrix, sizes of objects, trials of a search.

Figures are objects with a canvas of their own; matplotlib's global state is never touched. It is imported inside the
functions, as that takes longer than most scripts take to start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from utils.config.fitness import YOLOV5_MIX
from utils.runtime.atomic_files import atomic_file

if TYPE_CHECKING:  # whoever draws one of the figures need not load what makes the others
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from utils.evaluation.error_analysis import RecallBySize, SizeErrors
    from utils.evaluation.evaluation_report import EvaluationReport
    from utils.evaluation.model_comparison import ComparedModel, StudyRow
    from utils.reporting.epoch_log import FinishedEpoch


PANEL_ROWS = 2  # of results.png
FEW_CLASSES = 10  # up to this number each class has its own line and its name in the legend
READABLE_CLASSES = 40  # up to this number shares are written into the confusion matrix, and names below bars
NAMED_CLASSES = 120  # up to this number names stand beside the confusion matrix
SIZE_BORDERS = (32, 96)  # pixels; COCO's small < 32^2 <= medium < 96^2 <= large
BLUE, GREY = "#0072B2", "#999999"
SIZE_COLORS = ("#999999", "#E69F00", "#009E73", "#0072B2")  # all, small, medium, large


class _Curves(NamedTuple):
    """One figure: a line for each class over an axis, and their mean."""

    name: str
    axis: np.ndarray  # (X,)
    lines: np.ndarray  # (C, X)
    below: str  # what the axes are
    beside: str
    # Of the legend, where the mean seldom goes: to look for the emptiest corner takes longer than to draw all the rest.
    corner: Literal["lower left", "lower right", "upper right"]


def plot_results(path: Path, records: Sequence[FinishedEpoch]) -> None:
    """``results.png``: every column of ``results.csv`` over the epochs, of which there is at least one."""
    columns = [column for column in max((record.row() for record in records), key=len) if column != "epoch"]
    width = math.ceil(len(columns) / PANEL_ROWS)
    figure = _figure(width=3 * width, height=3 * PANEL_ROWS)
    axes = figure.subplots(PANEL_ROWS, width, squeeze=False).ravel()
    epochs = np.array([record.epoch for record in records])
    for panel, column in zip(axes, columns, strict=False):
        values = np.array([record.row().get(column, math.nan) for record in records], dtype=float)
        known = values >= 0  # measured, of objects that exist
        panel.plot(epochs[known], values[known], marker=".", color=BLUE)
        panel.set_title(column, fontsize=10)
        panel.set_xlabel("epoch", fontsize=8)
        panel.grid(alpha=0.3)
    for panel in axes[len(columns) :]:
        panel.set_axis_off()
    _save(figure, path)


def plot_curves(folder: Path, report: EvaluationReport) -> tuple[Path, ...]:
    """``PR_curve.png``, ``P_curve.png``, ``R_curve.png``, ``F1_curve.png``, at IoU 0.5; the paths written."""
    curves, names = report.curves, report.names
    recall = np.linspace(0, 1, curves.precision_at_recall.shape[1])
    scores = curves.confidence
    figures = (
        _Curves("PR", recall, curves.precision_at_recall, "recall", "precision", "lower left"),
        _Curves("P", scores, curves.precision_curve, "confidence", "precision", "lower right"),
        _Curves("R", scores, curves.recall_curve, "confidence", "recall", "upper right"),
        _Curves("F1", scores, curves.f1_curve, "confidence", "F1", "upper right"),
    )
    paths = []
    for name, axis, lines, below, beside, corner in figures:
        figure = _figure(width=8, height=6, layout=None)
        panel = figure.subplots(gridspec_kw=_margins(0.08, 0.97, 0.09, 0.94))
        own = [f"{ap:.3f}" for ap in curves.ap[:, 0]] if name == "PR" else [_best(line, axis) for line in lines]
        captions = [f"{names[index]} {text}" for index, text in zip(curves.classes.tolist(), own, strict=True)]
        _class_lines(panel, axis, lines, captions)
        if len(lines):
            mean = lines.mean(axis=0)
            caption = f"mAP50 {report.map50:.3f}" if name == "PR" else _best(mean, axis)
            panel.plot(axis, mean, color=BLUE, linewidth=3, label=f"all classes, {caption}")
            panel.legend(loc=corner, fontsize=8)
        panel.set(xlabel=below, ylabel=beside, xlim=(0, 1), ylim=(0, 1.02), title=f"{beside} over {below}")
        panel.grid(alpha=0.3)
        paths.append(folder / f"{name}_curve.png")
        _save(figure, paths[-1])
    return tuple(paths)


def plot_confusion_matrix(path: Path, counts: np.ndarray, names: Sequence[str]) -> None:
    """Counts (C, C), rows predicted, columns true, as parts of each true class.

    Of a detector (C + 1, C + 1), with the background as the last of each.
    """
    totals = counts.sum(axis=0, keepdims=True)
    parts = counts / np.maximum(totals, 1)
    labels = [*names, *["background"][: len(counts) - len(names)]]
    readable = len(labels) <= READABLE_CLASSES
    named = len(labels) <= NAMED_CLASSES
    side = max(6.0, 0.45 * len(labels)) if readable else max(18.0, 0.2 * len(labels)) if named else 12.0
    figure = _figure(width=side + 1.5, height=side, layout="constrained" if readable else None)
    longest = max(map(len, labels)) if named else 0
    start = min(max(0.09 if named else 0.05, (0.3 + 0.06 * longest) / side), 0.4)  # room for names, left and below
    panel = figure.subplots(gridspec_kw={} if readable else _margins(start + 0.01, 0.97, start, 0.96))
    image = panel.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=panel, fraction=0.046)
    panel.set(xlabel="true", ylabel="predicted", title="Confusion matrix, parts of each true class")
    if named:
        size = None if readable else 9
        panel.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size)
        panel.set_yticks(range(len(labels)), labels, fontsize=size)
    if readable:
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

    readable = len(names) <= READABLE_CLASSES
    figure = _figure(width=14, height=5.5, layout="constrained" if readable else None)
    margins = {} if readable else _margins(0.07, 0.985, 0.1, 0.93) | {"wspace": 0.25}
    bars, cloud, histogram = figure.subplots(1, 3, gridspec_kw=margins)
    bars.bar(range(len(names)), np.bincount(classes, minlength=len(names)), color=BLUE)
    bars.set(ylabel="objects", title="Objects per class")
    if readable:
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
    cloud.set(xlabel="width, px", ylabel="height, px", title="Box sizes")
    histogram.set(xlabel="square root of area, px", ylabel="objects", title=_size_shares(sides))
    _pixel_axes(cloud, 1, largest, both=True)
    _pixel_axes(histogram, 1, largest)
    _save(figure, path)


def plot_training_sizes(path: Path, sides: np.ndarray, borders: Sequence[int], small: float) -> None:
    """``object_sizes.png``: how large objects are at the training size.

    Args:
        path: file to write.
        sides: (N,) root of each object's area, pixels at the training size.
        borders: sides to mark, and to count the objects below.
        small: side of an object on the border of AP_S in the median image, pixels at the training size.
    """
    figure = _figure(width=8, height=6)
    panel = figure.subplots()
    largest = float(max(sides.max(initial=0), borders[-1] * 4)) * 1.05
    if len(sides):
        panel.hist(sides.clip(1), bins=list(np.geomspace(1, largest, 50)), color=BLUE)
    shares = ", ".join(f"{(sides < border).mean() if len(sides) else 0:.0%} under {border}" for border in borders)
    for border in borders:
        panel.axvline(border, color=GREY, linestyle=":", linewidth=1)
    panel.axvline(small, color="#D55E00", linewidth=1.5, label="AP_S counts what is left of this")
    panel.set(xlabel="root of area, px at the training size", ylabel="objects", title=f"{shares} px")
    _pixel_axes(panel, 1, largest)
    panel.legend(loc="upper right", fontsize=9)
    _save(figure, path)


def plot_class_counts(path: Path, counts: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """``classes.png``: objects (C,) of each class in each part, most frequent first."""
    figure = _figure(width=8, height=6)
    panel = figure.subplots()
    first = next(iter(counts.values()))
    order = np.argsort(-first, kind="stable")
    width = 0.8 / len(counts)
    for place, (name, own) in enumerate(counts.items()):
        panel.bar(np.arange(len(names)) + place * width, own[order], width, color=SIZE_COLORS[3 - place], label=name)
    panel.set(yscale="symlog", ylabel="objects", title="Objects of each class")
    panel.legend(fontsize=9)
    if len(names) <= READABLE_CLASSES:
        panel.set_xticks(range(len(names)), [names[i] for i in order], rotation=90)
    _save(figure, path)


def plot_recall_by_size(path: Path, recall: RecallBySize) -> None:
    """``recall_by_size.png``: share of the objects found over their size, above how many there are."""
    figure = _figure(width=9, height=6.5)
    curve, bars = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    known = recall.objects > 0
    borders = np.maximum(recall.sides, recall.sides[1] / 2)
    middles = np.sqrt(borders[:-1] * borders[1:])
    for found, text, color in (
        (recall.found, "found at IoU 0.5", GREY),
        (recall.found_surely, f"found with a score of {recall.sure} or more", BLUE),
    ):
        curve.plot(middles[known], found[known] / recall.objects[known], marker="o", color=color, label=text)
    bars.bar(borders[:-1], recall.objects, width=np.diff(borders), align="edge", color=BLUE, edgecolor="white")
    for panel in (curve, bars):
        panel.grid(alpha=0.3)
        for border in SIZE_BORDERS:
            panel.axvline(border, color="#D55E00", linewidth=1)
    bars.set(xlabel="square root of the object's area, source pixels", ylabel="objects")
    _pixel_axes(bars, borders[:-1][known].min() * 0.9, borders[1:][known].max() * 1.1)
    curve.set(ylim=(0, 1.02), ylabel="recall", title="Recall by object size (lines: COCO's small, medium, large)")
    curve.legend(loc="lower right", fontsize=9)
    _save(figure, path)


def plot_errors(path: Path, by_size: Sequence[SizeErrors]) -> None:
    """``errors.png``: what each kind of error costs in AP50, for each range of object sizes."""
    shown = [size for size in by_size if size.objects]
    figure = _figure(width=9, height=5)
    panel = figure.subplots()
    width = 0.8 / len(shown)
    for place, size in enumerate(shown):
        offsets = np.arange(len(size.kinds)) + (place - (len(shown) - 1) / 2) * width
        heights = [max(kind.ap50_lost, 0.0) for kind in size.kinds]
        label = f"{size.area.name}: {size.objects} objects, AP50 {size.AP50:.3f}"
        panel.bar(offsets, heights, width=width, label=label, color=SIZE_COLORS[place % len(SIZE_COLORS)])
    panel.set_xticks(range(len(shown[0].kinds)), [kind.kind for kind in shown[0].kinds])
    panel.set(ylabel="AP50 lost", title="What each kind of error costs")
    panel.grid(axis="y", alpha=0.3)
    panel.legend(fontsize=9)
    _save(figure, path)


def plot_study(path: Path, studies: Mapping[str, Sequence[StudyRow]]) -> None:
    """``study.png``: mAP50-95 and AP_S over the time per image, one line per model, a point per image size."""
    figure = _figure(width=13, height=5.5)
    panels = figure.subplots(1, 2)
    for panel, key, title in zip(panels, ("map50_95", "AP_S"), ("mAP50-95", "AP_S (small objects)"), strict=True):
        for name, rows in studies.items():
            known = [row for row in rows if getattr(row, key) >= 0]
            times, figures = [row.milliseconds for row in known], [getattr(row, key) for row in known]
            panel.plot(times, figures, marker="o", label=name)
            for row, time, value in zip(known, times, figures, strict=True):
                panel.annotate(str(row.imgsz), (time, value), fontsize=7, xytext=(3, 3), textcoords="offset points")
        panel.set(xlabel="ms per image: inference and NMS", ylabel=title, title=f"{title} over time")
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize=9)
    _save(figure, path)


def plot_comparison(path: Path, rows: Sequence[ComparedModel]) -> None:
    """``comparison.png``: AP and AP_S of each model, and how sure the differences to the first one are."""
    figure = _figure(width=13, height=1.5 + 0.9 * max(len(rows), 3))
    bars, intervals = figure.subplots(1, 2)
    places = np.arange(len(rows))
    for shift, key, color in ((-0.2, "AP", BLUE), (0.2, "AP_S", "#E69F00")):
        bars.barh(places + shift, [max(getattr(row, key), 0) for row in rows], height=0.38, color=color, label=key)
        others = [(place, getattr(row.differences, key)) for place, row in enumerate(rows) if row.differences]
        for place, difference in others:
            if difference is None:
                continue
            intervals.plot((difference.low, difference.high), (place + shift,) * 2, color=color, linewidth=3)
            intervals.plot(difference.value, place + shift, marker="o", color=color)
    intervals.axvline(0, color="black", linewidth=1)
    for panel in (bars, intervals):
        panel.set_yticks(places, [row.name for row in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.grid(axis="x", alpha=0.3)
    bars.set(title="AP and AP_S")
    bars.legend(fontsize=9)
    intervals.set(title=f"difference to {rows[0].name}, 95 % interval")
    _save(figure, path)


def _pixel_axes(panel: Axes, low: float, high: float, *, both: bool = False) -> None:
    """A logarithmic axis of pixels from ``low`` to ``high`` that reads 8, 16, 32, 64; if ``both``, the vertical too."""
    ticks = [2**power for power in range(14) if low <= 2**power <= high]
    for axis in ("x", "y") if both else ("x",):
        panel.set(**{f"{axis}scale": "log"})
        panel.set(**{f"{axis}ticks": ticks, f"{axis}ticklabels": [str(tick) for tick in ticks]})
        panel.set(**{f"{axis}lim": (low, high)})
    panel.minorticks_off()


def _size_shares(sides: np.ndarray) -> str:
    small = float((sides < SIZE_BORDERS[0]).mean()) if len(sides) else 0.0
    large = float((sides >= SIZE_BORDERS[1]).mean()) if len(sides) else 0.0
    medium = 1 - small - large if len(sides) else 0.0
    return f"small {small:.0%}, medium {medium:.0%}, large {large:.0%}"


def _best(line: np.ndarray, confidence: np.ndarray) -> str:
    """The highest value of a curve, and the confidence where it is reached."""
    return f"{line.max():.2f} at {confidence[line.argmax()]:.3f}"


def _class_lines(panel: Axes, axis: np.ndarray, lines: np.ndarray, captions: Sequence[str]) -> None:
    """One thin line per class; named in the legend where they are few."""
    if len(lines) > FEW_CLASSES:
        from matplotlib.collections import LineCollection

        points = np.stack((np.broadcast_to(axis, lines.shape), lines), axis=-1)
        panel.add_collection(LineCollection(list(points), colors=GREY, linewidths=0.7, alpha=0.6))
        return
    for line, caption in zip(lines, captions, strict=True):
        panel.plot(axis, line, linewidth=1, label=caption)


def plot_search(
    path: Path, fitness: Sequence[tuple[int, float]], importance: Mapping[str, float], fitness_is: str = YOLOV5_MIX
) -> None:
    """Fitness of each complete trial and the best so far; the share of its spread that each hyperparameter explains."""
    figure = _figure(width=12 if importance else 7, height=5)
    axes = figure.subplots(1, 2 if importance else 1, squeeze=False)[0]
    numbers, values = zip(*fitness, strict=True)
    axes[0].plot(numbers, values, "o", color="#0072b2", label="trial")
    axes[0].step(numbers, list(accumulate(values, max)), where="post", color="#d55e00", label="best so far")
    axes[0].set(xlabel="trial", ylabel=f"fitness: {fitness_is}", title="History")
    axes[0].legend()
    if importance:
        shown = list(importance.items())[:15][::-1]
        axes[1].barh([name for name, _ in shown], [share for _, share in shown], color="#009e73")
        axes[1].set(xlabel="share of the spread", title="Importance")
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _figure(*, width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """A figure of so many inches with its own Agg canvas, its margins as its labels need them or as they are set."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _margins(left: float, right: float, bottom: float, top: float) -> dict[str, float]:
    """Where panels end, as parts of a figure whose labels are known: measuring them takes as long as drawing."""
    return {"left": left, "right": right, "bottom": bottom, "top": top}


def _save(figure: Figure, path: Path) -> None:
    # zlib's third level takes less time than its sixth, for files of much the same size.
    figure.savefig(path, dpi=120, pil_kwargs={"compress_level": 3})

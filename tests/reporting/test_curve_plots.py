"""What the figures show, read from matplotlib's objects."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.reporting.hand_made import class_report, curves_of, report_of
from tests.training.test_early_stopping import records
from utils.evaluation.average_precision import precision_recall
from utils.evaluation.coco_average_precision import COCO_RANGES
from utils.evaluation.error_analysis import KINDS, ErrorKind, RecallBySize, SizeErrors
from utils.evaluation.model_comparison import ComparedModel, Difference, PairedDifferences, StudyRow
from utils.reporting.curve_plots import (
    plot_class_counts,
    plot_comparison,
    plot_confusion_matrix,
    plot_curves,
    plot_errors,
    plot_label_sizes,
    plot_recall_by_size,
    plot_results,
    plot_search,
    plot_study,
    plot_training_sizes,
)
from utils.reporting.epoch_log import EpochRecord

Drawn = dict[str, Figure]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The figures by the names of the files that they would have been written to."""
    kept: Drawn = {}

    def keep(figure: Figure, file: Any, **settings: Any) -> None:  # a path or an open file
        kept[Path(file.name).name] = figure

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def lines(panel: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """Points of the lines that the legend names."""
    return {
        str(line.get_label()): (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
        for line in panel.lines
        if not str(line.get_label()).startswith("_")
    }


def heights(panel: Axes) -> list[float]:
    return [bar.get_height() for bar in panel.patches]  # type: ignore[attr-defined]


def ticks(labels: list[Any]) -> list[str]:
    return [label.get_text() for label in labels]


def names_in_legend(panel: Axes) -> list[str]:
    legend = panel.get_legend()
    return [] if legend is None else ticks(legend.get_texts())


def test_files_are_written(tmp_path: Path) -> None:
    plot_confusion_matrix(tmp_path / "a.png", np.eye(3), ("cat", "dog"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_every_column_has_a_panel_of_the_epochs_that_measured_it(drawn: Drawn) -> None:
    zeros = dict.fromkeys(("train_obj", "train_cls", "lr0", "lr1", "lr2"), 0.0)
    epochs = [
        EpochRecord(epoch=3, train_box=0.5, **zeros),  # not evaluated
        EpochRecord(epoch=4, train_box=0.25, map50=0.125, map50_95=0.1, ap_s=-1, ap_m=0.75, **zeros),
    ]
    plot_results(Path("results.png"), epochs)
    panels = {panel.get_title(): panel for panel in drawn["results.png"].axes}
    assert list(panels)[:16] == [column for column in epochs[0].row() if column != "epoch"]

    def points(column: str) -> list[tuple[float, float]]:
        (line,) = panels[column].lines
        return list(zip(*(np.asarray(values).tolist() for values in line.get_data()), strict=True))

    assert points("train/box_loss") == [(3, 0.5), (4, 0.25)]
    assert points("metrics/mAP_0.5") == [(4, 0.125)]
    assert points("metrics/AP_M") == [(4, 0.75)]
    assert points("metrics/AP_S") == []  # -1 says that there is no such object


def test_panels_without_a_column_are_empty(drawn: Drawn) -> None:
    class Short(EpochRecord):
        def row(self) -> dict[str, float]:
            return {"epoch": self.epoch, "a": 1.0, "b": 2.0, "c": 3.0}

    plot_results(
        Path("r.png"),
        [Short(epoch=0, **dict.fromkeys(("train_box", "train_obj", "train_cls"), 0.0), lr0=0, lr1=0, lr2=0)],
    )
    assert [(panel.get_title(), panel.axison) for panel in drawn["r.png"].axes] == [
        ("a", True),
        ("b", True),
        ("c", True),
        ("", False),
    ]


def test_curves_have_a_line_per_class_and_their_mean(drawn: Drawn) -> None:
    report = report_of(class_report("cat", 0), class_report("dog", 1), map50=0.375)
    paths = plot_curves(Path("folder"), report)
    assert [path.as_posix() for path in paths] == [f"folder/{name}_curve.png" for name in ("PR", "P", "R", "F1")]
    panels = {name: figure.axes[0] for name, figure in drawn.items()}
    # Class k has k tenths more than the first, so the mean of two is a twentieth above it.
    assert list(lines(panels["PR_curve.png"])) == ["cat 0.500", "dog 0.600", "all classes, mAP50 0.375"]
    recall, precision = lines(panels["PR_curve.png"])["all classes, mAP50 0.375"]
    assert recall == [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(precision, [0.95, 0.55, 0.15, 0.05, 0.05])
    # The mean F1 is highest at the score 0.5: 0.65; the mean recall at 0: 0.85; the mean precision at 1: 0.45.
    assert list(lines(panels["F1_curve.png"]))[-1] == "all classes, 0.65 at 0.500"
    assert list(lines(panels["R_curve.png"]))[-1] == "all classes, 0.85 at 0.000"
    assert list(lines(panels["P_curve.png"]))[-1] == "all classes, 0.45 at 1.000"
    assert [(panel.get_xlabel(), panel.get_ylabel()) for panel in panels.values()] == [
        ("recall", "precision"),
        ("confidence", "precision"),
        ("confidence", "recall"),
        ("confidence", "F1"),
    ]


@pytest.mark.case("Results", "legends of the F1, P and R curves", "the best value and its confidence, not AP50")
def test_legends_of_the_curves(drawn: Drawn) -> None:
    hits = np.array([[True], [True], [False], [True]])
    scores, classes = np.array([0.9, 0.8, 0.6, 0.3]), np.array([0, 1, 0, 1])
    curves = precision_recall(hits, scores, classes, np.array([0, 0, 1, 1]))
    report: Any = SimpleNamespace(curves=curves, names=("ship", "car"), map50=float(curves.ap[:, 0].mean()))
    plot_curves(Path(), report)
    tables = {"F1": curves.f1_curve, "P": curves.precision_curve, "R": curves.recall_curve}
    for kind, table in tables.items():
        expected = [
            f"{name} {line.max():.2f} at {curves.confidence[line.argmax()]:.3f}"
            for name, line in zip(("ship", "car", "all classes,"), (*table, table.mean(axis=0)), strict=True)
        ]
        assert names_in_legend(drawn[f"{kind}_curve.png"].axes[0]) == expected
    assert [line.split()[-1] for line in names_in_legend(drawn["PR_curve.png"].axes[0])[:2]] == [
        f"{ap:.3f}" for ap in curves.ap[:, 0]
    ]


def test_many_classes_are_thin_lines_without_a_name(drawn: Drawn) -> None:
    report = report_of(*(class_report(f"c{k}", k) for k in range(11)), curves=curves_of(11))
    plot_curves(Path(), report)
    panel = drawn["PR_curve.png"].axes[0]
    assert list(lines(panel)) == ["all classes, mAP50 0.375"]
    (thin,) = panel.collections
    assert len(thin.get_paths()) == 11
    np.testing.assert_allclose(np.asarray(thin.get_paths()[10].vertices)[0], np.array((0.0, 1.9)))


def test_curves_without_a_class_are_empty(drawn: Drawn) -> None:
    assert len(plot_curves(Path(), report_of())) == 4
    assert all(lines(figure.axes[0]) == {} for figure in drawn.values())


def test_a_confusion_matrix_shows_parts_of_each_true_class(drawn: Drawn) -> None:
    # Of four true cats (the first column) three are found and one is missed; the one dog is taken for a cat, and one
    # cat is an invention. Shares of nothing are not written.
    counts = np.array([[3, 1, 1], [0, 0, 0], [1, 0, 0]])
    plot_confusion_matrix(Path("c.png"), counts, ("cat", "dog"))
    panel = drawn["c.png"].axes[0]
    (image,) = panel.images
    parts = np.array([[0.75, 1, 1], [0, 0, 0], [0.25, 0, 0]])
    np.testing.assert_allclose(np.asarray(image.get_array()), parts)
    assert ticks(panel.get_xticklabels()) == ticks(panel.get_yticklabels()) == ["cat", "dog", "background"]
    written = {text.get_position(): text.get_text() for text in panel.texts}
    assert written == {(0, 0): "0.75", (1, 0): "1.00", (2, 0): "1.00", (0, 2): "0.25"}


def test_a_classifier_has_no_background_and_unseen_classes_are_zero(drawn: Drawn) -> None:
    plot_confusion_matrix(Path("c.png"), np.array([[0, 2], [0, 2]]), ("cat", "dog"))
    panel = drawn["c.png"].axes[0]
    assert ticks(panel.get_xticklabels()) == ["cat", "dog"]
    np.testing.assert_allclose(np.asarray(panel.images[0].get_array()), [[0, 0.5], [0, 0.5]])


@pytest.mark.parametrize(("count", "named", "shares"), [(40, 40, 40), (41, 41, 0), (120, 120, 0), (121, 0, 0)])
def test_a_large_confusion_matrix_has_names_without_shares(drawn: Drawn, count: int, named: int, shares: int) -> None:
    names = [f"c{k}" for k in range(count)]
    plot_confusion_matrix(Path("c.png"), np.eye(count), names)
    panel = drawn["c.png"].axes[0]
    shown = [name for name in ticks(panel.get_yticklabels()) if name.startswith("c")]
    assert shown == names[:named] and len(panel.texts) == shares


def test_long_names_beside_a_large_confusion_matrix_are_whole(drawn: Drawn) -> None:
    plot_confusion_matrix(
        Path("c.png"), np.eye(41), [f"object--vehicle--of-more-than-four-wheels-{k}" for k in range(41)]
    )
    figure = drawn["c.png"]
    figure.draw_without_rendering()
    panel = figure.axes[0]
    assert min(label.get_window_extent().x0 for label in panel.get_yticklabels()) >= 0
    assert min(label.get_window_extent().y0 for label in panel.get_xticklabels()) >= 0


def test_label_sizes(drawn: Drawn) -> None:
    # Sides (roots of the area) of 16, 64 and 128: a third each of COCO's small, medium and large.
    sizes = np.array([[8.0, 32.0], [64.0, 64.0], [256.0, 64.0]])
    plot_label_sizes(Path("l.png"), sizes, np.array([2, 0, 2]), ("a", "b", "c"))
    bars, cloud, histogram = drawn["l.png"].axes[:3]
    assert heights(bars) == [1, 0, 2] and ticks(bars.get_xticklabels()) == ["a", "b", "c"]
    assert histogram.get_title() == "small 33%, medium 33%, large 33%"
    assert sum(heights(histogram)) == 3
    assert cloud.get_xlim() == pytest.approx((1, 256 * 1.1))
    for panel in (cloud, histogram):
        assert ticks(panel.get_xticklabels()) == ["1", "2", "4", "8", "16", "32", "64", "128", "256"]
    assert ticks(cloud.get_yticklabels()) == ticks(cloud.get_xticklabels()) and histogram.get_yscale() == "linear"
    for line, border in zip(cloud.lines, (32, 96), strict=True):  # all shapes of that area
        widths, tall = (np.asarray(values, dtype=float) for values in line.get_data())
        np.testing.assert_allclose(widths * tall, border**2)


def test_label_sizes_of_nothing(drawn: Drawn) -> None:
    plot_label_sizes(Path("l.png"), np.zeros((0, 2)), np.zeros(0, int), ("a",))
    bars, _, histogram = drawn["l.png"].axes[:3]
    assert heights(bars) == [0] and histogram.get_title() == "small 0%, medium 0%, large 0%"


def test_training_sizes(drawn: Drawn) -> None:
    plot_training_sizes(Path("t.png"), np.array([4.0, 8.0, 12.0, 200.0]), (8, 16), 24.0)
    (panel,) = drawn["t.png"].axes
    assert panel.get_title() == "25% under 8, 75% under 16 px"  # 8 itself is not under 8
    assert [np.asarray(line.get_xdata()).tolist() for line in panel.lines] == [[8, 8], [16, 16], [24, 24]]
    assert sum(heights(panel)) == 4
    assert names_in_legend(panel) == ["AP_S counts what is left of this"]
    assert ticks(panel.get_xticklabels()) == ["1", "2", "4", "8", "16", "32", "64", "128"]  # up to 200 x 1.05
    plot_training_sizes(Path("t.png"), np.zeros(0), (8, 16), 24.0)
    assert drawn["t.png"].axes[0].get_title() == "0% under 8, 0% under 16 px"


def test_class_counts_are_in_the_order_of_the_first_part(drawn: Drawn) -> None:
    counts = {"train": np.array([2, 9, 2]), "val": np.array([5, 1, 7])}
    plot_class_counts(Path("c.png"), counts, ("a", "b", "c"))
    (panel,) = drawn["c.png"].axes
    assert heights(panel) == [9, 2, 2, 1, 5, 7]  # of equals the first class is first
    assert ticks(panel.get_xticklabels()) == ["b", "a", "c"]
    assert names_in_legend(panel) == ["train", "val"]


def test_recall_by_size(drawn: Drawn) -> None:
    recall = RecallBySize(
        sides=np.array([0.0, 4.0, 16.0, 64.0]),
        objects=np.array([4, 0, 10]),
        found=np.array([3, 0, 9]),
        found_surely=np.array([1, 0, 5]),
    )
    plot_recall_by_size(Path("r.png"), recall)
    curve, bars = drawn["r.png"].axes
    # Middles are geometric: of 2 (half the first border) to 4, and of 16 to 64; the bin without objects has no point.
    drawn_lines = lines(curve)
    for name, shares in (("found at IoU 0.5", [0.75, 0.9]), ("found with a score of 0.25 or more", [0.25, 0.5])):
        middles, points = drawn_lines.pop(name)
        assert middles == pytest.approx([8**0.5, 32]) and points == pytest.approx(shares)
    assert not drawn_lines
    assert heights(bars) == [4, 0, 10]
    assert bars.get_xlim() == pytest.approx((2 * 0.9, 64 * 1.1))
    assert ticks(bars.get_xticklabels()) == ["2", "4", "8", "16", "32", "64"]


def size_errors(place: int, objects: int, lost: float) -> SizeErrors:
    kinds = tuple(ErrorKind(kind, 3, lost * (number - 1)) for number, kind in enumerate(KINDS.values()))
    return SizeErrors(COCO_RANGES[place], objects, 0.625 if objects else -1.0, kinds if objects else ())


def test_errors_by_size(drawn: Drawn) -> None:
    plot_errors(Path("e.png"), (size_errors(0, 9, 0.1), size_errors(1, 0, 0.0), size_errors(3, 2, 0.2)))
    (panel,) = drawn["e.png"].axes
    assert names_in_legend(panel) == ["all: 9 objects, AP50 0.625", "large: 2 objects, AP50 0.625"]
    assert ticks(panel.get_xticklabels()) == list(KINDS.values())
    # The first kind's loss is negative, which is drawn as none.
    assert heights(panel) == pytest.approx([0, 0, 0.1, 0.2, 0.3, 0.4, 0, 0, 0.2, 0.4, 0.6, 0.8])
    left = [bar.get_x() for bar in panel.patches]  # type: ignore[attr-defined]
    width = panel.patches[0].get_width()  # type: ignore[attr-defined]
    # Two groups of bars beside each other, together around their tick.
    assert left[:6] == pytest.approx([place - width for place in range(6)]) and left[6:] == pytest.approx(range(6))


def study(imgsz: int, milliseconds: float, map50_95: float, small: float) -> StudyRow:
    rest = {"precision": 0.5, "recall": 0.5, "map50": 0.5, "AP": 0.5, "AP50": 0.5, "AP_M": 0.5, "AP_L": 0.5}
    times = {"preprocess_ms": 100.0, "inference_ms": milliseconds - 1, "nms_ms": 1.0}
    return StudyRow(imgsz=imgsz, map50_95=map50_95, AP_S=small, **rest, **times)


def test_a_study_is_a_line_per_model_over_the_time_per_image(drawn: Drawn) -> None:
    studies = {"a.pt": [study(320, 5, 0.25, -1), study(640, 20, 0.5, 0.125)], "b.pt": [study(320, 7, 0.375, -1)]}
    plot_study(Path("study.png"), studies)
    whole, small = drawn["study.png"].axes
    assert lines(whole) == {"a.pt": ([5, 20], [0.25, 0.5]), "b.pt": ([7], [0.375])}
    assert lines(small) == {"a.pt": ([20], [0.125]), "b.pt": ([], [])}  # sizes without a small object are left out
    assert [text.get_text() for text in whole.texts] == ["320", "640", "320"]
    assert [text.get_text() for text in small.texts] == ["640"]


def test_a_comparison_has_bars_and_intervals(drawn: Drawn) -> None:
    differences = PairedDifferences(Difference(0.1, -0.05, 0.25), None)
    rows = [
        ComparedModel("old", None, None, 0.5, 0.7, -1.0, 0.5, 0.5, 3.0, None),
        ComparedModel("new", None, None, 0.6, 0.8, 0.2, 0.5, 0.5, 4.0, differences),
    ]
    plot_comparison(Path("c.png"), rows)
    bars, intervals = drawn["c.png"].axes
    assert [bar.get_width() for bar in bars.patches] == [0.5, 0.6, 0, 0.2]  # type: ignore[attr-defined]
    assert names_in_legend(bars) == ["AP", "AP_S"]
    assert ticks(bars.get_yticklabels()) == ["old", "new"]
    assert bars.get_ylim() == (1.5, -0.5)  # the first on top
    interval, point, zero = intervals.lines
    assert np.asarray(interval.get_xdata()).tolist() == [-0.05, 0.25]
    assert np.asarray(point.get_xdata()).tolist() == [0.1]
    assert np.asarray(interval.get_ydata()).tolist() == [0.8, 0.8]
    assert np.asarray(zero.get_xdata()).tolist() == [0, 0]
    assert intervals.get_title() == "difference to old, 95 % interval"


def test_a_whole_log_is_drawn_in_two_rows(drawn: Drawn) -> None:
    plot_results(Path("r.png"), records(0.1, 0.2))
    panels = drawn["r.png"].axes
    assert len(panels) == 16 and len({round(panel.get_position().y0, 3) for panel in panels}) == 2


def test_trials_and_the_best_so_far(tmp_path: Path, drawn: Drawn) -> None:
    plot_search(tmp_path / "s.png", [(0, 0.25), (2, 0.5), (3, 0.375), (7, 0.75)], {})
    (figure,) = drawn.values()
    (panel,) = figure.axes
    trials, best = panel.lines
    assert np.asarray(trials.get_xdata()).tolist() == np.asarray(best.get_xdata()).tolist() == [0, 2, 3, 7]
    assert np.asarray(trials.get_ydata()).tolist() == [0.25, 0.5, 0.375, 0.75]
    assert np.asarray(best.get_ydata()).tolist() == [0.25, 0.5, 0.5, 0.75]
    assert best.get_drawstyle() == "steps-post"  # a trial counts from when it is there


def test_the_most_important_are_on_top_and_fifteen_at_most(tmp_path: Path, drawn: Drawn) -> None:
    importance = {f"h{k}": 1 / (k + 2) for k in range(17)}
    plot_search(tmp_path / "s.png", [(0, 0.25)], importance)
    (figure,) = drawn.values()
    _, bars = figure.axes
    shown: list[Any] = list(bars.patches)
    assert len(shown) == 15
    assert shown[-1].get_width() == 0.5  # the highest bar is the first name
    assert [label.get_text() for label in bars.get_yticklabels()][::14] == ["h14", "h0"]


def test_the_old_image_stays_if_the_new_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(figure: Figure, file: Any, **settings: Any) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    (tmp_path / "s.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="No space left"):
        plot_search(tmp_path / "s.png", [(0, 0.25)], {"lr0": 1.0})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"s.png": b"old"}

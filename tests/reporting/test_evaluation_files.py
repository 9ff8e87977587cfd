"""What an evaluation leaves while it runs, and its figures as the console and metrics.json show them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from tests.batches import batch_of
from tests.dataset.images import small_dataset
from tests.evaluation.small_cases import detections_of, labels_of
from tests.reporting.hand_made import COCO, FIGURES, class_report, report_of
from utils.dataset.coco_annotations import ImageAnnotations
from utils.dataset.detection_dataset import DetectionDataset
from utils.evaluation.coco_average_precision import WITHOUT_END, AreaFigures, truth_from_labels
from utils.evaluation.evaluate import labels_and_detections
from utils.geometry.letterbox import FrameSize, LetterboxTransform
from utils.geometry.records import Predictions
from utils.inference.nms import NmsSettings
from utils.reporting.evaluation_files import (
    BatchImages,
    CocoResults,
    HybridLabelFiles,
    SampleImages,
    figure_text,
    format_table,
    narrow_text,
    speed_line,
    write_evaluation_plots,
    write_metrics,
)
from utils.reporting.output_names import OutputNames

SIZE = FrameSize(height=100, width=200)
NO_LABELS = labels_of(size=SIZE)


def test_coco_results_have_the_ids_of_the_annotation_file(tmp_path: Path) -> None:
    annotations = ImageAnnotations(
        file=Path("a.json"),
        truth=truth_from_labels([NO_LABELS] * 3),
        image_ids=(900, -2, 7),  # the file lacks the second image
        category_ids=(44, -1, 3),  # and the second class
    )
    results = CocoResults(annotations, OutputNames().image_id)
    found = detections_of((0, 0.9, 1, 2, 3, 5), (1, 0.8, 0, 0, 9, 9), (2, 0.7, 0, 0, 1, 1), size=SIZE)
    for index in range(3):
        results.on_image(index, Path(f"{index}.jpg"), found, NO_LABELS)
    assert [(entry["image_id"], entry["category_id"]) for entry in results.entries] == [
        (900, 44),
        (900, 3),
        (7, 44),
        (7, 3),
    ]
    assert results.entries[0]["bbox"] == [1, 2, 2, 3]


def test_hybrid_labels_are_the_true_objects_and_what_was_found_elsewhere(tmp_path: Path) -> None:
    # The source is half as large as the network's frame: 50 x 100 at the frame's 100 x 200.
    letterbox = LetterboxTransform(FrameSize(50, 100), SIZE, 2.0, 2.0, 0.0, 0.0)
    true = [np.array([[20.0, 20, 60, 60]]), np.zeros((0, 4))]
    batch = batch_of(true, [[1], []], height=100, width=200)
    object.__setattr__(batch, "letterboxes", (letterbox, None))
    boxes = torch.tensor([[22.0, 20, 62, 60], [120, 20, 160, 60]])  # IoU 38 / 42 with the true object; another one
    predictions = Predictions(
        boxes=boxes.repeat(2, 1, 1),
        objectness=torch.tensor([[0.95, 0.5]] * 2),
        class_probs=torch.tensor([[[0.0, 1.0], [0.5, 0.0]]] * 2),
    )
    find = partial(labels_and_detections, settings=NmsSettings(0.1, 0.5, 10))
    observer = HybridLabelFiles(tmp_path / "labels", OutputNames().of, find, with_scores=True)
    observer.on_batch(0, batch, predictions, [])
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["image0.txt"]
    rows = (tmp_path / "labels" / "image0.txt").read_text().splitlines()
    # The true box is certain and suppresses what was found on it: parts of 40 / 200 and 40 / 100.
    assert rows == ["1 0.2 0.4 0.2 0.4 1", "0 0.7 0.4 0.2 0.4 0.25"]


def test_the_first_three_batches_are_drawn_and_only_with_sure_detections(tmp_path: Path) -> None:
    batch = batch_of([np.array([[20.0, 20, 60, 60]])], height=96, width=128)
    batch = replace(batch, images=batch.images.byte())
    frame = FrameSize(96, 128)
    predictions = Predictions(*(torch.zeros(0),) * 3)
    unsure = detections_of((0, 0.2, 20, 20, 60, 60), size=frame)
    sure = detections_of((0, 0.5, 20, 20, 60, 60), size=frame)
    observer = BatchImages(tmp_path, ("cat",))
    for number, found in enumerate((unsure, sure, sure, sure)):
        observer.on_batch(number, batch, predictions, [found])
    names = [f"val_batch{number}_{kind}.jpg" for number in range(3) for kind in ("labels", "pred")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    edge = [int(np.asarray(cv2.imread(str(tmp_path / name)))[17:20, 30:50].max(axis=(0, 2)).min()) for name in names]
    assert edge[1] < 60 < min(edge[0], *edge[2:])  # an unbroken line above the object, but for the missed one's dots


@pytest.mark.parametrize(("count", "chosen"), [(3, [0, 1, 2]), (4, [0, 1, 2, 3]), (10, [0, 3, 6, 9])])
def test_samples_are_spread_over_the_data_set(tmp_path: Path, count: int, chosen: list[int]) -> None:
    dataset = small_dataset(tmp_path / "set", count)
    folder = tmp_path / "out"
    folder.mkdir()
    observer = SampleImages(folder, dataset, ("a", "b", "c"))
    for index in range(count):
        size = dataset.source_size(index)
        observer.on_image(index, dataset.index.paths[index], detections_of(size=size), labels_of(size=size))
    assert sorted(path.name for path in folder.iterdir()) == [f"sample{number}.jpg" for number in range(len(chosen))]
    for number, index in enumerate(chosen):
        height, width = dataset.source_size(index)
        shown = np.asarray(cv2.imread(str(folder / f"sample{number}.jpg")))
        assert shown.shape[0] > height and shown.shape[1] == 2 * width + 6  # labels, six white columns, verdicts
        assert (shown[:, width + 1 : width + 5] > 225).all()
        assert (shown[height + 8 :, : width - 8] > 225).all() and shown[height + 1 :, width + 8 :].mean() < 80  # legend


class Large:
    """A stand-in for a data set of one large image."""

    class index:  # noqa: N801
        row_ends = np.array([0, 1])

    def source_image(self, index: int) -> np.ndarray:
        return np.full((900, 1800, 3), 100, np.uint8)


def test_a_large_sample_is_drawn_on_a_reduced_copy(tmp_path: Path) -> None:
    size = FrameSize(900, 1800)
    observer = SampleImages(tmp_path, cast(DetectionDataset, Large()), ("a",))
    for index in (0, 1):  # only the second has an object
        found = detections_of((0, 0.1, 0, 0, 9, 9), size=size)  # too low a score to be drawn
        observer.on_image(index, Path("a.jpg"), found, labels_of((0, 400, 400, 800, 600), size=size))
    assert [path.name for path in tmp_path.iterdir()] == ["sample0.jpg"]
    shown: Any = np.asarray(cv2.imread(str(tmp_path / "sample0.jpg"))).astype(int)
    assert shown.shape == (450 + 24, 2 * 900 + 6, 3)  # and a legend of one row
    # The label is from (200, 200) to (400, 300) at half size; its line runs outside.
    assert abs(shown[196:200, 300] - 100).max() > 60 and abs(shown[210:290, 210:390] - 100).max() < 12
    # On the right it is missed: half of each line of three pixels is yellow, the other half dark.
    yellow = shown[198, 906 + 208 : 906 + 392].mean(axis=1) > 100
    assert 0.35 < yellow.mean() < 0.65
    assert abs(shown[:170, 912:] - 100).max() < 12  # above the tag


def test_curves_and_matrix_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **settings: path.write_bytes(b"drawn"))
    write_evaluation_plots(tmp_path, report_of(class_report("cat", 0)))
    names = ["F1_curve.png", "PR_curve.png", "P_curve.png", "R_curve.png", "confusion_matrix.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


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
    report = report_of(class_report("cat", 0), class_report("dog", 1, map50=1.0, objects=9))
    yolov5, coco, points = format_table(report).split("\n\n")
    assert rows(yolov5) == [
        ["Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95"],
        ["all", "5", "21", "0.5", "0.25", "0.375", "0.3"],
        ["cat", "3", "7", "0.9", "0.8", "0.7", "0.6"],
        ["dog", "3", "9", "0.9", "0.8", "1", "0.6"],
    ]
    assert rows(coco)[0] == ["Class", *COCO._fields]
    figures = ["0.5", "0.75", "0.25", "0.125", "0.6", "-", "0.1", "0.2", "0.3", "0.4", "0.5", "-"]
    assert rows(coco)[1:] == [[name, *figures] for name in ("all", "cat", "dog")]
    assert points.splitlines()[0].endswith(" S best F1 S P >= 0.9 S R >= 0.9")
    # Precision never reaches 0.9, recall nowhere above 0; of the two classes nothing is known.
    assert rows(points)[1:] == [
        ["all", "0.500", "-", "-", "0.500", "-", "-"],
        *([name, *["-"] * 6] for name in ("cat", "dog")),
    ]
    # Columns stand below each other: right edges at 22 + 11 k and, of the twelve of COCO, at 22 + 6 k.
    for block, width in ((yolov5, 22 + 6 * 11), (coco, 22 + 12 * 6)):
        assert {len(line) for line in block.splitlines()} == {width}


@pytest.mark.parametrize(
    ("count", "verbose", "shown"),
    [(1, False, 0), (1, True, 1), (2, False, 2), (49, False, 49), (50, False, 0), (50, True, 50)],
)
def test_when_classes_are_listed(count: int, verbose: bool, shown: int) -> None:
    report = report_of(*(class_report(f"c{index}", index) for index in range(count)))
    for block in format_table(report, verbose=verbose).split("\n\n"):
        assert len(rows(block)) == 2 + shown  # the header, the whole


@pytest.mark.case(
    "Words on the terminal", "COCO's table with a long class name", "100 columns at most, the name cut with …"
)
def test_a_long_name_widens_its_column_and_is_cut_where_100_columns_end() -> None:
    for name, shown in (
        ("a name of a class, indeed", " a name of a class, indeed "),
        ("a very long name of a class, indeed", " a very long name of a clas\u2026 "),
    ):
        yolov5, coco, _ = format_table(report_of(class_report(name, 0)), verbose=True).split("\n\n")
        for block in (yolov5, coco):
            (width,) = {len(line) for line in block.splitlines()}
            assert width <= 100 and block.splitlines()[2].startswith(shown)


def test_a_figure_in_five_characters() -> None:
    values = {0.0: "0", 0.5: "0.5", 0.12345: "0.123", 0.01234: "0.012", 0.00123: "0.001", 0.00012: "1e-04", -1.0: "-"}
    assert {value: narrow_text(value) for value in values} == values


def test_ranges_of_area_have_a_block_of_their_own() -> None:
    areas = (AreaFigures("tiny", 0, 256, 4, 0.5, 0.25, 0.125), AreaFigures("big", 256, WITHOUT_END, 0, -1, -1, -1))
    report = report_of(class_report("cat", 0), coco_figures=replace(FIGURES, by_area=areas))
    _, _, block, _ = format_table(report).split("\n\n")
    assert rows(block) == [
        ["Area,", "px^2", "Instances", "AP", "AP50", "AR100"],
        ["tiny", "0-256", "4", "0.5", "0.25", "0.125"],
        ["big", "256-", "0", "-", "-", "-"],
    ]


def test_classes_mixed_up_have_a_block_of_their_own(tmp_path: Path) -> None:
    long = "a very long name of a class, indeed"
    counts = np.zeros((9, 9), dtype=int)
    counts[1, 0], counts[2:8, 1], counts[7, 7] = 8, np.arange(1, 7), 5  # rows are predicted
    names = ("cat", "dog", long, *(f"c{k}" for k in range(3, 8)))
    report = report_of(*(class_report(name, k) for k, name in enumerate(names)), confusion=counts)
    block = format_table(report).split("\n\n")[-1]
    assert [row[-1] for row in rows(block)[1:]] == ["dog", "c7", "c6", "c5", "c4"]
    assert rows(block)[1] == ["cat", "8", "100%", "dog"] and rows(block)[2] == ["dog", "6", "29%", "c7"]
    assert max(map(len, block.splitlines())) <= 100
    content = write_metrics(tmp_path / "metrics.json", report, "a.pt", {})
    assert cast(Any, content)["confusions"][-1] == {
        "true": "dog",
        "predicted": long,
        "objects": 1,
        "share": pytest.approx(1 / 21),
    }


def test_times_per_image() -> None:
    assert speed_line(report_of()) == "Speed: 1.2 ms pre-process, 20.0 ms inference, 3.5 ms NMS per image"


@pytest.mark.case("Words on the terminal", "no object of a size in the data set", "null in metrics.json")
def test_metrics_json_holds_figures_settings_and_what_comes_beside(tmp_path: Path) -> None:
    report = report_of(class_report("cat", 4), loss={"box": 0.1, "objectness": 0.2, "classification": 0.3})
    settings = {"imgsz": 640, "project": Path("runs/val")}  # JSON has no form for a path
    returned = write_metrics(tmp_path / "metrics.json", report, "a.pt", settings, {"errors": [1, 2]})
    read = json.loads((tmp_path / "metrics.json").read_text())
    assert list(read) == list(returned)
    assert read["settings"] == {"imgsz": 640, "project": "runs/val"}
    assert (read["weights"], read["errors"]) == ("a.pt", [1, 2])
    assert [read[key] for key in ("precision", "recall", "map50", "map50_95")] == [0.5, 0.25, 0.375, 0.3]
    # No large object: null.
    assert {key: read[key] for key in COCO._fields} == COCO._asdict() | {"AP_L": None, "AR_L": None}
    assert read["loss"] == {"box": 0.1, "objectness": 0.2, "classification": 0.3}
    assert read["speed_ms"] == {"preprocess": 1.25, "inference": 20.0, "nms": 3.5}
    (cat,) = read["per_class"]
    assert (cat["name"], cat["index"], cat["images"], cat["objects"], cat["AP_L"]) == ("cat", 4, 3, 7, None)

"""The whole evaluation of a detector that answers by rote, numbers worked by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.dataset.images import small_dataset
from tests.evaluation.small_cases import labels_of
from utils.dataset.coco_annotations import CocoTruth
from utils.evaluation.coco_average_precision import CocoSummary
from utils.evaluation.evaluate import (
    EvaluationObserver,
    EvaluationSettings,
    class_names,
    drawn_names,
    evaluate,
    images_of_all,
    true_labels,
)
from utils.evaluation.evaluation_report import EvaluatedImage, SpeedFigures
from utils.geometry.letterbox import FrameSize, LetterboxTransform
from utils.geometry.records import Batch, Detections, HeadMaps, Labels, LossParts, Predictions
from utils.runtime.process_ranks import ProcessRanks
from utils.user_error import UserError

# An image of 200 x 300 pixels, halved and set into 128 x 160: 150 + 2 x 5 wide, 100 + 2 x 14 high.
SOURCE = FrameSize(200, 300)
HALVED = LetterboxTransform(SOURCE, FrameSize(128, 160), scale_x=0.5, scale_y=0.5, pad_left=5, pad_top=14)
QUIET = EvaluationSettings(progress=False)
CPU = torch.device("cpu")


@dataclass
class RoteData:
    images: list[Labels]
    coco_truth: CocoTruth | None = None

    def source_labels(self, index: int) -> Labels:
        return self.images[index]


@dataclass
class RoteLoader:
    """Batches of two images, last image first."""

    dataset: RoteData

    def __len__(self) -> int:
        return (len(self.dataset.images) + 1) // 2

    def __iter__(self) -> Iterator[Batch]:
        order = list(reversed(range(len(self.dataset.images))))
        for start in range(0, len(order), 2):
            indices = tuple(order[start : start + 2])
            yield Batch(
                images=torch.stack([torch.full((3, 128, 160), i, dtype=torch.uint8) for i in indices]),
                boxes=torch.zeros(0, 4),
                classes=torch.zeros(0, dtype=torch.int64),
                image_index=torch.zeros(0, dtype=torch.int64),
                letterboxes=(HALVED,) * len(indices),
                paths=tuple(Path(f"{i}.jpg") for i in indices),
                indices=indices,
            )


class RoteDetector:
    """Knows each image by its grey value and gives the rows ``class score x1 y1 x2 y2`` (source pixels) for it."""

    names = ("car", "boat")

    def __init__(self, answers: Sequence[Sequence[Sequence[float]]]) -> None:
        self.answers = answers
        self.asked: set[float] = set()  # for what scores more than these

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        self.asked.add(least_score)
        most = max(len(rows) for rows in self.answers)
        boxes = torch.zeros(len(images), most, 4)
        objectness = torch.zeros(len(images), most)
        probs = torch.zeros(len(images), most, len(self.names))
        for place, image in enumerate(images):
            for row, (kind, score, *box) in enumerate(self.answers[round(image[0, 0, 0].item() * 255)]):
                boxes[place, row] = HALVED.to_network(torch.tensor(box, dtype=torch.float32))
                objectness[place, row], probs[place, row, int(kind)] = score, 1
        return Predictions(boxes, objectness, probs)


class RoteModel(RoteDetector):
    """Gives its predictions by way of raw maps."""

    def __call__(self, images: torch.Tensor) -> HeadMaps:
        return HeadMaps((images,))

    def decode(self, maps: HeadMaps, least_score: float = 0.0) -> Predictions:
        return self.predict(maps.levels[0], least_score)


CAR, BOAT = [0, 10, 10, 30, 30], [1, 100, 50, 200, 150]
TRUTH = [labels_of(CAR, BOAT), labels_of(CAR), labels_of()]
PERFECT = [[[0, 0.9, *CAR[1:]], [1, 0.8, *BOAT[1:]]], [[0, 0.7, *CAR[1:]]], []]


def loader_of(images: list[Labels]) -> RoteLoader:
    return RoteLoader(RoteData(images))


def test_perfect_detections() -> None:
    detector = RoteDetector(PERFECT)
    report = evaluate(detector, loader_of(TRUTH), QUIET, CPU)
    assert detector.asked == {QUIET.suppression.conf_thres}
    assert (report.images, report.objects, report.loss) == (3, 3, None)
    assert report.precision == report.recall == 1
    np.testing.assert_allclose([report.map50, report.map50_95], 0.995)
    # The car (400 square pixels) is small, the boat (10 000) large; nothing is medium.
    np.testing.assert_allclose(report.coco, [1, 1, 1, 1, -1, 1, 1, 1, 1, 1, -1, 1], atol=1e-9)
    assert [(row.name, row.index, row.images, row.objects) for row in report.per_class] == [
        ("car", 0, 2, 2),
        ("boat", 1, 1, 1),
    ]
    np.testing.assert_allclose(report.per_class[1].coco.AP_L, 1)
    assert report.confusion.tolist() == [[2, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_a_missed_boat_and_an_invented_car() -> None:
    answers = [[[0, 0.9, *CAR[1:]]], [[0, 0.7, *CAR[1:]]], [[0, 0.8, 0, 0, 50, 50]]]
    report = evaluate(RoteDetector(answers), loader_of(TRUTH), QUIET, CPU)
    # Cars by score: hit, miss, hit out of 2. AP by YOLOv5's trapezoids: 50 samples of 1, 50 of 2/3, the last 0.
    car = (0.5 + 49 + 50 * 2 / 3) / 100
    np.testing.assert_allclose([row.map50 for row in report.per_class], [car, 0])
    np.testing.assert_allclose(report.map50, car / 2)
    # By COCO's mean of samples: recalls 0.00 ... 0.50 (51 of 101) at 1, the other 50 at 2/3.
    np.testing.assert_allclose(report.coco.AP, (51 + 50 * 2 / 3) / 101 / 2)
    np.testing.assert_allclose((report.precision, report.recall), (2 / 3 / 2, 0.5))
    assert report.confusion.tolist() == [[2, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_thresholds_of_small_objects_leave_out_larger_ones_and_what_found_them() -> None:
    near, far = [0, 10, 10, 30, 30], [0, 100, 50, 200, 150]  # 400 and 10 000 square pixels
    found = [[0, 0.95, *far[1:]], [0, 0.85, 210, 0, 290, 80], [0, 0.6, *near[1:]], [0, 0.3, 0, 100, 20, 120]]
    report = evaluate(RoteDetector([found]), loader_of([labels_of(near, far)]), QUIET, CPU)
    # All: hit, miss, hit, miss. Precision falls from 1 at 0.95 to 1/2 at 0.85, recall rises from 1/2 there to 1 at 0.6.
    assert report.thresholds.precision_90 == pytest.approx(0.93, abs=0.0011)
    assert report.thresholds.recall_90 == pytest.approx(0.65, abs=0.0011)
    # Small: hit at 0.6, miss at 0.3.
    assert report.thresholds_small.precision_90 == pytest.approx(0.54, abs=0.0011)
    assert report.thresholds_small.recall_90 == pytest.approx(0.6, abs=0.0011)
    (row,) = report.per_class
    assert (row.thresholds, row.thresholds_small) == (report.thresholds, report.thresholds_small)
    assert report.as_dict()["thresholds_small"] == report.thresholds_small._asdict()
    assert report.stored_thresholds() == {
        **report.thresholds._asdict(),
        "small": report.thresholds_small._asdict(),
        "classes": {0: {"objects": 2, **report.thresholds._asdict()}},
    }


def test_single_class_joins_what_is_found_and_what_is_true() -> None:
    answers = [[[1, 0.9, *CAR[1:]], [0, 0.8, *BOAT[1:]]], [[1, 0.7, *CAR[1:]]], []]
    assert evaluate(RoteDetector(answers), loader_of(TRUTH), QUIET, CPU).map50 == 0
    report = evaluate(RoteDetector(answers), loader_of(TRUTH), EvaluationSettings(single_cls=True, progress=False), CPU)
    assert report.names == ("item",)
    np.testing.assert_allclose(report.map50, 0.995)
    assert report.per_class[0].objects == 3


def test_loss_is_the_mean_over_batches_and_needs_raw_maps() -> None:
    class Loss:
        part_names = LossParts._fields

        def __call__(self, maps: HeadMaps, batch: Batch) -> LossParts:
            assert maps.levels[0].shape == batch.images.shape
            return LossParts(torch.tensor(float(len(batch.paths))), torch.tensor(0.5), torch.tensor(0.25))

    loss = Loss()
    model = RoteModel(PERFECT)
    report = evaluate(model, loader_of(TRUTH), QUIET, CPU, loss=loss)
    assert model.asked == {QUIET.suppression.conf_thres}
    # Batches of 2 and 1 images.
    assert report.loss == {"box": 1.5, "objectness": 0.5, "classification": 0.25}
    np.testing.assert_allclose(report.map50, 0.995)
    with pytest.raises(TypeError, match="no raw maps"):
        evaluate(RoteDetector(PERFECT), loader_of(TRUTH), QUIET, CPU, loss=loss)


def test_observers_see_every_image_in_source_pixels_and_every_batch_in_network_pixels() -> None:
    class Recorder(EvaluationObserver):
        def __init__(self) -> None:
            self.images: dict[int, Detections] = {}
            self.batches: list[tuple[int, FrameSize]] = []

        def on_batch(
            self, number: int, batch: Batch, predictions: Predictions, detections: Sequence[Detections]
        ) -> None:
            assert batch.images.dtype == torch.uint8  # as loaded: a GPU's copy would have to come back to be drawn
            self.batches += [(number, one.size) for one in detections]

        def on_image(self, index: int, path: Path, detections: Detections, labels: Labels) -> None:
            assert path == Path(f"{index}.jpg")
            assert labels is TRUTH[index]
            self.images[index] = detections

    recorder = Recorder()
    evaluate(RoteDetector(PERFECT), loader_of(TRUTH), QUIET, CPU, observers=[recorder])
    assert recorder.batches == [(0, HALVED.network), (0, HALVED.network), (1, HALVED.network)]
    assert recorder.images[0].boxes.tolist() == [CAR[1:], BOAT[1:]]
    assert recorder.images[0].size == SOURCE
    assert len(recorder.images[2]) == 0


def test_a_stage_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class SlowModel(RoteModel):
        def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
            nonlocal now
            now += 3 * len(images)
            return super().predict(images)

    class SlowLoss:
        part_names = LossParts._fields

        def __call__(self, maps: HeadMaps, batch: Batch) -> LossParts:
            nonlocal now
            now += 10
            return LossParts(*torch.zeros(3))

    monkeypatch.setattr("utils.runtime.streams.time", SimpleNamespace(perf_counter=lambda: now))
    report = evaluate(SlowModel(PERFECT), loader_of(TRUTH), QUIET, CPU, loss=SlowLoss())
    assert report.speed_ms == SpeedFigures(preprocess=0, inference=3000, nms=0)


def test_plain_values_for_the_metrics_file() -> None:
    plain = evaluate(RoteDetector(PERFECT), loader_of(TRUTH), QUIET, CPU).as_dict()
    for key in ("precision", "recall", "map50", "map50_95", *CocoSummary._fields):
        assert (plain[key] is None) if key in ("AP_M", "AR_M") else isinstance(plain[key], float), key
    assert plain["images"] == 3
    assert plain["loss"] is None
    assert isinstance(plain["per_class"], list)
    assert plain["per_class"][0]["name"] == "car"
    assert plain["per_class"][0]["AP_S"] == pytest.approx(1)


def test_a_module_is_in_eval_mode_during_the_evaluation_only() -> None:
    class Module(torch.nn.Module):
        names = ("car", "boat")
        seen: bool | None = None

        def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
            Module.seen = self.training
            return RoteDetector(PERFECT).predict(images)

    module = Module()
    evaluate(module, loader_of(TRUTH), QUIET, CPU)
    assert Module.seen is False
    assert module.training


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"0\.jpg: its labels name class 5, but the model has 2 classes"):
        evaluate(
            RoteDetector(PERFECT), loader_of([labels_of([5, 0, 0, 9, 9]), labels_of(CAR), labels_of()]), QUIET, CPU
        )
    with pytest.raises(UserError, match="no images"):
        evaluate(RoteDetector(PERFECT), loader_of([]), QUIET, CPU)


def test_a_process_without_images_exchanges_what_one_with_images_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_dataset(tmp_path, 1)
    exchanged: list[torch.Tensor] = []

    def all_rows(_: ProcessRanks, rows: torch.Tensor) -> torch.Tensor:  # as if the other process had nothing
        exchanged.append(rows)
        return rows

    monkeypatch.setattr(ProcessRanks, "all_rows", all_rows)
    ranks = ProcessRanks(torch.device("cpu"), rank=1, world=2)
    labels = true_labels(dataset, 0, single_cls=False)
    found = Detections(torch.ones((2, 4)), torch.ones(2), torch.zeros(2, dtype=torch.int64), labels.size)
    kinds = []
    for images in ([EvaluatedImage(0, labels, found)], []):
        exchanged.clear()
        assert len(images_of_all(images, dataset, False, ranks)) == len(images)
        kinds.append([(rows.dtype, rows.shape[1]) for rows in exchanged])
    assert kinds[0] == kinds[1] and len(kinds[0]) == 2


def test_names_with_classes_as_one() -> None:
    assert class_names(["a", "b", "c"], single_cls=False) == drawn_names(["a", "b", "c"], single_cls=False)
    assert class_names(["a", "b", "c"], single_cls=True) == ("item",)
    assert drawn_names(["a", "b", "c"], single_cls=True) == ("item", "item", "item"), "one for every class id"

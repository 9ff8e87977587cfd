"""Accuracy figures, worked by hand."""

from __future__ import annotations

import ast
import math

import numpy as np
import pytest
import torch

from tests.shared_data import REPOSITORY
from tests.test_import_order import imported_modules
from utils.evaluation.classification import ClassificationSettings, evaluate_classifier
from utils.geometry.records import ClassificationBatch
from utils.loss.classification_loss import ClassificationLoss
from utils.reporting.classification_files import ClassificationRecord, accuracy_table

NAMES = tuple("abcdefg")


def batch(classes: list[int]) -> ClassificationBatch:
    """Images whose first pixel's red value is their number."""
    images = torch.zeros(len(classes), 3, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(len(classes), dtype=torch.uint8)
    return ClassificationBatch(images, torch.tensor(classes), tuple(range(len(classes))))


def ranked(orders: list[list[int]]) -> torch.Tensor:
    """Logits (B, 7) that put classes in the given order, best first."""
    logits = torch.zeros(len(orders), len(NAMES))
    for row, order in zip(logits, orders, strict=True):
        row[torch.tensor(order)] = torch.arange(len(order), 0, -1).float()
    return logits


def test_it_needs_nothing_of_detection() -> None:
    reached, waiting = set(), ["utils.evaluation.classification"]
    while waiting:
        module = waiting.pop()
        file = REPOSITORY / f"{module.replace('.', '/')}.py"
        if module in reached or not file.is_file():
            continue
        reached.add(module)
        waiting += [name.rpartition(".")[0] for _, name in imported_modules(ast.parse(file.read_text("utf-8")))]
    further = reached - {"utils.evaluation.classification"}
    assert {".".join(module.split(".")[:2]) for module in further} <= {
        "utils.geometry",
        "utils.runtime",
        "utils.user_error",
    }


def test_top1_top5_classes_and_confusion() -> None:
    truth = [0, 0, 1, 2]
    orders = [[0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 0, 5, 6], [2, 3, 4, 5, 6, 1, 0], [2, 0, 1, 3, 4, 5, 6]]
    report = evaluate_classifier(
        lambda images: ranked(orders),
        [batch(truth)],
        ClassificationSettings(NAMES, ClassificationLoss()),
        torch.device("cpu"),
    )
    assert report.images == 4
    assert report.top1 == 0.5  # images 0 and 3
    assert report.top5 == 0.75  # the truth of image 1 is fifth, that of image 2 sixth
    assert report.class_top1.tolist()[:3] == [0.5, 0.0, 1.0] and math.isnan(report.class_top1[3])
    assert report.class_top5.tolist()[:3] == [1.0, 0.0, 1.0]
    expected = np.zeros((7, 7), dtype=int)
    expected[0, 0] = expected[1, 0] = expected[2, 1] = expected[2, 2] = 1
    np.testing.assert_array_equal(report.confusion, expected)
    table = accuracy_table(report, verbose=True).splitlines()
    assert table[1].split() == ["all", "4", "0.5", "0.75"] and table[5].split() == ["d", "0", "-", "-"]


def test_few_classes_have_a_top5_of_all() -> None:
    report = evaluate_classifier(
        lambda images: torch.tensor([[1.0, 0.0], [1.0, 0.0]]),
        [batch([0, 1])],
        ClassificationSettings(("a", "b"), ClassificationLoss()),
        torch.device("cpu"),
    )
    assert (report.top1, report.top5) == (0.5, 1.0)


def test_the_loss_is_a_mean_over_images_not_over_batches() -> None:
    def network(images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), 2) if len(images) == 3 else torch.tensor([[0.0, 20.0]])

    settings = ClassificationSettings(("a", "b"), ClassificationLoss())
    report = evaluate_classifier(network, [batch([0, 1, 0]), batch([0])], settings, torch.device("cpu"))
    assert report.loss == pytest.approx((3 * math.log(2) + 20) / 4, rel=1e-6)


def test_smoothing_spreads_over_all_classes() -> None:
    # softmax of (ln 3, 0) is (3/4, 1/4); the targets are (0.9, 0.1) with a smoothing of 0.2.
    loss = ClassificationLoss(0.2)(torch.tensor([[math.log(3), 0.0]]), batch([0])).total
    assert loss.item() == pytest.approx(-0.9 * math.log(0.75) - 0.1 * math.log(0.25), rel=1e-6)


def test_the_columns_are_yolov5s() -> None:
    record = ClassificationRecord(epoch=2, part="test", train_loss=1.5, val_loss=2.5, top1=0.25, top5=0.5, lr0=0.01)
    columns = ["epoch", "train/loss", "test/loss", "metrics/accuracy_top1", "metrics/accuracy_top5", "lr/0"]
    assert list(record.row()) == columns and list(record.row().values()) == [2, 1.5, 2.5, 0.25, 0.5, 0.01]
    assert not ClassificationRecord(epoch=0, train_loss=1, lr0=1).evaluated and record.fitness == 0.25

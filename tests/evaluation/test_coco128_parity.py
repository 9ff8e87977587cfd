"""Official weights on real pictures: the figures of the original program."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.fuse import fused
from models.weights import load_model
from tests.shared_data import SHARED, needs_shared
from utils.dataset.loaders import LoaderSettings, evaluation_loader, open_dataset
from utils.evaluation.evaluate import EvaluationReport, EvaluationSettings, evaluate

TOLERANCE = 0.001


def report_of(batch_size: int, cache: Path) -> EvaluationReport:
    model = fused(load_model(SHARED / "weights" / "yolov5n.pt"))
    dataset = open_dataset((SHARED / "data" / "coco128" / "images" / "train2017",), model.names, cache_folder=cache)
    loader = evaluation_loader(dataset, 640, LoaderSettings(batch_size=batch_size), stride=model.stride)
    return evaluate(model, loader, replace(EvaluationSettings(), progress=False), torch.device("cpu"))


@needs_shared
@pytest.mark.acceptance
@pytest.mark.parametrize("batch_size", [1, 32])
def test_figures_of_the_original_program(batch_size: int, tmp_path: Path) -> None:
    reference = json.loads((SHARED / "reference" / "yolov5n_coco128_metrics.json").read_text())
    report = report_of(batch_size, tmp_path)
    expected = reference[f"batch{batch_size}"]
    ours = {"P": report.precision, "R": report.recall, "mAP50": report.map50, "mAP": report.map50_95}
    np.testing.assert_allclose([ours[key] for key in expected], list(expected.values()), rtol=0, atol=TOLERANCE)
    assert (report.images, report.objects) == (128, 929)
    if batch_size == 1:
        coco = reference["coco_stats_batch1"]
        np.testing.assert_allclose(report.coco, [coco[key] for key in report.coco._fields], rtol=0, atol=TOLERANCE)
        # The original program fills classes without objects with the mean.
        for row in report.per_class:
            np.testing.assert_allclose(row.map50_95, reference["per_class_mAP"][row.index], rtol=0, atol=TOLERANCE)

"""The model that a training run starts from: architecture, classes, weights, anchors."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch

from models.transfer import transfer_weights
from models.weights import read_weights
from models.yolo import DetectionModel, find_architecture, read_architecture
from utils.config.weights_by_name import find_weights
from utils.dataset.anchor_fitting import FitSettings, anchor_fit, object_sizes, refit_anchors
from utils.dataset.detection_dataset import DetectionDataset
from utils.user_error import UsageError

LOGGER = logging.getLogger(__name__)
LEAST_RECALL = 0.98


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from: a weights file, an architecture, or both."""

    weights: str
    architecture: str

    def __post_init__(self) -> None:
        if not self.weights and not self.architecture:
            raise UsageError("--weights '' needs --cfg: there is no other way to know the architecture")


def starting_model(source: ModelSource, names: tuple[str, ...], anchors_per_level: int | None = None) -> DetectionModel:
    """A model for classes ``names``, with the weights of the source as far as they fit; the log says how far.

    Anchors come from the weights unless an architecture is named.
    """
    weights = read_weights(find_weights(source.weights)) if source.weights else None
    if source.architecture:
        architecture = read_architecture(find_architecture(source.architecture))
    else:
        assert weights is not None  # ModelSource has one of the two
        architecture = weights.architecture
    if anchors_per_level:
        architecture = architecture.with_anchor_count(anchors_per_level)
    model = DetectionModel(architecture, class_count=len(names), names=names)
    if weights is not None:
        if not source.architecture and not anchors_per_level:
            weights.give_anchors(model)
        for line in transfer_weights(model, weights).lines():
            LOGGER.info(line)
    return model


def fit_anchors(model: DetectionModel, dataset: DetectionDataset, imgsz: int, threshold: float) -> None:
    """Check the model's anchors against the data set and replace them where they leave objects out.

    As YOLOv5: new anchors are sought when fewer than 98 % of the objects have an anchor within a factor of
    ``threshold``, and taken if they reach more objects. Recall is logged before and after.
    """
    sizes = object_sizes(dataset.index, imgsz, np.random.default_rng(0))
    anchors = model.anchors.cpu().numpy().reshape(-1, 2)
    before = anchor_fit(sizes, anchors, threshold)
    LOGGER.info("anchors: best possible recall %.4f, %.2f anchors per object", *before)
    if before.best_possible_recall >= LEAST_RECALL:
        return
    try:
        fitted = refit_anchors(sizes, len(anchors), FitSettings(threshold=threshold))
    except ValueError as error:
        LOGGER.warning("anchors kept: %s", error)
        return
    after = anchor_fit(sizes, fitted, threshold)
    taken = after.best_possible_recall > before.best_possible_recall
    LOGGER.info(
        "re-fitted anchors: best possible recall %.4f, %.2f anchors per object; %s",
        *after,
        "taken" if taken else "not better, kept",
    )
    if taken:
        model.set_anchors(torch.from_numpy(fitted).reshape(model.anchors.shape).to(model.anchors))

"""The model that a training run starts from: architecture, classes, weights, anchors."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from models.transfer import transfer_weights
from models.weights import read_weights
from models.yolo import DetectionModel, find_architecture, read_architecture
from utils.config.weights_by_name import find_weights
from utils.dataset.detection_dataset import DetectionDataset
from utils.user_error import UsageError

LOGGER = logging.getLogger(__name__)
LEAST_RECALL = 0.98  # best possible recall below which YOLOv5 looks for better anchors


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
            model.set_anchors(weights.anchors)
        for line in transfer_weights(model, weights).lines():
            LOGGER.info(line)
    return model

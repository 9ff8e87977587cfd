"""The model that a training run starts from: architecture, classes, weights, anchors, and which layers stay."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from models.architecture import Architecture
from models.transfer import transfer_weights
from models.weights import ModelWeights, read_weights
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

    def read(self) -> tuple[Architecture, ModelWeights | None]:
        """The architecture, of the weights unless one is named, and the weights if there are any."""
        weights = read_weights(find_weights(self.weights)) if self.weights else None
        if self.architecture:
            return read_architecture(find_architecture(self.architecture)), weights
        assert weights is not None  # see above
        return weights.architecture, weights


class StartingModel(NamedTuple):
    """A model to begin with."""

    model: DetectionModel
    head_from: str  # the file that weights of its head were taken from; empty if it starts fresh


def starting_model(source: ModelSource, names: tuple[str, ...], anchors_per_level: int | None = None) -> StartingModel:
    """A model for classes ``names``, with the weights of the source as far as they fit; the log says how far.

    Anchors come from the weights unless an architecture is named.
    """
    architecture, weights = source.read()
    if anchors_per_level and architecture.anchors == 0:
        LOGGER.warning("%s: its head has no anchors; the hyperparameter 'anchors' has no effect", architecture.origin)
    elif anchors_per_level:
        architecture = architecture.with_anchor_count(anchors_per_level)
    model = DetectionModel(architecture, class_count=len(names), names=names)
    if weights is not None:
        if len(names) == len(weights.names) > 1 and set(names).isdisjoint(weights.names):
            LOGGER.warning(
                "%s: its classes have other names (class 0 is %r, here %r): they are taken by number",
                *(weights.path, weights.names[0], names[0]),
            )
        if not source.architecture and not anchors_per_level:
            weights.give_anchors(model)
        report = transfer_weights(model, weights)
        for line in report.lines():
            LOGGER.info(line)
        if any(name.startswith(f"model.{len(model.plan) - 1}.") for name in report.taken):
            return StartingModel(model, weights.path.name)
    return StartingModel(model, "")


def fit_anchors(start: StartingModel, dataset: DetectionDataset, imgsz: int, threshold: float) -> None:
    """Check the model's anchors against the data set and replace them where they leave objects out.

    As YOLOv5: new anchors are sought when fewer than 98 % of the objects have an anchor within a factor of
    ``threshold``, and taken if they reach more objects. Recall is logged before and after. A head that was trained for
    the anchors before loses much of its start by that, which is said.
    """
    model = start.model
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
    if taken and start.head_from:
        LOGGER.warning(
            "the head from %s was trained for the anchors before and starts worse with these; --noautoanchor keeps "
            "them, and the %.1f %% of the objects that they do not suit are then not learned",
            *(start.head_from, 100 * (1 - before.best_possible_recall)),
        )


def freeze_layers(model: DetectionModel, wanted: Sequence[str]) -> tuple[str, ...]:
    """Stop the gradient of the wanted layers' parameters; the names of those parameters.

    Args:
        model: layers are counted as in its YAML.
        wanted: one number ``N`` for the layers 0 to N - 1 (``0`` for none); several numbers for those layers; or
            names as in a checkpoint, whole up to a point: ``model.24``, ``model.0.conv``.

    Raises:
        UsageError: no such layer, or nothing would be left to train.
    """
    if len(wanted) == 1 and wanted[0].isdigit():
        _existing_layer(model, int(wanted[0]) - 1, wanted[0])
        prefixes = [f"model.{layer}" for layer in range(int(wanted[0]))]
    else:
        prefixes = [_prefix(model, text) for text in wanted]
    names = [name for name, _ in model.named_parameters()]
    frozen = {name for name in names for prefix in prefixes if name.startswith(f"{prefix}.") or name == prefix}
    if len(frozen) == len(names):
        raise UsageError(f"--freeze {' '.join(wanted)}: nothing would be left to train")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return tuple(name for name in names if name in frozen)


def _existing_layer(model: DetectionModel, layer: int, text: str) -> None:
    if layer >= len(model.model):
        raise UsageError(f"--freeze {text}: the model has {len(model.model)} layers")


def _prefix(model: DetectionModel, text: str) -> str:
    if text.isdigit():
        _existing_layer(model, int(text), text)
        return f"model.{text}"
    if not any(name == text or name.startswith(f"{text}.") for name, _ in model.named_parameters()):
        raise UsageError(f"--freeze {text}: no parameter is called so; names are such as model.0.conv or model.24")
    return text

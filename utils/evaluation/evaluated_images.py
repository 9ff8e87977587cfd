"""What is there and what was found, image by image, over all processes of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from utils.dataset.coco_annotations import CocoTruth
from utils.geometry.records import Batch, Detections, Labels, Predictions
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.runtime.process_ranks import ProcessRanks


class LabelledImages(Protocol):
    """The data set behind a loader."""

    @property
    def coco_truth(self) -> CocoTruth | None: ...

    def source_labels(self, index: int) -> Labels: ...


@dataclass(frozen=True, slots=True)
class EvaluatedImage:
    """Labels and detections of one image, in source pixels."""

    index: int  # in the data set
    labels: Labels
    detections: Detections


def true_labels(dataset: LabelledImages, index: int, single_cls: bool) -> Labels:
    """Labels of an image; with ``single_cls`` all of class 0."""
    labels = dataset.source_labels(index)
    return replace(labels, classes=np.zeros_like(labels.classes)) if single_cls else labels


def images_of_all(
    images: Sequence[EvaluatedImage], dataset: LabelledImages, single_cls: bool, ranks: ProcessRanks
) -> list[EvaluatedImage]:
    """The images of every process. Detections travel; labels are read from the data set, which all have."""
    if ranks.world == 1:
        return list(images)
    indices = ranks.all_rows(torch.tensor([[image.index] for image in images], dtype=torch.int64).reshape(-1, 1))
    own = [_rows(image) for image in images]
    rows = ranks.all_rows(torch.cat(own) if own else torch.zeros((0, 7), dtype=torch.float64))
    order = torch.argsort(rows[:, 0], stable=True)  # an image's detections keep their order, best first
    rows = rows[order]
    bounds = torch.searchsorted(rows[:, 0].contiguous(), torch.unique(indices).double()).tolist() + [len(rows)]
    return [
        _image(index, rows[start:stop], dataset, single_cls)
        for index, start, stop in zip(torch.unique(indices).tolist(), bounds[:-1], bounds[1:], strict=True)
    ]


def labels_and_detections(batch: Batch, predictions: Predictions, settings: NmsSettings) -> list[Detections]:
    """The true objects of each image and what was found where none of them is, in network pixels.

    Labels enter suppression in front of the predictions (B, K), as boxes that are certain of their class.
    """
    images, _, class_count = predictions.class_probs.shape
    most = int(torch.bincount(batch.image_index, minlength=images).max()) if len(batch.classes) else 0
    boxes = predictions.boxes.new_zeros(images, most, 4)
    objectness = predictions.objectness.new_zeros(images, most)
    class_probs = predictions.class_probs.new_zeros(images, most, class_count)
    for place in range(images):
        own = batch.image_index == place
        count = int(own.sum())
        boxes[place, :count] = batch.boxes[own].to(boxes.dtype)
        objectness[place, :count] = 1
        class_probs[place, torch.arange(count, device=boxes.device), batch.classes[own]] = 1
    added = (boxes, objectness, class_probs)
    known = Predictions(*(torch.cat(pair, dim=1) for pair in zip(added, predictions, strict=True)))
    return non_max_suppression(known, settings, batch.size)


def _rows(image: EvaluatedImage) -> torch.Tensor:
    """Detections as (N, 7) float64: index, box, score, class."""
    found = image.detections
    index = torch.full((len(found), 1), image.index, dtype=torch.float64)
    return torch.cat((index, found.boxes.double(), found.scores[:, None].double(), found.classes[:, None].double()), 1)


def _image(index: int, rows: torch.Tensor, dataset: LabelledImages, single_cls: bool) -> EvaluatedImage:
    labels = true_labels(dataset, index, single_cls)
    boxes, scores, classes = rows[:, 1:5].float(), rows[:, 5].float(), rows[:, 6].long()
    return EvaluatedImage(index, labels, Detections(boxes, scores, classes, labels.size))

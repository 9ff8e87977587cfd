"""What is there and what was found, picture by picture, over all processes of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from utils.dataset.coco_annotations import CocoTruth
from utils.geometry.records import Detections, Labels
from utils.runtime.process_ranks import ProcessRanks


class LabelledPictures(Protocol):
    """The data set behind a loader."""

    @property
    def coco_truth(self) -> CocoTruth | None: ...

    def source_labels(self, index: int) -> Labels: ...


@dataclass(frozen=True, slots=True)
class EvaluatedPicture:
    """Labels and detections of one picture, in source pixels."""

    index: int  # in the data set
    labels: Labels
    detections: Detections


def true_labels(dataset: LabelledPictures, index: int, single_cls: bool) -> Labels:
    """Labels of a picture; with ``single_cls`` all of class 0."""
    labels = dataset.source_labels(index)
    return replace(labels, classes=np.zeros_like(labels.classes)) if single_cls else labels


def pictures_of_all(
    pictures: Sequence[EvaluatedPicture], dataset: LabelledPictures, single_cls: bool, ranks: ProcessRanks
) -> list[EvaluatedPicture]:
    """The pictures of every process. Detections travel; labels are read from the data set, which all have."""
    if ranks.world == 1:
        return list(pictures)
    indices = ranks.all_rows(torch.tensor([[picture.index] for picture in pictures], dtype=torch.int64).reshape(-1, 1))
    own = [_rows(picture) for picture in pictures]
    rows = ranks.all_rows(torch.cat(own) if own else torch.zeros((0, 7), dtype=torch.float64))
    order = torch.argsort(rows[:, 0], stable=True)  # a picture's detections keep their order, best first
    rows = rows[order]
    bounds = torch.searchsorted(rows[:, 0].contiguous(), torch.unique(indices).double()).tolist() + [len(rows)]
    return [
        _picture(index, rows[start:stop], dataset, single_cls)
        for index, start, stop in zip(torch.unique(indices).tolist(), bounds[:-1], bounds[1:], strict=True)
    ]


def _rows(picture: EvaluatedPicture) -> torch.Tensor:
    """Detections as (N, 7) float64: index, box, score, class."""
    found = picture.detections
    index = torch.full((len(found), 1), picture.index, dtype=torch.float64)
    return torch.cat((index, found.boxes.double(), found.scores[:, None].double(), found.classes[:, None].double()), 1)


def _picture(index: int, rows: torch.Tensor, dataset: LabelledPictures, single_cls: bool) -> EvaluatedPicture:
    labels = true_labels(dataset, index, single_cls)
    boxes, scores, classes = rows[:, 1:5].float(), rows[:, 5].float(), rows[:, 6].long()
    return EvaluatedPicture(index, labels, Detections(boxes, scores, classes, labels.size))

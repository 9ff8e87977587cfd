"""Non-maximum suppression: from thousands of overlapping predictions to one detection per object."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections, Predictions
from utils.runtime.torchvision_operators import nms

MAX_CANDIDATES = 30_000  # (box, class) pairs of one image that enter suppression, best first
CLASS_OFFSET = 7680.0  # pixels between the frames of two classes, so that boxes of different classes never overlap


@dataclass(frozen=True, slots=True)
class NmsSettings:
    """How predictions become detections."""

    conf_thres: float  # lowest score, 0-1; objectness has to pass it too
    iou_thres: float  # a box that overlaps a better one by more is dropped, 0-1
    max_det: int  # most detections per image
    multi_label: bool = False  # every class above conf_thres instead of the best class only
    agnostic: bool = False  # suppress across classes
    classes: tuple[int, ...] | None = None  # keep these classes only
    class_thres: tuple[float, ...] = ()  # lowest score of each class; conf_thres is then the lowest of them


def non_max_suppression(
    predictions: Predictions, settings: NmsSettings, size: FrameSize, predicted: Callable[[], object] = lambda: None
) -> list[Detections]:
    """Greedy suppression as YOLOv5 does it; the score of a box for a class is objectness times class probability.

    The candidates of all images are found together: a GPU stops twice to count them, once for each image's
    suppression, and once to give everything that is left to the CPU.

    Args:
        predictions: decoded output of the detector for B images, xyxy in network pixels.
        settings: thresholds.
        size: the network frame, which the detections carry on.
        predicted: called once the predictions are there, for which a GPU may still be at work when this is called.

    Returns:
        B detections on the CPU, float32 xyxy in network pixels, best score first.
    """
    if predictions.objectness.device.type == "cpu":  # which has nobody to wait for, and a cache that holds one image
        predicted()
        each = (Predictions(*(part[None] for part in one)) for one in zip(*predictions, strict=True))
        return [found for one in each for found in _suppress_batch(one, settings, size)]
    return _suppress_batch(predictions, settings, size, predicted)


def _suppress_batch(
    predictions: Predictions, settings: NmsSettings, size: FrameSize, predicted: Callable[[], object] = lambda: None
) -> list[Detections]:
    passing = predictions.objectness.flatten() > settings.conf_thres  # NaN never passes
    rows = passing.nonzero().squeeze(1)  # the first answer that a GPU is waited for
    predicted()
    boxes, scores, classes, box_index, counts = _candidates(predictions, rows, settings)
    kept: list[torch.Tensor] = []
    start = 0
    for count in counts:
        best, order = _best_first(scores[start : start + count])
        order = order + start
        candidates = boxes[box_index[order]]
        # The offset is added in float32, as YOLOv5 does: at high class numbers it rounds the boxes a little, and
        # figures are to be equal.
        shifted = candidates if settings.agnostic else candidates + (classes[order].float() * CLASS_OFFSET)[:, None]
        kept.append(order[_first_survivors(shifted, best, settings)])
        start += count
    rows = torch.cat(kept) if kept else box_index
    table = torch.cat((boxes[box_index[rows]], scores[rows, None], classes[rows, None].float()), dim=1).cpu()
    return [_detections(part, size) for part in torch.split(table, [len(own) for own in kept])]


def _detections(table: torch.Tensor, size: FrameSize) -> Detections:
    """Detections out of rows (N, 6) of box, score and class; a score that has overflown is no score."""
    if not torch.isfinite(table[:, 4]).all():
        table = table[torch.isfinite(table[:, 4])]
    return Detections(boxes=table[:, :4].clone(), scores=table[:, 4].clone(), classes=table[:, 5].long(), size=size)


def _candidates(
    predictions: Predictions, rows: torch.Tensor, settings: NmsSettings
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
    """The pairs of box and class that enter suppression.

    Args:
        predictions: of B images with K boxes each.
        rows: (N,) rising numbers of the boxes whose objectness passes, counted through all images.
        settings: thresholds.

    Returns:
        Boxes (N, 4); scores, classes and box index of each pair, each (M,), in the order of images, boxes and classes;
        how many pairs each image has.
    """
    images, places, class_count = predictions.class_probs.shape
    boxes = predictions.boxes.flatten(0, 1)[rows].float()
    objectness = predictions.objectness.flatten()[rows].float()
    # Where the network has overflown there is no place to name, and no score of NaN passes.
    objectness = objectness.where(torch.isfinite(boxes).all(dim=1), torch.nan)
    scores = objectness[:, None] * predictions.class_probs.flatten(0, 1)[rows].float()
    if settings.multi_label and class_count > 1:
        chosen = passing_scores(scores, torch.arange(class_count, device=scores.device), settings)
        pair, counts = _chosen_of_each(chosen, rows, images, places)
        return boxes, scores.flatten()[pair], pair % class_count, pair // class_count, counts
    scores, classes = scores.max(dim=1)
    chosen = passing_scores(scores, classes, settings)
    box_index, counts = _chosen_of_each(chosen, rows, images, places)
    return boxes, scores[box_index], classes[box_index], box_index, counts


def passing_scores(scores: torch.Tensor, classes: torch.Tensor, settings: NmsSettings) -> torch.Tensor:
    """Which scores, (N,) or (N, C), of the classes (N,) or (C,) are high enough, and of a class that is kept.

    Asked before suppression: a box that scores too little for its own class must not drop one of another class.
    """
    limits = _limits(settings.class_thres, scores.device)[classes] if settings.class_thres else settings.conf_thres
    passing = scores > limits
    if settings.classes is None:
        return passing
    kept = torch.zeros_like(classes, dtype=torch.bool)
    for kind in settings.classes:  # a tensor of them would have to be sent to the device
        kept |= classes == kind
    return passing & kept


@lru_cache(maxsize=8)
def _limits(class_thres: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Lowest score of each class (C,) float32, kept on its device: to send it makes a GPU wait."""
    return torch.tensor(class_thres, dtype=torch.float32, device=device)


def _chosen_of_each(
    chosen: torch.Tensor, rows: torch.Tensor, images: int, places: int
) -> tuple[torch.Tensor, list[int]]:
    """Places (M,) in the flattened ``chosen``, (N,) or (N, C), that are true, and how many each image has.

    A GPU is waited for once. ``rows`` (N,) are those of `_candidates`; an image has ``places`` of them at most.
    """
    if images == 1:
        found = chosen.flatten().nonzero().squeeze(1)
        return found, [len(found)]
    so_far = chosen.new_zeros(chosen.numel() + 1, dtype=torch.int32)
    torch.cumsum(chosen.flatten(), dim=0, dtype=torch.int32, out=so_far[1:])
    last_rows = torch.searchsorted(rows, torch.arange(1, images + 1, device=rows.device) * places)
    ends = so_far[last_rows * math.prod(chosen.shape[1:])].tolist()
    numbers = torch.arange(1, ends[-1] + 1, dtype=torch.int32, device=chosen.device)
    counts = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return torch.searchsorted(so_far[1:], numbers), counts  # the first place up to which there are so many


def _best_first(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scores (M,) that enter suppression, best first, and their places."""
    if len(scores) > MAX_CANDIDATES:  # selecting is much cheaper than sorting all of them
        best, order = scores.topk(MAX_CANDIDATES)
    else:
        best, order = scores.sort(descending=True, stable=True)
    return best, order


def _first_survivors(boxes: torch.Tensor, scores: torch.Tensor, settings: NmsSettings) -> torch.Tensor:
    """Indices (at most ``max_det``) that survive suppression, for boxes (M, 4) sorted by score.

    Whether a box survives depends on better ones only, so a head of the list that already yields ``max_det`` survivors
    yields the right ones; the quadratic work on the tail is then never done. A GPU takes a longer head: it has the work
    done sooner than it is asked again.
    """
    head = (4 if boxes.device.type == "cpu" else 32) * settings.max_det
    while True:
        kept = nms(boxes[:head], scores[:head], settings.iou_thres)
        if len(kept) >= settings.max_det or head >= len(boxes):
            return kept[: settings.max_det]
        head *= 4

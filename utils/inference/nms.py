"""Non-maximum suppression: from thousands of overlapping predictions to one detection per object."""

from __future__ import annotations

from dataclasses import dataclass

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


def non_max_suppression(predictions: Predictions, settings: NmsSettings, size: FrameSize) -> list[Detections]:
    """Greedy suppression as YOLOv5 does it; the score of a box for a class is objectness times class probability.

    Args:
        predictions: decoded output of the detector for B images, xyxy in network pixels.
        settings: thresholds.
        size: the network frame, which the detections carry on.

    Returns:
        B detections, float32 xyxy in network pixels, best score first.
    """
    passing = predictions.objectness > settings.conf_thres  # (B, K); NaN never passes
    return [
        _suppress_image(
            predictions.boxes[image][mask].float(),
            predictions.objectness[image][mask].float(),
            predictions.class_probs[image][mask].float(),
            settings,
            size,
        )
        for image, mask in enumerate(passing)
    ]


def _suppress_image(
    boxes: torch.Tensor,
    objectness: torch.Tensor,
    class_probs: torch.Tensor,
    settings: NmsSettings,
    size: FrameSize,
) -> Detections:
    """Detections out of boxes (N, 4), objectness (N,) and class probabilities (N, C) that passed the threshold."""
    box_index, scores, classes = _candidates(objectness[:, None] * class_probs, settings)
    boxes = boxes[box_index]
    finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores)
    if not finite.all():  # where the network has overflown there is no place to name
        boxes, scores, classes = boxes[finite], scores[finite], classes[finite]
    # The offset is added in float32, as YOLOv5 does: at high class numbers it rounds the boxes a little, and figures
    # are to be equal.
    shifted = boxes if settings.agnostic else boxes + (classes.float() * CLASS_OFFSET)[:, None]
    kept = _first_survivors(shifted, scores, settings.iou_thres, settings.max_det)
    return Detections(boxes=boxes[kept], scores=scores[kept], classes=classes[kept], size=size)


def _candidates(scores: torch.Tensor, settings: NmsSettings) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Box index, score and class, each (M,), of the pairs that enter suppression, out of scores (N, C), best first."""
    class_count = scores.shape[1]
    if settings.multi_label and class_count > 1:
        pair = (scores.flatten() > settings.conf_thres).nonzero().squeeze(1)
        best = scores.flatten()[pair]
        box_index, classes = pair // class_count, pair % class_count
    else:
        best, classes = scores.max(dim=1)
        box_index = (best > settings.conf_thres).nonzero().squeeze(1)
        best, classes = best[box_index], classes[box_index]
    if settings.classes is not None:
        wanted = torch.isin(classes, classes.new_tensor(settings.classes))
        box_index, best, classes = box_index[wanted], best[wanted], classes[wanted]
    if len(best) > MAX_CANDIDATES:  # selecting is much cheaper than sorting all of them
        best, order = best.topk(MAX_CANDIDATES)
    else:
        best, order = best.sort(descending=True, stable=True)
    return box_index[order], best, classes[order]


def _first_survivors(boxes: torch.Tensor, scores: torch.Tensor, iou_thres: float, count: int) -> torch.Tensor:
    """Indices (at most ``count``) that survive suppression, for boxes (M, 4) sorted by score.

    Whether a box survives depends on better ones only, so a head of the list that already yields ``count`` survivors
    yields the right ones; the quadratic work on the tail is then never done.
    """
    head = 4 * count
    while True:
        kept = nms(boxes[:head], scores[:head], iou_thres)
        if len(kept) >= count or head >= len(boxes):
            return kept[:count]
        head *= 4

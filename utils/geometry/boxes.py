"""Boxes as float ``xyxy`` rows in absolute pixels: conversions, clipping, overlap.

Functions that work on both libraries are written with operators that NumPy arrays and torch tensors share, so
that the data side (NumPy) and the model side (torch) use one formula.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch

Rows = TypeVar("Rows", np.ndarray, torch.Tensor)


def _stack_last(like: Rows, *columns: Rows) -> Rows:
    if isinstance(like, torch.Tensor):
        return torch.stack(columns, dim=-1)
    return np.stack(columns, axis=-1)


def xyxy_to_cxcywh(boxes: Rows) -> Rows:
    """Corner boxes (..., 4) ``x1 y1 x2 y2`` to centre boxes (..., 4) ``cx cy w h``; the unit is kept."""
    x1, y1, x2, y2 = boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]
    return _stack_last(boxes, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)


def cxcywh_to_xyxy(boxes: Rows) -> Rows:
    """Centre boxes (..., 4) ``cx cy w h`` to corner boxes (..., 4) ``x1 y1 x2 y2``; the unit is kept."""
    cx, cy, half_w, half_h = boxes[..., 0], boxes[..., 1], boxes[..., 2] / 2, boxes[..., 3] / 2
    return _stack_last(boxes, cx - half_w, cy - half_h, cx + half_w, cy + half_h)


def xyxy_to_xywh(boxes: Rows) -> Rows:
    """Corner boxes (..., 4) to COCO's ``x y w h`` (top-left corner and size); the unit is kept."""
    x1, y1, x2, y2 = boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]
    return _stack_last(boxes, x1, y1, x2 - x1, y2 - y1)


def clip_boxes(boxes: Rows, height: float, width: float) -> Rows:
    """A copy of corner boxes (..., 4), clipped to the frame ``[0, width] x [0, height]`` (pixels)."""
    if isinstance(boxes, torch.Tensor):
        x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    else:
        x, y = boxes[..., 0::2].clip(0, width), boxes[..., 1::2].clip(0, height)
    return _stack_last(boxes, x[..., 0], y[..., 0], x[..., 1], y[..., 1])


def box_area(boxes: Rows) -> Rows:
    """Area (...,) of corner boxes (..., 4), in square pixels."""
    area: Rows = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return area


def intersection(boxes: Rows, others: Rows) -> Rows:
    """Area (...) that corner boxes (..., 4) and (..., 4) share, in square pixels; leading shapes broadcast.

    ``intersection(a[:, None], b)`` is the table (N, M) of every pair out of (N, 4) and (M, 4).
    """
    width = shared_length(boxes[..., 0], boxes[..., 2], others[..., 0], others[..., 2])
    height = shared_length(boxes[..., 1], boxes[..., 3], others[..., 1], others[..., 3])
    shared: Rows = width * height
    return shared


def shared_length(low: Rows, high: Rows, other_low: Rows, other_high: Rows) -> Rows:
    """How much of one axis two intervals share, 0 where they are apart."""
    if isinstance(high, torch.Tensor):
        return (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0)
    shared: np.ndarray = (np.minimum(high, other_high) - np.maximum(low, other_low)).clip(min=0)
    return shared


def pairwise_iou(first: Rows, second: Rows) -> Rows:
    """Intersection over union (N, M) of every pair out of corner boxes (N, 4) and (M, 4); 0 where both are empty."""
    shared = intersection(first[:, None], second[None])
    union = box_area(first)[:, None] + box_area(second)[None] - shared
    iou: Rows = shared / union.clip(min=1e-9)
    return iou


def complete_iou(predicted: torch.Tensor, target: torch.Tensor, eps: float = 1e-7) -> torch.Tensor:
    """Complete IoU (N,) of paired centre boxes ``cx cy w h`` (N, 4), any unit.

    ``CIoU = IoU - d^2 / c^2 - alpha v`` (Zheng et al., "Distance-IoU Loss", AAAI 2020, eq. 10-12): ``d`` the
    distance of the centres, ``c`` the diagonal of the enclosing box, ``v`` the difference of the aspect angles.
    ``alpha`` is a constant for the gradient, as in the paper.
    """
    px, py, pw, ph = predicted.unbind(-1)
    tx, ty, tw, th = target.unbind(-1)
    p_left, p_right, p_top, p_bottom = px - pw / 2, px + pw / 2, py - ph / 2, py + ph / 2
    t_left, t_right, t_top, t_bottom = tx - tw / 2, tx + tw / 2, ty - th / 2, ty + th / 2

    shared = shared_length(p_left, p_right, t_left, t_right) * shared_length(p_top, p_bottom, t_top, t_bottom)
    iou = shared / (pw * ph + tw * th - shared + eps)

    enclosing_w = torch.maximum(p_right, t_right) - torch.minimum(p_left, t_left)
    enclosing_h = torch.maximum(p_bottom, t_bottom) - torch.minimum(p_top, t_top)
    diagonal_squared = enclosing_w**2 + enclosing_h**2 + eps
    distance_squared = (px - tx) ** 2 + (py - ty) ** 2

    v = (4 / math.pi**2) * (torch.atan(tw / (th + eps)) - torch.atan(pw / (ph + eps))) ** 2
    with torch.no_grad():
        alpha = v / (v - iou + (1 + eps))
    return iou - distance_squared / diagonal_squared - alpha * v


def wasserstein_closeness(one: torch.Tensor, other: torch.Tensor, size: float) -> torch.Tensor:
    """Normalized Gaussian Wasserstein distance (N,) of paired centre boxes ``cx cy w h`` (N, 4): 1 for equal ones.

    A box is seen as a normal distribution around its centre with half its sides as deviations; ``exp(-W / size)`` of
    the second Wasserstein distance ``W`` falls from 1 to 0, also between boxes that do not touch (Wang et al., "A
    Normalized Gaussian Wasserstein Distance for Tiny Object Detection", arXiv 2110.13389, eq. 7 and 8). ``size``, in
    the boxes' unit, is the distance over which it falls to 1/e: the mean size of the data set's objects.
    """
    apart = one - other
    distance = torch.linalg.vector_norm(torch.cat((apart[..., :2], apart[..., 2:] / 2), dim=-1), dim=-1)
    return torch.exp(-distance / size)

"""Copy-paste: outlined objects pasted at their mirrored place (Ghiasi et al., CVPR 2021)."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from utils.dataset.mixup import join_labels
from utils.geometry.boxes import box_area
from utils.geometry.records import Labels

MAX_COVERED = 0.3  # share of any present object that a pasted one may hide


def paste_mirrored(
    image: np.ndarray, labels: Labels, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, Labels]:
    """Mirror ``share`` of the outlined objects left to right where they hide little of what is there.

    Image (H, W, 3) uint8 and labels in its frame; both are returned anew.
    """
    outlined = np.array([i for i, polygon in enumerate(labels.polygons) if polygon is not None], dtype=np.int64)
    count = round(share * len(outlined))
    if not count:
        return image, labels
    width = labels.size.width
    mask = np.zeros(image.shape[:2], dtype=np.uint8)
    pasted: list[Labels] = []
    present = labels.boxes
    for i in rng.permutation(outlined)[:count]:
        polygon = labels.polygons[i]
        if polygon is None:
            continue
        mirrored = polygon * np.array([-1, 1], np.float32) + np.array([width, 0], np.float32)
        box = np.concatenate([mirrored.min(axis=0), mirrored.max(axis=0)])
        if (_covered(present, box) >= MAX_COVERED).any():
            continue
        cv2.fillPoly(mask, [np.round(mirrored).astype(np.int32)], 1)
        one = labels.keep(np.array([i]))
        pasted.append(replace(one, boxes=box[None].astype(np.float32), polygons=(mirrored.astype(np.float32),)))
        present = np.concatenate([present, pasted[-1].boxes])
    if not pasted:
        return image, labels
    image = np.where(mask[..., None] > 0, cv2.flip(image, 1), image)
    return image, join_labels(labels, *pasted)


def _covered(boxes: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Share (N,) of each box that lies under ``cover`` (4,)."""
    low, high = np.maximum(boxes[:, :2], cover[:2]), np.minimum(boxes[:, 2:], cover[2:])
    hidden: np.ndarray = (high - low).clip(0).prod(axis=1) / np.maximum(box_area(boxes), 1e-9)
    return hidden

"""How well anchors suit the objects of a data set, and anchors that suit them better.

An object can be learnt where some anchor's sides are within a factor ``threshold`` (the hyperparameter ``anchor_t``)
of its own. Values are returned; nothing is printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from utils.dataset.label_index import LabelIndex

MIN_SIDE = 2.0  # pixels; a smaller object does not take part in a fit
_SIZE_JITTER = 0.1  # of training images, to be expected from augmentation
_GENERATIONS = 1000
_LLOYD_STEPS = 30
_STARTS = 10


class AnchorFit(NamedTuple):
    """How well anchors suit objects."""

    best_possible_recall: float  # share of the objects that at least one anchor suits
    anchors_per_object: float  # how many anchors suit an object, on average


@dataclass(frozen=True, slots=True)
class FitSettings:
    """What a re-fit aims at."""

    threshold: float = 4.0  # largest ratio of sides
    seed: int = 0


def object_sizes(index: LabelIndex, image_size: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Width and height (N, 2) of every object, pixels, its image scaled to ``image_size`` on the longer side.

    With ``rng``, each image is also zoomed by up to +/- 10 %, as training will do.
    """
    scale = image_size / index.sizes.max(axis=1)
    if rng is not None:
        scale = scale * rng.uniform(1 - _SIZE_JITTER, 1 + _SIZE_JITTER, len(scale))
    sizes: np.ndarray = index.object_sizes() * np.repeat(scale, np.diff(index.row_ends, prepend=0))[:, None]
    return sizes


def anchor_fit(sizes: np.ndarray, anchors: np.ndarray, threshold: float) -> AnchorFit:
    """How well ``anchors`` (A, 2) suit objects of ``sizes`` (N, 2); width, height, the same unit."""
    if not len(sizes):
        return AnchorFit(1.0, float(len(anchors)))
    suits = _closeness(sizes, anchors) > 1 / threshold
    return AnchorFit(float(suits.any(axis=1).mean()), float(suits.sum(axis=1).mean()))


def refit_anchors(sizes: np.ndarray, count: int, settings: FitSettings) -> np.ndarray:
    """Anchors (count, 2) float32 for objects of ``sizes`` (N, 2) pixels, smallest area first.

    k-means on sizes divided by their deviation, then mutations of the means, each kept if the mean closeness of the
    suited objects grows.

    Raises:
        ValueError: fewer different object sizes than anchors.
    """
    sizes = sizes[(sizes >= MIN_SIDE).any(axis=1)].astype(np.float64)
    different = len(np.unique(sizes, axis=0))
    if different < count:
        raise ValueError(f"{different} object sizes are too few for {count} anchors")
    rng = np.random.default_rng(settings.seed)
    deviation = np.maximum(sizes.std(axis=0), 1e-9)
    anchors = _k_means(sizes / deviation, count, rng) * deviation
    anchors = _evolved(anchors, sizes, settings.threshold, rng)
    return anchors[np.argsort(anchors.prod(axis=1), kind="stable")].astype(np.float32)


def _closeness(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """(N, A) in (0, 1]: the smallest of w/W, W/w, h/H, H/h."""
    ratio = sizes[:, None] / np.maximum(anchors[None], 1e-9)
    closeness: np.ndarray = np.minimum(ratio, 1 / np.maximum(ratio, 1e-9)).min(axis=2)
    return closeness


def _fitness(sizes: np.ndarray, anchors: np.ndarray, threshold: float) -> float:
    best = _closeness(sizes, anchors).max(axis=1)
    return float((best * (best > 1 / threshold)).mean())


def _k_means(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Means (count, 2) of the best of several starts (Lloyd's iteration from k-means++ seeds)."""
    best, least = points[:count], np.inf
    for _ in range(_STARTS):
        means = _seeds(points, count, rng)
        for _ in range(_LLOYD_STEPS):
            nearest = _distances(points, means).argmin(axis=1)
            weight = np.bincount(nearest, minlength=count)
            sums = np.stack([np.bincount(nearest, points[:, axis], count) for axis in (0, 1)], axis=1)
            moved = np.where(weight[:, None] > 0, sums / np.maximum(weight, 1)[:, None], means)
            if np.array_equal(moved, means):
                break
            means = moved
        cost = float(_distances(points, means).min(axis=1).sum())
        if cost < least:
            best, least = means, cost
    return best


def _seeds(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Starting means, each drawn with the square of its distance from the ones before (Arthur & Vassilvitskii 2007)."""
    chosen = [points[rng.integers(len(points))]]
    for _ in range(count - 1):
        weight = _distances(points, np.array(chosen)).min(axis=1)
        chosen.append(points[rng.choice(len(points), p=weight / weight.sum())])
    return np.array(chosen)


def _distances(points: np.ndarray, means: np.ndarray) -> np.ndarray:
    squares: np.ndarray = ((points[:, None] - means[None]) ** 2).sum(axis=2)
    return squares


def _evolved(anchors: np.ndarray, sizes: np.ndarray, threshold: float, rng: np.random.Generator) -> np.ndarray:
    fitness = _fitness(sizes, anchors, threshold)
    for _ in range(_GENERATIONS):
        mutates = rng.random(anchors.shape) < 0.9
        step = rng.random() * rng.standard_normal(anchors.shape) * 0.1
        candidate = np.maximum(anchors * (1 + mutates * step).clip(0.3, 3.0), MIN_SIDE)
        candidate_fitness = _fitness(sizes, candidate, threshold)
        if candidate_fitness > fitness:
            anchors, fitness = candidate, candidate_fitness
    return anchors

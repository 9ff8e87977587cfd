"""Is one model better than another, or was it the choice of images?

Images are drawn with replacement, each draw the same for both models, and AP is computed anew for each draw (paired
bootstrap with percentile intervals; Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).
hotcoco's own ``compare`` counts an image that is drawn twice only once, and its intervals come out too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from utils.dataset.coco_annotations import CocoTruth
from utils.evaluation.coco_average_precision import COCO_RANGES, CocoFindings, hotcoco_evaluator
from utils.runtime.console_log import with_progress

CONFIDENCE = 0.95
RESAMPLES = 1000
RECALLS = torch.from_numpy(np.linspace(0, 1, 101))  # NumPy's and torch's differ in the last bit
MOST_CELLS = 2**24  # of a resamples x detections table that is in memory at a time


class Difference(NamedTuple):
    """Another model's figure minus the first model's, with its bootstrap confidence interval."""

    value: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


class PairedDifferences(NamedTuple):
    """Differences between two models on the same images; None where no object of that size exists."""

    AP: Difference | None
    AP_S: Difference | None


class ResampledFigures(NamedTuple):
    """AP and AP_S of one model in every draw, (R,) float64 each; NaN for a draw without such an object."""

    AP: np.ndarray
    AP_S: np.ndarray


def paired_draws(image_count: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each image occurs in each draw, (R + 1, I) int32; the first row is the data set itself."""
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(image_count, np.full(image_count, 1 / image_count), size=resamples)
    return np.concatenate((np.ones((1, image_count)), draws)).astype(np.int32)


def resampled_figures(truth: CocoTruth, findings: CocoFindings, draws: np.ndarray, title: str = "") -> ResampledFigures:
    """COCO's AP and AP_S of a model in each draw of :func:`paired_draws`; ``title`` names the progress bar."""
    areas = (COCO_RANGES[0], COCO_RANGES[1])
    rankings = _rankings(hotcoco_evaluator(truth, findings, areas).eval_imgs, truth.image_count)
    weights = torch.from_numpy(draws)
    sums = np.zeros((2, len(draws)))
    counts = np.zeros((2, len(draws)))
    for (_, area), ranking in with_progress(rankings.items(), len(rankings), "class", title, shown=bool(title)):
        place = 0 if area == areas[0].high else 1
        ap = np.concatenate([_average_precision(ranking, part) for part in _parts(weights, ranking)])
        sums[place] += np.nan_to_num(ap)
        counts[place] += ~np.isnan(ap)
    figures = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return ResampledFigures(AP=figures[0], AP_S=figures[1])


def paired_differences(first: ResampledFigures, second: ResampledFigures) -> PairedDifferences:
    """How much higher the figures of ``second`` are, with 95 % intervals; both from the same draws."""
    return PairedDifferences(*(_difference(b - a) for a, b in zip(first, second, strict=True)))


def _difference(differences: np.ndarray) -> Difference | None:
    """Out of (1 + R,): that of the data set, then of the draws."""
    known = differences[1:][~np.isnan(differences[1:])]
    if np.isnan(differences[0]) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(float(differences[0]), float(low), float(high))


@dataclass(frozen=True, slots=True)
class _Ranking:
    """The detections of one class, best first, and its objects, for one range of areas."""

    images: torch.Tensor  # (N,) int64
    hits: torch.Tensor  # (10, N) bool, per IoU threshold
    counted: torch.Tensor  # (10, N) bool, false for detections that are neither right nor wrong
    objects: torch.Tensor  # (I,) float64, per image


def _rankings(eval_images: list[dict[str, Any] | None], image_count: int) -> dict[tuple[int, float], _Ranking]:
    """By class and upper limit of the area, out of hotcoco's matches per image; only classes with objects."""
    groups: dict[tuple[int, float], list[dict[str, Any]]] = {}
    for one in eval_images:
        if one is not None:
            limits = np.asarray(one["aRng"])
            groups.setdefault((int(one["category_id"]), float(limits[1])), []).append(one)
    rankings = {}
    for key, parts in groups.items():
        objects = torch.zeros(image_count, dtype=torch.float64)
        for one in parts:
            objects[int(one["image_id"]) - 1] += float((~np.asarray(one["gtIgnore"], dtype=bool)).sum())
        if not objects.any():
            continue
        scores = np.concatenate([np.asarray(one["dtScores"]) for one in parts])
        order = np.argsort(-scores, kind="stable")
        matched, ignored = (
            np.concatenate([np.asarray(one[name], dtype=bool).reshape(10, -1) for one in parts], axis=1)[:, order]
            for name in ("dtMatched", "dtIgnore")
        )
        images = np.repeat(
            [int(one["image_id"]) - 1 for one in parts], [len(np.asarray(one["dtScores"])) for one in parts]
        )
        rankings[key] = _Ranking(
            images=torch.from_numpy(images[order]),
            hits=torch.from_numpy(matched & ~ignored),
            counted=torch.from_numpy(~ignored),
            objects=objects,
        )
    return rankings


def _parts(weights: torch.Tensor, ranking: _Ranking) -> Iterator[torch.Tensor]:
    return iter(torch.split(weights, max(MOST_CELLS // max(len(ranking.images), 1), 1)))


def _average_precision(ranking: _Ranking, weights: torch.Tensor) -> np.ndarray:
    """AP (R,) at IoU 0.50:0.95 where image i occurs ``weights[r, i]`` times; NaN where no object is left."""
    objects = weights.double() @ ranking.objects
    each = weights[:, ranking.images]  # (R, N)
    total = torch.zeros(len(weights), dtype=torch.float64)
    for hits, counted in zip(ranking.hits, ranking.counted, strict=True):
        right = each[:, hits].cumsum(dim=1)  # (R, T) true positives up to each of them
        if not right.shape[1]:
            continue
        ranks = each[:, counted].cumsum(dim=1)[:, hits[counted]]
        precision = right / ranks.clamp(min=1).double()
        envelope = precision.flip(1).cummax(dim=1).values.flip(1)
        recall = right / objects.clamp(min=1)[:, None]
        first = torch.searchsorted(recall, RECALLS.expand(len(weights), -1).contiguous())
        reached = first < right.shape[1]
        total += (envelope.gather(1, first.clamp(max=right.shape[1] - 1)) * reached).mean(dim=1)
    return torch.where(objects > 0, total / len(ranking.hits), torch.nan).numpy()


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One row of the comparison."""

    name: str
    parameters: int | None  # None for an exported file, which does not tell
    gflops: float | None  # at the evaluated size, square
    AP: float
    AP50: float
    AP_S: float
    AP_M: float
    AP_L: float
    milliseconds: float  # inference and NMS per image
    differences: PairedDifferences | None  # to the first model; None for itself


class StudyRow(NamedTuple):
    """One model at one image size."""

    imgsz: int
    precision: float
    recall: float
    map50: float
    map50_95: float
    AP: float
    AP50: float
    AP_S: float
    AP_M: float
    AP_L: float
    preprocess_ms: float
    inference_ms: float
    nms_ms: float

    @property
    def milliseconds(self) -> float:
        """Per image, without loading it."""
        return self.inference_ms + self.nms_ms

"""How often a classifier is right: top-1, top-5, each class, and what is taken for what."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from utils.geometry.records import ClassificationBatch
from utils.runtime.device import autocast
from utils.runtime.process_ranks import ALONE, ProcessRanks
from utils.runtime.streams import copied_ahead

TOP = 5

Network = Callable[[torch.Tensor], torch.Tensor]  # images (B, 3, S, S) float, normalized -> logits (B, C)


class Parts(Protocol):
    """Scalar parts of a loss."""

    @property
    def total(self) -> torch.Tensor: ...


LossFunction = Callable[[torch.Tensor, ClassificationBatch, ProcessRanks], Parts]


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """Figures of a classifier on one part of a data set; accuracies 0-1."""

    names: tuple[str, ...]
    confusion: np.ndarray  # (C, C) int64 images: rows predicted, columns true
    top5_hits: np.ndarray  # (C,) int64 images of each true class among whose five likeliest classes it is
    loss: float  # mean per image
    milliseconds: float  # of the network, per image

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def class_images(self) -> np.ndarray:
        """Images of each class (C,)."""
        counts: np.ndarray = self.confusion.sum(axis=0)
        return counts

    @property
    def top1(self) -> float:
        return float(self.confusion.trace() / max(self.images, 1))

    @property
    def top5(self) -> float:
        return float(self.top5_hits.sum() / max(self.images, 1))

    @property
    def class_top1(self) -> np.ndarray:
        """Accuracy of each class (C,), NaN for a class without images."""
        return _shares(self.confusion.diagonal(), self.class_images)

    @property
    def class_top5(self) -> np.ndarray:
        """Part of each class's images (C,) that have it among the five likeliest; NaN without images."""
        return _shares(self.top5_hits, self.class_images)


def _shares(hits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.where(counts > 0, hits / np.maximum(counts, 1), np.nan)
    return shares


@dataclass(frozen=True, slots=True)
class ClassificationSettings:
    """How an evaluation is computed."""

    names: tuple[str, ...]
    loss: LossFunction
    precision: torch.dtype = torch.float32


class Tally:
    """Counts over the images seen so far; of several processes each has its own."""

    def __init__(self, class_count: int) -> None:
        self.confusion = torch.zeros(class_count, class_count, dtype=torch.float64)
        self.top5_hits = torch.zeros(class_count, dtype=torch.float64)
        self.losses: list[tuple[torch.Tensor, int]] = []  # mean of each batch and its images; read at the end
        self.seconds = 0.0  # of the network

    def add(self, best: torch.Tensor, truth: torch.Tensor, loss: torch.Tensor, seconds: float) -> None:
        """Count a batch: its likeliest classes (B, K) and true ones (B,), both on the CPU, and its mean loss."""
        self.confusion.index_put_((best[:, 0], truth), torch.ones(len(truth), dtype=torch.float64), accumulate=True)
        hits = (best == truth[:, None]).any(dim=1).double()
        self.top5_hits.index_put_((truth,), hits, accumulate=True)
        self.losses.append((loss, len(truth)))
        self.seconds += seconds

    def report(self, names: tuple[str, ...], ranks: ProcessRanks) -> ClassificationReport:
        """The figures over all processes."""
        means = torch.stack([loss for loss, _ in self.losses]).tolist() if self.losses else []
        loss = sum(mean * images for mean, (_, images) in zip(means, self.losses, strict=True))
        own = torch.tensor([loss, self.seconds], dtype=torch.float64)
        confusion, top5_hits, sums = (ranks.total(part) for part in (self.confusion, self.top5_hits, own))
        images = max(float(confusion.sum()), 1.0)
        return ClassificationReport(
            names=names,
            confusion=confusion.numpy().astype(np.int64),
            top5_hits=top5_hits.numpy().astype(np.int64),
            loss=float(sums[0]) / images,
            milliseconds=1e3 * float(sums[1]) / images,
        )


@torch.inference_mode()
def evaluate_classifier(
    network: Network,
    batches: Iterable[ClassificationBatch],
    settings: ClassificationSettings,
    device: torch.device,
    ranks: ProcessRanks = ALONE,
) -> ClassificationReport:
    """The figures of ``network``, in evaluation mode, on every image of ``batches``."""
    tally = Tally(len(settings.names))
    for batch, copy in copied_ahead(batches, device):
        placed = copy.on(device)
        start = time.perf_counter()
        with autocast(device, settings.precision):
            logits = network(placed.images)
        best = logits.float().topk(min(TOP, logits.shape[1]), dim=1).indices.cpu()  # a GPU is waited for here alone
        seconds = time.perf_counter() - start
        tally.add(best, batch.classes, settings.loss(logits, placed, ALONE).total, seconds)
    return tally.report(settings.names, ranks)

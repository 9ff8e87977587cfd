"""Loss of a classifier: cross entropy with smoothed targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from utils.geometry.records import ClassificationBatch, ClassificationLossParts
from utils.runtime.process_ranks import ALONE, ProcessRanks


@dataclass(frozen=True, slots=True)
class ClassificationLoss:
    """Mean cross entropy per image; ``smoothing`` is spread evenly over all classes (Szegedy et al., 2016)."""

    smoothing: float = 0.0

    @property
    def part_names(self) -> tuple[str, ...]:
        return ClassificationLossParts._fields

    def __call__(
        self, logits: torch.Tensor, batch: ClassificationBatch, ranks: ProcessRanks = ALONE
    ) -> ClassificationLossParts:
        """Logits (B, C) of any precision; the processes of a run have equal batches, so that means need no weights."""
        return ClassificationLossParts(
            functional.cross_entropy(logits.float(), batch.classes, label_smoothing=self.smoothing)
        )

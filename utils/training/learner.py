"""All that one training step needs, in one place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from models.yolo import DetectionModel
from utils.loss.detection_loss import DetectionLoss
from utils.runtime.process_ranks import ProcessRanks
from utils.training.learning_rate import LearningRateSchedule
from utils.training.multi_scale import MultiScale
from utils.training.weight_average import WeightAverage


@dataclass(frozen=True, slots=True)
class Learner:
    """A model on its device with its loss, optimizer, schedule and average."""

    model: DetectionModel
    network: nn.Module  # what the training step calls: the model, or the model shared among processes
    loss: DetectionLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: LearningRateSchedule
    average: WeightAverage[DetectionModel]
    ranks: ProcessRanks
    precision: torch.dtype
    multi_scale: MultiScale | None = None
    pictures_per_image: int = 1  # more with --quad

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.ranks.device

"""How a run's weights are judged: on whole images, or in tiles where it learns from tiles."""

from __future__ import annotations

from collections.abc import Sequence

from models.yolo import DetectionModel
from utils.evaluation.evaluate import (
    DetectionLossFunction,
    EvaluationObserver,
    EvaluationReport,
    EvaluationSettings,
    evaluate,
    evaluate_predictor,
)
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Batch, Detections, Predictions
from utils.inference.detector import OpenedDetector
from utils.inference.model_backends import TorchBackend
from utils.inference.slicing import SliceSettings
from utils.runtime.process_ranks import ProcessRanks
from utils.runtime.reused_memory import give_back_freed_memory
from utils.training.run_images import Images

TILES_AT_ONCE = 16  # through the network


class FrameChanges(EvaluationObserver):
    """After the first batch in a new frame, gives back what those before left: their tensors had other sizes."""

    def __init__(self) -> None:
        self.size: FrameSize | None = None

    def on_batch(self, number: int, batch: Batch, predictions: Predictions, detections: Sequence[Detections]) -> None:
        if batch.size != self.size:
            give_back_freed_memory()
        self.size = batch.size


def judge(
    model: DetectionModel,
    images: Images,
    settings: EvaluationSettings,
    loss: DetectionLossFunction,
    ranks: ProcessRanks,
    observers: Sequence[EvaluationObserver] = (),
) -> EvaluationReport:
    """The figures of ``model``, which is in evaluation mode, on the validation part.

    With tiles there is no loss in the report, as there is no whole image at training size to measure it on.
    """
    loader, device = images.evaluation, ranks.device
    if images.tile is None:
        return evaluate(model, loader, settings, device, loss, (*observers, FrameChanges()), ranks)
    detector = OpenedDetector(TorchBackend(model, device), device, settings.precision)
    frame, tiles = FrameSize(images.side, images.side), SliceSettings(images.tile)
    predictor = detector.predictor(settings.suppression, frame, tiles, TILES_AT_ONCE)
    return evaluate_predictor(predictor, loader.dataset, settings, device, observers, ranks)

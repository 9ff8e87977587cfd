"""Learning to detect: the model, loss and images of ``train.py``, and how its epochs are evaluated."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.weights import checkpoint_fields, load_model
from models.yolo import DetectionModel
from utils.config.hyperparameters import Hyperparameters, find_hyperparameters, read_hyperparameters
from utils.config.train_flags import QUAD, TrainConfig
from utils.dataset.dataset_download import available_dataset
from utils.dataset.evaluation_loader import DetectionLoader
from utils.dataset.image_changes import albumentations_installed
from utils.dataset.training_loader import image_weights
from utils.evaluation.evaluate import (
    VALIDATION_NMS,
    DetectionLossFunction,
    EvaluationObserver,
    EvaluationReport,
    EvaluationSettings,
    class_names,
    drawn_names,
    evaluate,
    evaluate_predictor,
)
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Batch, Detections, Predictions
from utils.inference.detector import OpenedDetector, fitting_frame
from utils.inference.model_backends import TorchBackend
from utils.inference.slicing import SliceSettings
from utils.loss.detection_loss import DetectionLoss, LossGains
from utils.reporting.box_drawing import batch_mosaic
from utils.reporting.curve_plots import plot_label_sizes
from utils.reporting.dataset_problems import report_problems
from utils.reporting.detection_files import write_image
from utils.reporting.epoch_log import EpochRecord, epoch_record
from utils.reporting.evaluation_observers import DRAWN_BATCHES, BatchImages, write_evaluation_plots
from utils.reporting.metrics_file import format_table, write_metrics
from utils.runtime.device import resolve_precision
from utils.runtime.process_ranks import ProcessRanks
from utils.runtime.reused_memory import give_back_freed_memory
from utils.training.batch_size import fitting_batch_size
from utils.training.checkpoint import RunState, plain_config
from utils.training.freezing import freeze_layers
from utils.training.learner import Learner, learner_parts, ready_model
from utils.training.learning_rate import LearningRateSchedule
from utils.training.multi_scale import MultiScale
from utils.training.one_epoch import EpochOutcome
from utils.training.optimizer import build_optimizer
from utils.training.run_images import Images, open_images
from utils.training.starting_model import ModelSource, fit_anchors, starting_model
from utils.training.task import Task

LOGGER = logging.getLogger(__name__)
TILES_AT_ONCE = 16  # through the network, where a run is evaluated in tiles
DetectionState = RunState[TrainConfig, Hyperparameters, EpochRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionLearner(Learner[DetectionModel, Batch]):
    """A detector that learns."""

    loss: DetectionLoss
    multi_scale: MultiScale | None = None
    images_per_image: int = 1  # more with --quad

    @property
    def description(self) -> dict[str, Any]:
        return checkpoint_fields(self.model)

    def prepared(self, batch: Batch, epoch: int, step: int) -> Batch:
        batch = batch.on(self.device)
        if self.multi_scale is not None:
            batch = batch.resized(self.multi_scale.frame(batch.size, epoch, step))
        return batch

    def gradient_weight(self, batch: Batch) -> int:
        """The images of the batch over all processes: as YOLOv5, gradients are sums over images."""
        return len(batch.paths) * self.images_per_image * self.ranks.world


class DetectionTask(Task[DetectionModel, DetectionState, EvaluationReport]):
    """What ``train.py`` trains."""

    script = "train.py"
    name = "detect"
    config_type = TrainConfig
    recipe_type = Hyperparameters
    record_type = EpochRecord
    load = staticmethod(load_model)

    def __init__(self, learner: DetectionLearner, images: Images) -> None:
        self.learner: DetectionLearner = learner
        self.images = images
        if not albumentations_installed():
            LOGGER.info("albumentations is not installed: no blur, grey or CLAHE in the augmentation")

    @classmethod
    def begun(cls, config: TrainConfig, ranks: ProcessRanks) -> tuple[DetectionTask, DetectionState]:
        hyp = read_hyperparameters(find_hyperparameters(config.hyp))
        dataset = available_dataset(config.data)
        names = class_names(dataset.names, single_cls=config.single_cls)
        model = starting_model(ModelSource(config.weights, config.cfg), names, int(hyp.anchors))
        if config.label_smoothing:
            hyp = replace(hyp, label_smoothing=config.label_smoothing)
        config = fitting_config(config, model, ranks)
        state: DetectionState = RunState(
            config=config, hyp=hyp, records=(), finished=False, class_ap=(0.0,) * len(names)
        )
        images = open_images(dataset, config, hyp, model.stride, ranks)
        if not config.noautoanchor:
            fit_anchors(model, images.training.dataset, config.imgsz, hyp.anchor_t)
        return cls(new_learner(state, model, len(images.training), ranks), images), state

    @classmethod
    def reopened(cls, model: DetectionModel, state: DetectionState, ranks: ProcessRanks) -> DetectionTask:
        dataset = available_dataset(state.config.data)
        images = open_images(dataset, state.config, state.hyp, model.stride, ranks)
        return cls(new_learner(state, model, len(images.training), ranks), images)

    def batches(self, epoch: int, state: DetectionState) -> DetectionLoader:
        self.images.training.set_epoch(epoch, self.drawing_weights(state))
        return self.images.training

    def drawing_weights(self, state: DetectionState) -> np.ndarray | None:
        """How often each image is drawn with ``--image-weights``; None for each once."""
        if not state.config.image_weights:
            return None
        return image_weights(self.images.training.dataset.index, np.array(state.class_ap))

    def evaluate(self, state: DetectionState) -> EvaluationReport:
        learner = self.learner
        return evaluate_run(
            learner.average.model, self.images, self.evaluation_settings(state), learner.loss, learner.ranks
        )

    def evaluation_settings(self, state: DetectionState) -> EvaluationSettings:
        """The thresholds of ``val.py``, in the run's arithmetic."""
        return EvaluationSettings(
            nms=VALIDATION_NMS, single_cls=state.config.single_cls, precision=self.learner.precision
        )

    def record(self, epoch: int, outcome: EpochOutcome, report: EvaluationReport | None) -> EpochRecord:
        return epoch_record(epoch, outcome.losses, outcome.rates, report)

    def class_scores(self, report: EvaluationReport) -> tuple[float, ...]:
        found = {row.index: row.map50_95 for row in report.per_class}
        return tuple(found.get(index, 0.0) for index in range(self.learner.model.class_count))

    def write_beginning(self, folder: Path, state: DetectionState) -> None:
        """Problems of the data set, object sizes, and the first batches as the model will see them."""
        training = self.images.training
        dataset = training.dataset
        report_problems(folder, {"train": dataset.index, "val": self.images.evaluation.dataset.index})
        if state.config.noplots:
            return
        classes = dataset.index.rows[:, 0].astype(int)
        plot_label_sizes(folder / "labels.png", dataset.index.object_sizes(), classes, dataset.names)
        training.set_epoch(0, self.drawing_weights(state))
        for number, batch in enumerate(training.first(DRAWN_BATCHES)):
            write_image(folder / f"train_batch{number}.jpg", batch_mosaic(batch, dataset.names))

    def judge_best(self, model: DetectionModel, source: Path, folder: Path, state: DetectionState) -> None:
        config, ranks, loader = state.config, self.learner.ranks, self.images.evaluation
        # The names of the labels, whatever is learned.
        names = drawn_names(loader.dataset.names, single_cls=config.single_cls)
        images = [BatchImages(folder, names)] if ranks.is_writer and not config.noplots else []
        report = evaluate_run(model, self.images, self.evaluation_settings(state), self.learner.loss, ranks, images)
        if not ranks.is_writer:
            return
        LOGGER.info("%s:\n%s", source, format_table(report))
        write_metrics(folder / "metrics.json", report, source, plain_config(config))
        if not config.noplots:
            write_evaluation_plots(folder, report)


def fitting_config(config: TrainConfig, model: DetectionModel, ranks: ProcessRanks) -> TrainConfig:
    """The settings with an image size that suits the model's strides and a batch that suits the device."""
    imgsz, _ = fitting_frame(FrameSize(config.imgsz, config.imgsz), model.stride)
    config = replace(config, imgsz=imgsz)
    if config.batch_size == -1:
        precision = resolve_precision(config.precision, ranks.device)
        size = fitting_batch_size(model, imgsz, ranks.device, precision, multiple_of=QUAD if config.quad else 1)
        config = replace(config, batch_size=size)
    return config


def new_learner(
    state: DetectionState, model: DetectionModel, steps_per_epoch: int, ranks: ProcessRanks
) -> DetectionLearner:
    """The model on its device, with loss, optimizer, schedule and average at their beginning."""
    config, hyp = state.config, state.hyp
    model = ready_model(model, ranks.device)
    frozen = freeze_layers(model, config.freeze)
    if frozen:
        LOGGER.info("frozen: %d parameter tensors, %s to %s", len(frozen), frozen[0], frozen[-1])
    schedule = LearningRateSchedule(hyp, max(config.epochs, 1), steps_per_epoch, config.batch_size, config.cos_lr)
    gains = LossGains.from_hyperparameters(hyp).scaled(
        levels=len(model.strides), class_count=model.class_count, imgsz=config.imgsz
    )
    build = partial(
        build_optimizer, name=config.optimizer, lr=hyp.lr0, momentum=hyp.momentum, decay=schedule.weight_decay
    )
    return DetectionLearner(
        **learner_parts(model, config, build, ranks),
        loss=DetectionLoss(model.anchors, model.strides, model.class_count, gains),
        schedule=schedule,
        multi_scale=MultiScale(config.imgsz, model.stride, config.seed) if config.multi_scale else None,
        images_per_image=QUAD if config.quad else 1,
    )


class _FrameChanges(EvaluationObserver):
    """After the first batch in a new frame, gives back what those before left: their tensors had other sizes."""

    def __init__(self) -> None:
        self.size: FrameSize | None = None

    def on_batch(self, number: int, batch: Batch, predictions: Predictions, detections: Sequence[Detections]) -> None:
        if batch.size != self.size:
            give_back_freed_memory()
        self.size = batch.size


def evaluate_run(
    model: DetectionModel,
    images: Images,
    settings: EvaluationSettings,
    loss: DetectionLossFunction,
    ranks: ProcessRanks,
    observers: Sequence[EvaluationObserver] = (),
) -> EvaluationReport:
    """The figures of ``model``, which is in evaluation mode, on the validation part.

    What is learned in tiles is evaluated in tiles; then there is no loss in the report, as there is no whole image at
    training size to measure it on.
    """
    loader, device = images.evaluation, ranks.device
    if images.tile is None:
        return evaluate(model, loader, settings, device, loss, (*observers, _FrameChanges()), ranks)
    detector = OpenedDetector(TorchBackend(model, device), device, settings.precision)
    frame, tiles = FrameSize(images.side, images.side), SliceSettings(images.tile)
    predictor = detector.predictor(settings.suppression, frame, tiles, TILES_AT_ONCE)
    return evaluate_predictor(predictor, loader.dataset, settings, device, observers, ranks)

"""Training a detector: its model, loss and images, and how its epochs are evaluated.

The epochs are in `utils.training.session`, the training step in `utils.training.one_epoch`.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.head import AnchorFreeDetect
from models.weights import load_model, model_description, stored_thresholds
from models.yolo import DetectionModel
from utils.config.command_line import script_command
from utils.config.fitness import FIGURES, YOLOV5_MIX, Fitness
from utils.config.hyperparameters import Hyperparameters, find_hyperparameters, read_hyperparameters
from utils.config.train_flags import QUAD, TrainConfig
from utils.dataset.available_dataset import available_dataset
from utils.dataset.evaluation_loader import DetectionLoader
from utils.dataset.image_changes import albumentations_installed
from utils.dataset.image_lists import shared_images
from utils.dataset.training_loader import image_weights
from utils.evaluation.coco_average_precision import COCO_RANGES
from utils.evaluation.evaluate import (
    VALIDATION_NMS,
    EvaluationObserver,
    EvaluationReport,
    EvaluationSettings,
    class_names,
    drawn_names,
    evaluate,
    evaluate_predictor,
    warn_of_other_names,
)
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Batch, Detections, Predictions
from utils.inference.detector import OpenedDetector, fitting_frame
from utils.inference.slicing import SliceSettings
from utils.inference.torch_backend import TorchBackend
from utils.loss.anchor_free_loss import AnchorFreeGains, AnchorFreeLoss
from utils.loss.detection_loss import DetectionLoss, LossGains
from utils.reporting.curve_plots import plot_label_sizes
from utils.reporting.detection_files import write_image
from utils.reporting.epoch_log import EpochRecord, FinishedEpoch, epoch_record
from utils.reporting.evaluation_files import (
    DRAWN_BATCHES,
    BatchImages,
    format_table,
    write_evaluation_plots,
    write_metrics,
)
from utils.reporting.labelled_images import batch_mosaic
from utils.reporting.run_directory import write_problems
from utils.reporting.watchers import Watcher
from utils.runtime.console_log import counted
from utils.runtime.device import placed, resolve_precision
from utils.runtime.process_ranks import ProcessRanks
from utils.runtime.reused_memory import give_back_freed_memory
from utils.training.batch_size import MeasuredStep, fitting_batch_size, kept_bytes
from utils.training.checkpoint import as_expected, plain_config, same_in_every_process
from utils.training.learning_rate import LearningRateSchedule
from utils.training.one_epoch import EpochOutcome, Learner, gradient_scaler, shared_network
from utils.training.optimizer import build_optimizer
from utils.training.run_images import MultiScale, RunImages, open_images
from utils.training.session import train
from utils.training.starting_model import ModelSource, fit_anchors, freeze_layers, starting_model
from utils.training.task import EvaluatedEpoch, TaskKind
from utils.training.weight_average import WeightAverage
from utils.user_error import typed

LOGGER = logging.getLogger(__name__)
TILES_AT_ONCE = 16  # through the network, where a run is evaluated in tiles


def train_detector(config: TrainConfig, watchers: Sequence[Watcher] = ()) -> Path:
    """What ``train.py`` does without ``--evolve``; see `utils.training.session.train`. Gives the run's folder."""
    return train(DETECTION, config, watchers)


@dataclass(frozen=True, slots=True)
class DetectionTask:
    """A detector that learns, and its images."""

    config: TrainConfig
    hyp: Hyperparameters
    learner: Learner[DetectionModel, Batch]
    loss: DetectionLoss | AnchorFreeLoss  # the learner's
    images: RunImages

    @property
    def class_count(self) -> int:
        return self.learner.model.class_count

    def model_fields(self) -> dict[str, object]:
        return model_description(self.learner.model)

    def batches(self, epoch: int, class_scores: tuple[float, ...]) -> DetectionLoader:
        if epoch == self.config.closed_from and closes_something(self.config, self.hyp):
            LOGGER.info("mosaic is closed for the last %s", counted(self.config.close_mosaic, "epoch"))
        return self._batches(epoch, class_scores)

    def _batches(self, epoch: int, class_scores: tuple[float, ...]) -> DetectionLoader:
        training, weights = self.images.training, None
        if self.config.image_weights:
            weights = image_weights(training.dataset.index, np.array(class_scores))
        training.set_epoch(epoch, weights)
        return training

    def record(self, epoch: int, outcome: EpochOutcome) -> EpochRecord:
        return self._record(epoch, outcome, None)

    def _record(self, epoch: int, outcome: EpochOutcome, report: EvaluationReport | None) -> EpochRecord:
        losses = dict(zip(self.loss.part_names, outcome.losses, strict=True))
        return epoch_record(epoch, losses, outcome.rates, report, self.config.fitness)

    def evaluate(self, epoch: int, outcome: EpochOutcome) -> EvaluatedEpoch:
        report = self.report(self.learner.average.model)
        found = {row.index: row.map50_95 for row in report.per_class}
        class_scores = tuple(found.get(index, 0.0) for index in range(self.class_count))
        record = self._record(epoch, outcome, report)
        return EvaluatedEpoch(record, class_scores, report.stored_thresholds())

    def report(self, model: DetectionModel, observers: Sequence[EvaluationObserver] = ()) -> EvaluationReport:
        """The figures of ``model`` on the validation part: thresholds of ``val.py``, the run's arithmetic.

        What is learned in tiles is evaluated in tiles; then there is no loss in the report, as there is no whole image
        at training size to measure it on.
        """
        ranks, loader = self.learner.ranks, self.images.evaluation
        settings = EvaluationSettings(
            nms=VALIDATION_NMS, single_cls=self.config.single_cls, precision=self.learner.precision
        )
        if self.images.tile is None:
            observers = (*observers, _FrameChanges())
            return evaluate(model, loader, settings, ranks.device, self.loss, observers, ranks)
        detector = OpenedDetector(TorchBackend(model, ranks.device, settings.precision), ranks.device)
        frame, tiles = FrameSize(self.images.side, self.images.side), SliceSettings(self.images.tile)
        predictor = detector.predictor(settings.suppression, frame, tiles, TILES_AT_ONCE)
        return evaluate_predictor(predictor, loader.dataset, settings, observers, ranks)

    def write_beginning(self, folder: Path, class_scores: tuple[float, ...]) -> None:
        """Problems of the data set, object sizes, and the first batches as the model will see them."""
        training = self.images.training
        dataset = training.dataset
        parts = {"train": dataset.index, "val": self.images.evaluation.dataset.index}
        for part, index in parts.items():
            LOGGER.info("%s: %s", part, index.summary())
        if not len(parts["val"].rows):
            LOGGER.warning("val: nothing to evaluate on: %s", self.images.evaluation.dataset.why_empty())
        warn_of_shared_images(parts["train"].paths, parts["val"].paths, self.config.data)
        write_problems(folder, [problem for index in parts.values() for problem in index.problems])
        if self.config.noplots:
            return
        classes = dataset.index.rows[:, 0].astype(int)
        plot_label_sizes(folder / "labels.png", dataset.index.object_sizes(), classes, dataset.names)
        self._batches(0, class_scores)
        for number, batch in enumerate(training.first(DRAWN_BATCHES)):
            write_image(folder / f"train_batch{number}.jpg", batch_mosaic(batch, dataset.names))

    def evaluate_best(self, checkpoint: Path, folder: Path, expected: FinishedEpoch | None) -> bool:
        config, learner, loader = self.config, self.learner, self.images.evaluation
        model = same_in_every_process(load_model, checkpoint, learner.average.model, learner.ranks)
        give_back_freed_memory()
        # The names of the labels, whatever is learned.
        names = drawn_names(loader.dataset.names, single_cls=config.single_cls)
        images = [BatchImages(folder, names)] if learner.ranks.is_writer and not config.noplots else []
        report = self.report(model, images)
        found = epoch_record(0, dict.fromkeys(self.loss.part_names, 0.0), (0.0,) * 3, report)
        if not as_expected(checkpoint, found, expected, learner.ranks):
            return False
        if learner.ranks.is_writer:
            LOGGER.info("%s:\n%s", checkpoint, format_table(report))
            write_metrics(folder / "metrics.json", report, checkpoint, plain_config(config))
            if not config.noplots:
                write_evaluation_plots(folder, report)
        return True

    def next_commands(self, weights: Path) -> tuple[str, ...]:
        config, tile = self.config, self.images.tile
        common = ("--weights", weights, "--img", self.images.side, *(() if tile is None else ("--slice", tile)))
        single = ("--single-cls",) if config.single_cls else ()
        best_f1 = (stored_thresholds(weights).get("thresholds") or {}).get("best_f1")
        threshold = () if best_f1 is None else ("--conf", "auto")
        return (
            script_command("val.py", *common, *single, "--data", config.data),
            script_command("detect.py", *common, *threshold, "--source", "IMAGES"),
            script_command("export.py", *common[:4], "--include", "onnx"),
        )


def begun(config: TrainConfig, ranks: ProcessRanks) -> DetectionTask:
    """A detector at its beginning, with settings that suit it.

    Raises:
        UserError: anything missing or wrong in what the settings name.
    """
    hyp = read_hyperparameters(find_hyperparameters(config.hyp))
    dataset = available_dataset(config.data).having("train", "val")
    names = class_names(dataset.names, single_cls=config.single_cls)
    start = starting_model(ModelSource(config.weights, config.cfg), names, int(hyp.anchors))
    model = start.model
    if config.label_smoothing:
        hyp = replace(hyp, label_smoothing=config.label_smoothing)
    config = fitting_config(config, hyp, model, ranks)
    images = open_images(dataset, config, hyp, model.stride, ranks)
    if config.fitness != YOLOV5_MIX:
        refuse_uncounted(config.fitness, images.evaluation.dataset.index.object_sizes())
    if config.close_mosaic and not closes_something(config, hyp):
        why = "there are no mosaics with --rect" if config.rect else f"{config.hyp} has no mosaics"
        LOGGER.warning("--close-mosaic %d: changes nothing: %s", config.close_mosaic, why)
    if not config.noautoanchor and model.anchors.numel():
        fit_anchors(start, images.training.dataset, config.imgsz, hyp.anchor_t)
    return detection_task(config, hyp, model, images, ranks)


def reopened(checkpoint: Path, config: TrainConfig, hyp: Hyperparameters, ranks: ProcessRanks) -> DetectionTask:
    """The detector of a checkpoint."""
    model, dataset = load_model(checkpoint), available_dataset(config.data)
    warn_of_other_names(str(checkpoint), model.names, dataset.file, dataset.names)
    images = open_images(dataset, config, hyp, model.stride, ranks)
    return detection_task(config, hyp, model, images, ranks)


def closes_something(config: TrainConfig, hyp: Hyperparameters) -> bool:
    """Whether there is anything that ``--close-mosaic`` ends; mixup and copy-paste are of mosaics."""
    return hyp.paste_small > 0 or (hyp.mosaic > 0 and not config.rect)


def refuse_uncounted(fitness: str, sizes: np.ndarray) -> None:
    """Tell before the first epoch that the validation objects, of ``sizes`` (N, 2) source pixels, give no such figure.

    Raises:
        UserError: there are none, or none of a size that ``fitness`` names.
    """
    areas, slack = sizes.prod(axis=1), 1e-3  # an object at the border of two sizes is the evaluation's to place
    whole, *by_size = (((1 - slack) * low <= areas) & (areas <= (1 + slack) * high) for _, low, high in COCO_RANGES)
    figures = dict.fromkeys(FIGURES, whole) | dict(zip(("AP_S", "AP_M", "AP_L"), by_size, strict=True))
    Fitness.from_text(fitness).of({name: 0.0 if counted.any() else -1.0 for name, counted in figures.items()})


DETECTION = TaskKind(
    script="train.py",
    name="detect",
    config_type=TrainConfig,
    recipe_type=Hyperparameters,
    record_type=EpochRecord,
    begun=begun,
    reopened=reopened,
)


def fitting_config(
    config: TrainConfig, hyp: Hyperparameters, model: DetectionModel, ranks: ProcessRanks
) -> TrainConfig:
    """The settings with an image size that suits the model's strides and a batch that suits the device."""
    imgsz, _ = fitting_frame(FrameSize(config.imgsz, config.imgsz), model.stride)
    config = replace(config, imgsz=imgsz)
    if config.batch_size == -1:
        longest = MultiScale(imgsz, model.stride, config.seed).longest if config.multi_scale else imgsz
        precision = resolve_precision(config.precision, ranks.device)
        step = MeasuredStep(model, loss_of(model, hyp, imgsz), longest, ranks.device, precision)
        size = fitting_batch_size(
            step.bytes,
            longest,
            ranks.device,
            multiple_of=QUAD if config.quad else 1,
            kept=kept_bytes(model, config.optimizer),
        )
        config = replace(config, batch_size=size)
    return config


def detection_task(
    config: TrainConfig, hyp: Hyperparameters, model: DetectionModel, images: RunImages, ranks: ProcessRanks
) -> DetectionTask:
    """The model on its device, with loss, optimizer, schedule and average at their beginning."""
    model = placed(model, ranks.device)
    frozen = freeze_layers(model, config.freeze)
    if frozen:
        LOGGER.info("frozen: %d parameter tensors, %s to %s", len(frozen), frozen[0], frozen[-1])
    precision = resolve_precision(config.precision, ranks.device)
    schedule = LearningRateSchedule(hyp, max(config.epochs, 1), len(images.training), config.batch_size, config.cos_lr)
    loss = loss_of(model, hyp, config.imgsz)
    if isinstance(loss, AnchorFreeLoss):
        LOGGER.info(
            "a head without anchors: gains are free_box %g, free_cls %g, free_dfl %g; box, cls, obj, cls_pw, obj_pw, "
            "anchor_t, fl_gamma and label_smoothing have no effect",
            *(hyp.free_box, hyp.free_cls, hyp.free_dfl),
        )
    learner = Learner(
        model=model,
        average=WeightAverage(model),
        network=shared_network(model, ranks, parts=len(loss.part_names), sync_bn=config.sync_bn),
        loss=loss,
        optimizer=build_optimizer(
            model, config.optimizer, lr=hyp.lr0, momentum=hyp.momentum, decay=schedule.weight_decay
        ),
        scaler=gradient_scaler(ranks.device, precision),
        schedule=schedule,
        ranks=ranks,
        precision=precision,
        multi_scale=MultiScale(config.imgsz, model.stride, config.seed) if config.multi_scale else None,
        sum_over_images=True,
        sizes_repeat=not (config.multi_scale or config.rect),
        images_per_frame=QUAD if config.quad else 1,
    )
    if not albumentations_installed():
        LOGGER.info("albumentations is not installed: no blur, grey or CLAHE in the augmentation")
    return DetectionTask(config, hyp, learner, loss, images)


def warn_of_shared_images(train: Sequence[Path], val: Sequence[Path], data: str) -> None:
    """Say which of val's images a detector learns from, as far as names tell."""
    shared = shared_images(train, val)
    if shared and len(shared) == len(val) == len(train):  # on purpose, as in coco128
        LOGGER.info("val has the same images as train: its figures say how well they are remembered, no more")
    elif shared:
        LOGGER.warning(
            "val: %d of %s are train's too, such as %s: its figures will be too good; "
            "%s %s makes parts that share none",
            *(len(shared), counted(len(val), "image"), shared[0][1]),
            *(typed("python -m utils.dataset.split"), shlex.quote(data)),
        )


def loss_of(model: DetectionModel, hyp: Hyperparameters, imgsz: int) -> DetectionLoss | AnchorFreeLoss:
    """The loss that the model's head is trained with."""
    if isinstance(model.head, AnchorFreeDetect):
        return AnchorFreeLoss(model.head, AnchorFreeGains.from_hyperparameters(hyp))
    gains = LossGains.from_hyperparameters(hyp).scaled(
        levels=len(model.strides), class_count=model.class_count, imgsz=imgsz
    )
    return DetectionLoss(model.anchors, model.strides, model.class_count, gains)


class _FrameChanges(EvaluationObserver):
    """After the first batch in a new frame, gives back what those before left: their tensors had other sizes."""

    def __init__(self) -> None:
        self.size: FrameSize | None = None

    def on_batch(self, number: int, batch: Batch, predictions: Predictions, detections: Sequence[Detections]) -> None:
        if batch.size != self.size:
            give_back_freed_memory()
        self.size = batch.size

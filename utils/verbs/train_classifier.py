"""Training a classifier: its model, loss and images, and how its epochs are evaluated.

The epochs are in `utils.training.session`, the training step in `utils.training.one_epoch`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.classifier import (
    CUTOFF,
    Classifier,
    ClassifierPlan,
    check_takes,
    classifier_fields,
    load_classifier,
    read_start,
    set_dropout,
    take_weights,
)
from utils.config.classification_recipe import ClassificationRecipe, read_recipe
from utils.config.classify_flags import ClassifyTrainConfig
from utils.config.command_line import script_command
from utils.config.hyperparameters import find_hyperparameters
from utils.config.weights_by_name import find_weights
from utils.dataset.batch_loader import LoaderSettings
from utils.dataset.classification_dataset import open_parts
from utils.dataset.classification_loaders import (
    ClassificationLoader,
    ClassificationTrainingLoader,
    classification_evaluation_loader,
    classification_training_loader,
)
from utils.evaluation.classification import ClassificationReport, ClassificationSettings, evaluate_classifier
from utils.geometry.records import ClassificationBatch
from utils.loss.classification_loss import ClassificationLoss
from utils.reporting.classification_files import (
    ClassificationRecord,
    accuracy_table,
    write_accuracy,
    write_class_images,
)
from utils.reporting.curve_plots import plot_confusion_matrix
from utils.reporting.epoch_log import FinishedEpoch
from utils.reporting.run_directory import write_problems
from utils.reporting.watchers import Watcher
from utils.runtime.device import placed, resolve_precision
from utils.runtime.process_ranks import ProcessRanks
from utils.runtime.reused_memory import give_back_freed_memory
from utils.training.checkpoint import as_expected, plain_config, same_in_every_process
from utils.training.learning_rate import StepRates
from utils.training.one_epoch import EpochOutcome, Learner, gradient_scaler, shared_network
from utils.training.optimizer import build_optimizer
from utils.training.session import train
from utils.training.task import EvaluatedEpoch, TaskKind
from utils.training.weight_average import WeightAverage

LOGGER = logging.getLogger(__name__)


def train_classifier(config: ClassifyTrainConfig, watchers: Sequence[Watcher] = ()) -> Path:
    """What ``classify/train.py`` does; see `utils.training.session.train`. Gives the run's folder."""
    return train(CLASSIFICATION, config, watchers)


@dataclass(frozen=True, slots=True)
class ClassificationImages:
    """What a run learns from and what it is evaluated on."""

    training: ClassificationTrainingLoader
    evaluation: ClassificationLoader


@dataclass(frozen=True, slots=True)
class ClassificationTask:
    """A classifier that learns, and its images."""

    config: ClassifyTrainConfig
    hyp: ClassificationRecipe
    learner: Learner[Classifier, ClassificationBatch]
    loss: ClassificationLoss  # the learner's
    images: ClassificationImages

    @property
    def class_count(self) -> int:
        return self.learner.model.class_count

    def model_fields(self) -> dict[str, object]:
        return classifier_fields(self.learner.model)

    def batches(self, epoch: int, class_scores: tuple[float, ...]) -> ClassificationLoader:
        self.images.training.set_epoch(epoch)
        return self.images.training

    def record(self, epoch: int, outcome: EpochOutcome) -> ClassificationRecord:
        (loss,) = outcome.losses
        part = self.images.evaluation.dataset.part
        return ClassificationRecord(epoch=epoch, part=part, train_loss=loss, lr0=outcome.rates[0])

    def evaluate(self, epoch: int, outcome: EpochOutcome) -> EvaluatedEpoch:
        report = self.report(self.learner.average.model)
        record = replace(self.record(epoch, outcome), val_loss=report.loss, top1=report.top1, top5=report.top5)
        scores = tuple(0.0 if math.isnan(score) else score for score in report.class_top1.tolist())
        return EvaluatedEpoch(record, scores)

    def report(self, model: Classifier) -> ClassificationReport:
        """The figures of ``model`` on the part that is evaluated, in the run's arithmetic."""
        ranks = self.learner.ranks
        settings = ClassificationSettings(model.names, self.loss, self.learner.precision)
        return evaluate_classifier(model, self.images.evaluation, settings, ranks.device, ranks)

    def write_beginning(self, folder: Path, class_scores: tuple[float, ...]) -> None:
        training = self.images.training
        write_problems(folder, [*training.dataset.problems, *self.images.evaluation.dataset.problems])
        if not self.config.noplots:
            training.set_epoch(0)
            batch = next(training.first(1))
            names = [training.dataset.names[index] for index in batch.classes.tolist()]
            write_class_images(folder / "train_images.jpg", batch.images.permute(0, 2, 3, 1).numpy(), names)

    def evaluate_best(self, checkpoint: Path, folder: Path, expected: FinishedEpoch | None) -> bool:
        learner = self.learner
        model = same_in_every_process(load_classifier, checkpoint, learner.average.model, learner.ranks)
        give_back_freed_memory()
        report = self.report(model)
        found = replace(self.record(0, EpochOutcome((0.0,), (0.0,) * 3)), top1=report.top1, top5=report.top5)
        if not as_expected(checkpoint, found, expected, learner.ranks):
            return False
        if learner.ranks.is_writer:
            LOGGER.info("%s:\n%s", checkpoint, accuracy_table(report, verbose=self.config.verbose))
            write_accuracy(folder / "metrics.json", report, checkpoint, plain_config(self.config))
            if not self.config.noplots:
                plot_confusion_matrix(folder / "confusion_matrix.png", report.confusion, report.names)
        return True

    def next_commands(self, weights: Path) -> tuple[str, ...]:
        return (
            script_command("classify/val.py", "--weights", weights, "--data", self.config.data),
            script_command("classify/predict.py", "--weights", weights, "--source", "IMAGES"),
            script_command("export.py", "--weights", weights, "--include", "onnx"),
        )


def begun(config: ClassifyTrainConfig, ranks: ProcessRanks) -> ClassificationTask:
    """A classifier at its beginning.

    Raises:
        UserError: anything missing or wrong in what the settings name.
    """
    recipe = read_recipe(find_hyperparameters(config.hyp)).with_flags_of(config)
    images = open_images(config, recipe, ranks)
    return classification_task(
        config, recipe, starting_classifier(config, images.training.dataset.names), images, ranks
    )


def reopened(
    checkpoint: Path, config: ClassifyTrainConfig, recipe: ClassificationRecipe, ranks: ProcessRanks
) -> ClassificationTask:
    """The classifier of a checkpoint."""
    model = load_classifier(checkpoint)
    return classification_task(config, recipe, model, open_images(config, recipe, ranks), ranks)


CLASSIFICATION = TaskKind(
    script="classify/train.py",
    name="classify",
    config_type=ClassifyTrainConfig,
    recipe_type=ClassificationRecipe,
    record_type=ClassificationRecord,
    begun=begun,
    reopened=reopened,
)


def starting_classifier(config: ClassifyTrainConfig, names: tuple[str, ...]) -> Classifier:
    """A model for classes ``names``: a file's, or a named network, with or without weights of a file."""
    file = config.model if config.model.endswith(".pt") else config.weights
    weights = read_start(find_weights(file)) if file else None
    if weights is not None and not config.weights:
        plan = weights.plan if config.cutoff is None else replace(weights.plan, cutoff=config.cutoff)
    else:
        plan = ClassifierPlan(
            name=config.model,
            shortcut="spd" if config.shortcut == "spd" else "strided",
            stem="strided" if config.stem == "strided" else "full",
            cutoff=CUTOFF if config.cutoff is None else config.cutoff,
        )
    model = Classifier(plan, names, config.imgsz)
    check_takes(model, config.imgsz)
    if weights is not None and (config.weights or config.pretrained == "True"):
        LOGGER.info("%s", take_weights(model, weights))
    return model


def open_images(config: ClassifyTrainConfig, recipe: ClassificationRecipe, ranks: ProcessRanks) -> ClassificationImages:
    """Loaders over this process's share of the part to learn from and the part to evaluate on."""
    with ranks.first_on_machine():  # a data set may have to be fetched
        parts = open_parts(config.data)
    train, evaluated = parts.train, parts.evaluated
    if config.cache is not None:
        train, evaluated = train.kept_in_memory(), evaluated.kept_in_memory()
    learn = LoaderSettings.of_run(config, ranks)
    return ClassificationImages(
        classification_training_loader(train, config.imgsz, recipe, config.seed, learn),
        classification_evaluation_loader(evaluated, config.imgsz, learn.without_gradients()),
    )


def classification_task(
    config: ClassifyTrainConfig,
    recipe: ClassificationRecipe,
    model: Classifier,
    images: ClassificationImages,
    ranks: ProcessRanks,
) -> ClassificationTask:
    """The model on its device, with loss, optimizer, schedule and average at their beginning."""
    model = placed(model, ranks.device)
    if config.dropout is not None:
        set_dropout(model, config.dropout)
    precision = resolve_precision(config.precision, ranks.device)
    loss = ClassificationLoss(recipe.label_smoothing)
    learner = Learner(
        model=model,
        average=WeightAverage(model),
        network=shared_network(model, ranks, parts=len(loss.part_names), sync_bn=config.sync_bn),
        loss=loss,
        optimizer=build_optimizer(model, recipe.optimizer, lr=recipe.lr0, momentum=recipe.momentum, decay=recipe.decay),
        scaler=gradient_scaler(ranks.device, precision),
        schedule=ClassificationSchedule(recipe, len(images.training)),
        ranks=ranks,
        precision=precision,
        sum_over_images=False,
        sizes_repeat=True,
    )
    return ClassificationTask(config, recipe, learner, loss, images)


@dataclass(frozen=True, slots=True)
class ClassificationSchedule:
    """From ``lr0`` along a line to ``lr0 * lrf``, or in steps at the recipe's milestones; after a warm-up from 0."""

    recipe: ClassificationRecipe
    steps_per_epoch: int

    def factor(self, epoch: int) -> float:
        """Share of ``lr0`` in ``epoch`` (from 0)."""
        recipe = self.recipe
        if recipe.milestones:
            return recipe.gamma ** sum(epoch >= milestone for milestone in recipe.milestones)
        return 1 - epoch / max(recipe.epochs, 1) * (1 - recipe.lrf)

    def at(self, epoch: int, step: int) -> StepRates:
        """Rates of batch ``step`` of ``epoch``, both from 0. Warm-up ends with the full rate in its last step."""
        warmup = round(self.recipe.warmup_epochs * self.steps_per_epoch)
        done = epoch * self.steps_per_epoch + step + 1
        rate = self.recipe.lr0 * self.factor(epoch) * (min(done / warmup, 1.0) if warmup else 1.0)
        return StepRates((rate, rate, rate), self.recipe.momentum, accumulate=1)

"""Learning to classify: the model, loss and images of ``classify/train.py``, and how its epochs are judged."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

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
from utils.reporting.run_directory import write_problems
from utils.runtime.process_ranks import ProcessRanks
from utils.training.checkpoint import RunState, plain_config
from utils.training.learner import Learner, learner_parts, ready_model
from utils.training.learning_rate import ClassificationSchedule
from utils.training.one_epoch import EpochOutcome
from utils.training.optimizer import build_optimizer
from utils.training.task import Task

LOGGER = logging.getLogger(__name__)
ClassificationState = RunState[ClassifyTrainConfig, ClassificationRecipe, ClassificationRecord]


class ClassificationLearner(Learner[Classifier, ClassificationBatch]):
    """A classifier that learns."""

    __slots__ = ()

    @property
    def description(self) -> dict[str, Any]:
        return classifier_fields(self.model)

    def prepared(self, batch: ClassificationBatch, epoch: int, step: int) -> ClassificationBatch:
        return batch.on(self.device)

    def gradient_weight(self, batch: ClassificationBatch) -> int:
        """Gradients are means over the images of a batch."""
        return 1


@dataclass(frozen=True, slots=True)
class Images:
    """What a run learns from and what it is judged on."""

    training: ClassificationTrainingLoader
    evaluation: ClassificationLoader


class ClassificationTask(Task[Classifier, ClassificationState, ClassificationReport]):
    """What ``classify/train.py`` trains."""

    script = "classify/train.py"
    name = "classify"
    config_type = ClassifyTrainConfig
    recipe_type = ClassificationRecipe
    record_type = ClassificationRecord
    load = staticmethod(load_classifier)

    def __init__(self, learner: ClassificationLearner, images: Images) -> None:
        self.learner: ClassificationLearner = learner
        self.images = images

    @classmethod
    def begun(cls, config: ClassifyTrainConfig, ranks: ProcessRanks) -> tuple[ClassificationTask, ClassificationState]:
        recipe = read_recipe(find_hyperparameters(config.hyp)).with_flags_of(config)
        images = open_images(config, recipe, ranks)
        model = starting_classifier(config, images.training.dataset.names)
        state: ClassificationState = RunState(
            config=config, hyp=recipe, records=(), finished=False, class_ap=(0.0,) * model.class_count
        )
        return cls(new_learner(state, model, len(images.training), ranks), images), state

    @classmethod
    def reopened(cls, model: Classifier, state: ClassificationState, ranks: ProcessRanks) -> ClassificationTask:
        images = open_images(state.config, state.hyp, ranks)
        return cls(new_learner(state, model, len(images.training), ranks), images)

    def batches(self, epoch: int, state: ClassificationState) -> ClassificationLoader:
        self.images.training.set_epoch(epoch)
        return self.images.training

    def evaluate(self, state: ClassificationState) -> ClassificationReport:
        return self.judged(self.learner.average.model)

    def judged(self, model: Classifier) -> ClassificationReport:
        """The figures of ``model`` on the part that the run is judged by, in the run's arithmetic."""
        learner = self.learner
        settings = ClassificationSettings(model.names, learner.loss, learner.precision)
        return evaluate_classifier(model, self.images.evaluation, settings, learner.device, learner.ranks)

    def record(self, epoch: int, outcome: EpochOutcome, report: ClassificationReport | None) -> ClassificationRecord:
        figures = {} if report is None else {"val_loss": report.loss, "top1": report.top1, "top5": report.top5}
        part = self.images.evaluation.dataset.part
        (loss,) = outcome.losses
        return ClassificationRecord(epoch=epoch, part=part, train_loss=loss, lr0=outcome.rates[0], **figures)

    def class_scores(self, report: ClassificationReport) -> tuple[float, ...]:
        return tuple(0.0 if math.isnan(score) else score for score in report.class_top1.tolist())

    def write_beginning(self, folder: Path, state: ClassificationState) -> None:
        training, judged = self.images.training, self.images.evaluation.dataset
        write_problems(folder, [*training.dataset.problems, *judged.problems])
        if not state.config.noplots:
            training.set_epoch(0)
            batch = next(training.first(1))
            names = [training.dataset.names[index] for index in batch.classes.tolist()]
            write_class_images(folder / "train_images.jpg", batch.images.permute(0, 2, 3, 1).numpy(), names)

    def judge_best(self, model: Classifier, source: Path, folder: Path, state: ClassificationState) -> None:
        report = self.judged(model)
        if not self.learner.ranks.is_writer:
            return
        LOGGER.info("%s:\n%s", source, accuracy_table(report, verbose=state.config.verbose))
        write_accuracy(folder / "metrics.json", report, source, plain_config(state.config))
        if not state.config.noplots:
            plot_confusion_matrix(folder / "confusion_matrix.png", report.confusion, report.names)


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


def open_images(config: ClassifyTrainConfig, recipe: ClassificationRecipe, ranks: ProcessRanks) -> Images:
    """Loaders over this process's share of the part to learn from and the part to judge by."""
    with ranks.first_on_machine():  # a data set may have to be fetched
        parts = open_parts(config.data)
    train, judged = parts.train, parts.evaluated
    if config.cache is not None:
        train, judged = train.kept_in_memory(), judged.kept_in_memory()
    learn = LoaderSettings.of_run(config, ranks)
    return Images(
        classification_training_loader(train, config.imgsz, recipe, config.seed, learn),
        classification_evaluation_loader(judged, config.imgsz, learn.without_gradients()),
    )


def new_learner(
    state: ClassificationState, model: Classifier, steps_per_epoch: int, ranks: ProcessRanks
) -> ClassificationLearner:
    """The model on its device, with loss, optimizer, schedule and average at their beginning."""
    recipe = state.hyp
    model = ready_model(model, ranks.device)
    if state.config.dropout is not None:
        set_dropout(model, state.config.dropout)
    build = partial(build_optimizer, name=recipe.optimizer, lr=recipe.lr0, momentum=recipe.momentum, decay=recipe.decay)
    return ClassificationLearner(
        **learner_parts(model, state.config, build, ranks),
        loss=ClassificationLoss(recipe.label_smoothing),
        schedule=ClassificationSchedule(recipe, steps_per_epoch),
    )

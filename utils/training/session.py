"""A training run from its settings to its results: begun or resumed, epoch by epoch, and what is written when."""

from __future__ import annotations

import copy
import logging
import signal
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from models.weights import load_model
from models.yolo import DetectionModel
from utils.config.hyperparameters import find_hyperparameters, read_hyperparameters
from utils.config.run_config import QUAD, TrainConfig
from utils.dataset.dataset_download import available_dataset
from utils.dataset.picture_weights import picture_weights
from utils.dataset.pixel_changes import albumentations_installed
from utils.evaluation.evaluate import VALIDATION_NMS, EvaluationReport, EvaluationSettings
from utils.geometry.letterbox import multiple_of_stride
from utils.loss.detection_loss import DetectionLoss, LossGains
from utils.reporting.box_drawing import batch_mosaic
from utils.reporting.curve_plots import plot_label_sizes, plot_results
from utils.reporting.dataset_problems import report_problems
from utils.reporting.detection_files import write_picture
from utils.reporting.epoch_log import EpochRecord, epoch_record, write_results_csv
from utils.reporting.epoch_loggers import EpochLogger, open_loggers, refuse_missing_loggers
from utils.reporting.evaluation_observers import PICTURED_BATCHES, BatchPictures, write_evaluation_plots
from utils.reporting.metrics_file import format_table, write_metrics
from utils.reporting.run_directory import hold_run_directory, new_run_directory
from utils.runtime.atomic_files import write_text
from utils.runtime.device import describe_device, placed, resolve_precision
from utils.runtime.failures import explained_failures
from utils.runtime.process_ranks import ProcessRanks, joined_processes
from utils.runtime.seeds import reseed_torch
from utils.runtime.stop_signals import Stopped, StopRequest, stop_requests
from utils.training.batch_size import fitting_batch_size
from utils.training.checkpoint import (
    RunState,
    checkpoint_to_resume,
    plain_config,
    read_checkpoint,
    restore,
    restore_threads,
    run_state,
    write_checkpoint,
)
from utils.training.early_stopping import best_epoch, patience_exhausted
from utils.training.freezing import freeze_layers
from utils.training.learner import Learner
from utils.training.learning_rate import LearningRateSchedule
from utils.training.multi_scale import MultiScale
from utils.training.one_epoch import NonFiniteLoss, train_one_epoch
from utils.training.optimizer import build_optimizer
from utils.training.run_files import keep_previous, remove_unfinished, set_aside_older_run
from utils.training.run_judge import judge
from utils.training.run_pictures import Pictures, open_pictures
from utils.training.starting_model import ModelSource, fit_anchors, starting_model
from utils.training.weight_average import WeightAverage
from utils.user_error import UsageError, UserError

LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class TrainingRun:
    """A run in its folder."""

    folder: Path
    state: RunState
    learner: Learner
    pictures: Pictures
    loggers: Sequence[EpochLogger] = ()

    @property
    def last(self) -> Path:
        return self.folder / "weights" / "last.pt"

    @property
    def best(self) -> Path:
        return self.folder / "weights" / "best.pt"


def train(config: TrainConfig, watchers: Sequence[EpochLogger] = ()) -> Path:
    """Train as ``config`` says, or go on with the run that it names. Gives the run's folder.

    ``watchers`` see every epoch beside the loggers that the settings name, and may end the run by raising.

    Raises:
        UserError: anything missing or wrong in the files that the settings name, or a loss that is not finite.
        Stopped: SIGINT or SIGTERM; the unfinished epoch is dropped.
    """
    with joined_processes(config.device, config.local_rank) as ranks:
        return resume(config.resume, config, ranks, watchers) if config.resume else begin(config, ranks, watchers)


def begin(config: TrainConfig, ranks: ProcessRanks, watchers: Sequence[EpochLogger]) -> Path:
    """A new run, to its end."""
    run = new_run(config, ranks)
    run.loggers = watchers
    with hold_run_directory(run.folder) if ranks.is_writer else nullcontext():
        if ranks.is_writer:
            remove_unfinished(run.folder)
            set_aside_older_run(run.folder)
            write_beginning(run)
        return run_to_the_end(run)


def resume(wanted: bool | str, config: TrainConfig, ranks: ProcessRanks, watchers: Sequence[EpochLogger]) -> Path:
    """The run that was ``wanted``, to its end."""
    checkpoint = Path(ranks.text(str(checkpoint_to_resume(wanted, Path(config.project)))))
    with hold_run_directory(checkpoint.parent.parent) if ranks.is_writer else nullcontext():
        run = resumed_run(checkpoint, config, ranks)
        run.loggers = watchers
        if ranks.is_writer:
            remove_unfinished(run.folder)
            if checkpoint != run.last:  # last.pt may be what could not be read, and is not to be kept as a good one
                write_checkpoint(run.last, run.learner, run.state, resumable=True)
            write_results_csv(run.folder / "results.csv", run.state.records)
        return run_to_the_end(run)


def new_run(config: TrainConfig, ranks: ProcessRanks) -> TrainingRun:
    """A run at its beginning. The folder is made last, when all that the settings name has been looked at."""
    refuse_missing_loggers(config.loggers)
    hyp = read_hyperparameters(find_hyperparameters(config.hyp))
    dataset = available_dataset(config.data)
    names = ("item",) if config.single_cls else dataset.names
    refuse_what_processes_cannot_share(config, ranks)
    resolve_precision(config.precision, ranks.device)  # a wrong one is refused before pictures are read
    reseed_torch(config.seed, epoch=-1)  # the starting weights draw from a number of their own
    model = starting_model(ModelSource(config.weights, config.cfg), names, int(hyp.anchors))
    imgsz = multiple_of_stride(config.imgsz, model.stride)
    if imgsz != config.imgsz:
        LOGGER.warning("--imgsz %d is not a multiple of the stride %d: taking %d", config.imgsz, model.stride, imgsz)
    config = replace(config, imgsz=imgsz)
    if config.label_smoothing:
        hyp = replace(hyp, label_smoothing=config.label_smoothing)
    if config.batch_size == -1:
        precision = resolve_precision(config.precision, ranks.device)
        size = fitting_batch_size(model, imgsz, ranks.device, precision, multiple_of=QUAD if config.quad else 1)
        config = replace(config, batch_size=size)
    state = RunState(config=config, hyp=hyp, records=(), finished=False, class_ap=(0.0,) * len(names))
    pictures = open_pictures(dataset, state, model.stride, ranks)
    if not config.noautoanchor:
        fit_anchors(model, pictures.training.dataset, config.imgsz, hyp.anchor_t)
    learner = new_learner(state, model, len(pictures.training), ranks)
    made = new_run_directory(config.project, config.name, exist_ok=config.exist_ok) if ranks.is_writer else ""
    return TrainingRun(Path(ranks.text(str(made))), state, learner, pictures)


def refuse_what_processes_cannot_share(config: TrainConfig, ranks: ProcessRanks) -> None:
    """Settings that the number or kind of processes rules out.

    Raises:
        UsageError: naming the setting.
    """
    if config.sync_bn and (ranks.world == 1 or ranks.device.type != "cuda"):
        raise UsageError("--sync-bn: needs several processes on CUDA; start with torchrun --nproc_per_node N")
    if config.batch_size == -1 and ranks.world > 1:
        raise UsageError("--batch-size -1: measures one process; give the number of pictures over all processes")
    images = config.batch_size // QUAD if config.quad else config.batch_size
    if images % ranks.world and ranks.world > 1:
        raise UsageError(f"--batch-size {config.batch_size}: must divide among {ranks.world} processes")


def resumed_run(checkpoint: Path, config: TrainConfig, ranks: ProcessRanks) -> TrainingRun:
    """A run as it stood after its last finished epoch, with the settings it was begun with."""
    content = read_checkpoint(checkpoint)
    state = run_state(content)
    if state.finished:
        raise UserError(f"{checkpoint}: that run is finished ({len(state.records)} epochs); start a new one from it")
    if content["optimizer"] is None:
        raise UserError(f"{checkpoint}: holds no training state; resume from the last.pt of its run")
    restore_threads(content)
    # The device and the number of workers belong to the machine that goes on, not to the run.
    state = replace(state, config=replace(state.config, device=config.device, workers=config.workers))
    refuse_what_processes_cannot_share(state.config, ranks)
    dataset = available_dataset(state.config.data)
    model = load_model(checkpoint)
    pictures = open_pictures(dataset, state, model.stride, ranks)
    learner = new_learner(state, model, len(pictures.training), ranks)
    restore(learner, content)
    LOGGER.info("resuming %s with epoch %d of %d", checkpoint.parent.parent, len(state.records), state.config.epochs)
    return TrainingRun(checkpoint.parent.parent, state, learner, pictures)


def run_to_the_end(run: TrainingRun) -> Path:
    """The epochs that are left, the last evaluation, and a line that says where the results are."""
    config = run.state.config
    if not albumentations_installed():
        LOGGER.info("albumentations is not installed: no blur, grey or CLAHE in the augmentation")
    processes = f", {run.learner.ranks.world} processes" if run.learner.ranks.world > 1 else ""
    LOGGER.info("training on %s%s, results in %s", describe_device(run.learner.device), processes, run.folder)
    with explained_failures(config.batch_size, config.imgsz), ExitStack() as closing:
        if run.learner.ranks.is_writer:
            done = len(run.state.records)
            run.loggers = [*open_loggers(config.loggers, run.folder, plain_config(config), done), *run.loggers]
        for logger in run.loggers:
            closing.callback(logger.close)
        with stop_requests() as stop:
            for epoch in range(len(run.state.records), config.epochs):
                if patience_exhausted(run.state.records, config.patience):
                    LOGGER.info("no better fitness in %d epochs: stopping", config.patience)
                    break
                run_epoch(run, epoch, stop)
        finish(run)
    LOGGER.info("results in %s", run.folder)
    return run.folder


def run_epoch(run: TrainingRun, epoch: int, stop: StopRequest) -> None:
    """Train on every picture once, evaluate the average, record and save.

    Raises:
        Stopped: a signal asked to stop; the epoch leaves no trace.
    """
    config, is_last, ranks = run.state.config, epoch == run.state.config.epochs - 1, run.learner.ranks
    reseed_torch(config.seed, epoch, ranks.rank)
    run.pictures.training.set_epoch(epoch, drawing_weights(run))
    title, steps = f"epoch {epoch}/{config.epochs - 1}", len(run.pictures.training)
    with tqdm(total=steps, desc=title, leave=False, disable=not ranks.is_writer) as progress:
        try:
            outcome = train_one_epoch(run.learner, run.pictures.training, epoch, progress, stop)
        except NonFiniteLoss as error:
            raise UserError(f"{error}; the last good checkpoint is {run.last}") from error
    if outcome is None:
        number = stop.signal_number or signal.SIGTERM  # another process may have been asked
        raise Stopped(number, f"stopped in epoch {epoch}; go on with: python train.py --resume {run.last}")
    ranks.share(run.learner.average.model)  # batch statistics are each process's own
    report = evaluate_average(run) if is_last or not config.noval else None
    record = epoch_record(epoch, outcome.losses, outcome.rates, report)
    run.state = replace(run.state, records=(*run.state.records, record))
    if report is not None:
        found = {row.index: row.map50_95 for row in report.per_class}
        run.state = replace(run.state, class_ap=tuple(found.get(i, 0.0) for i in range(len(run.state.class_ap))))
    LOGGER.info("%s", record.line())
    if ranks.is_writer:
        write_epoch(run, record)


def write_epoch(run: TrainingRun, record: EpochRecord) -> None:
    """Checkpoints and the table, after a finished epoch."""
    config, epoch = run.state.config, record.epoch
    is_last, best = epoch == config.epochs - 1, best_epoch(run.state.records)
    if is_last or not config.nosave:
        if best is record or best is None:
            write_checkpoint(run.best, run.learner, run.state, resumable=False)
        keep_previous(run.last)
        write_checkpoint(run.last, run.learner, run.state, resumable=True)
    if config.save_period > 0 and epoch % config.save_period == 0:
        write_checkpoint(run.last.with_name(f"epoch{epoch}.pt"), run.learner, run.state, resumable=False)
    write_results_csv(run.folder / "results.csv", run.state.records)
    for logger in run.loggers:
        logger.log(record)


def drawing_weights(run: TrainingRun) -> np.ndarray | None:
    """How often each picture is drawn with ``--image-weights``; None for each once."""
    if not run.state.config.image_weights:
        return None
    return picture_weights(run.pictures.training.dataset.index, np.array(run.state.class_ap))


def new_learner(state: RunState, model: DetectionModel, steps_per_epoch: int, ranks: ProcessRanks) -> Learner:
    """The model on its device, with loss, optimizer, schedule and average at their beginning."""
    config, hyp, device = state.config, state.hyp, ranks.device
    precision = resolve_precision(config.precision, device)
    # Sums in a fixed order make a run repeatable to the bit; on CUDA that would cost speed, so only the CPU has it.
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    model = placed(model, device)
    frozen = freeze_layers(model, config.freeze)
    if frozen:
        LOGGER.info("frozen: %d parameter tensors, %s to %s", len(frozen), frozen[0], frozen[-1])
    schedule = LearningRateSchedule(hyp, max(config.epochs, 1), steps_per_epoch, config.batch_size, config.cos_lr)
    gains = LossGains.from_hyperparameters(hyp).scaled(
        levels=len(model.strides), class_count=model.class_count, imgsz=config.imgsz
    )
    average = WeightAverage(model)
    if config.sync_bn:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return Learner(
        model=model,
        network=model if ranks.world == 1 else DistributedDataParallel(model),
        loss=DetectionLoss(model.anchors, model.strides, model.class_count, gains),
        optimizer=build_optimizer(
            model, config.optimizer, lr=hyp.lr0, momentum=hyp.momentum, decay=schedule.weight_decay
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == torch.float16),
        schedule=schedule,
        average=average,
        ranks=ranks,
        precision=precision,
        multi_scale=MultiScale(config.imgsz, model.stride, config.seed) if config.multi_scale else None,
        pictures_per_image=QUAD if config.quad else 1,
    )


def evaluate_average(run: TrainingRun) -> EvaluationReport:
    """The averaged weights on the validation part."""
    learner = run.learner
    return judge(learner.average.model, run.pictures, evaluation_settings(run), learner)


def evaluation_settings(run: TrainingRun) -> EvaluationSettings:
    """The thresholds of ``val.py``, in the run's arithmetic."""
    return EvaluationSettings(
        nms=VALIDATION_NMS, single_cls=run.state.config.single_cls, precision=run.learner.precision
    )


def write_beginning(run: TrainingRun) -> None:
    """Settings and the start weights, from which a run that is killed in its first epoch goes on."""
    (run.folder / "weights").mkdir(exist_ok=True)
    write_text(run.folder / "hyp.yaml", yaml.safe_dump(run.state.hyp.to_dict(), sort_keys=False))
    write_text(run.folder / "opt.yaml", yaml.safe_dump(plain_config(run.state.config), sort_keys=False))
    pictures = run.pictures
    report_problems(run.folder, {"train": pictures.training.dataset.index, "val": pictures.evaluation.dataset.index})
    write_checkpoint(run.last, run.learner, run.state, resumable=True)
    if not run.state.config.noplots:
        draw_beginning(run)


def draw_beginning(run: TrainingRun) -> None:
    """Pictures of what is learned from: object sizes, and the first batches as the model will see them."""
    dataset = run.pictures.training.dataset
    classes = dataset.index.rows[:, 0].astype(int)
    plot_label_sizes(run.folder / "labels.png", dataset.index.object_sizes(), classes, dataset.names)
    run.pictures.training.set_epoch(0, drawing_weights(run))
    for number, batch in enumerate(run.pictures.training.first(PICTURED_BATCHES)):
        write_picture(run.folder / f"train_batch{number}.jpg", batch_mosaic(batch, dataset.names))


def finish(run: TrainingRun) -> None:
    """Evaluate the best weights once more, with pictures, and close the run's checkpoint."""
    config, dataset = run.state.config, run.pictures.evaluation.dataset
    names = ("item",) * len(dataset.names) if config.single_cls else dataset.names  # of the labels, whatever is learned
    ranks, model = run.learner.ranks, copy.deepcopy(run.learner.average.model)
    chosen = run.best if run.best.is_file() else run.last
    if ranks.is_writer:
        model = placed(load_model(chosen), ranks.device)
    ranks.share(model)
    pictures = [BatchPictures(run.folder, names)] if ranks.is_writer and not config.noplots else []
    report = judge(model, run.pictures, evaluation_settings(run), run.learner, pictures)
    if not ranks.is_writer:
        return
    LOGGER.info("%s:\n%s", chosen, format_table(report))
    write_metrics(run.folder / "metrics.json", report, chosen, plain_config(config))
    if not config.noplots:
        write_evaluation_plots(run.folder, report)
        plot_results(run.folder / "results.png", run.state.records)
    run.state = replace(run.state, finished=True)
    write_checkpoint(run.last, run.learner, run.state, resumable=False)

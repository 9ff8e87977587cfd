"""A training run from its settings to its results: begun or resumed, epoch by epoch, and what is written when.

Whatever is learned: `utils.training.task` says what that adds. The training step itself is in
`utils.training.one_epoch`.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Generic

import yaml
from torch import nn

from utils.config.command_line import script_command
from utils.config.run_flags import RunConfig
from utils.reporting.curve_plots import plot_results
from utils.reporting.epoch_log import FinishedEpoch, write_results_csv
from utils.reporting.run_directory import hold_run_directory, new_run_directory, set_aside_older
from utils.reporting.watchers import WatchedRun, Watcher, open_loggers, refuse_missing_loggers
from utils.runtime.atomic_files import write_text
from utils.runtime.console_log import Progress, counted, say_next
from utils.runtime.device import describe_device, measured_convolutions, resolve_precision
from utils.runtime.failures import explained_failures, is_lost_loader, own_failures
from utils.runtime.process_ranks import ProcessRanks, joined_processes
from utils.runtime.reused_memory import give_back_freed_memory, reuse_freed_memory
from utils.runtime.seeds import repeatable_arithmetic, reseed_torch
from utils.runtime.stop_signals import Stopped, StopRequest, stop_requests
from utils.training.checkpoint import (
    OF_ONE_RUN,
    PREVIOUS,
    RunState,
    checkpoint_to_resume,
    config_from_plain,
    keep_previous,
    plain_config,
    read_checkpoint,
    remove_unfinished,
    restore,
    restore_threads,
    round_to_half,
    settle_rounding,
    write_checkpoint,
)
from utils.training.early_stopping import best_epoch, patience_exhausted
from utils.training.one_epoch import BatchType, Learner, NonFiniteLoss, train_one_epoch
from utils.training.task import Config, Recipe, Task, TaskKind
from utils.user_error import UsageError, UserError, typed

LOGGER = logging.getLogger(__name__)
MOMENT = 1.0  # seconds in which a signal reaches all processes of a group


@dataclass(slots=True)
class TrainingRun(Generic[BatchType]):
    """A run in its folder."""

    script: str  # that starts such runs
    folder: Path
    state: RunState
    task: Task[BatchType]
    watchers: Sequence[Watcher] = ()
    resumed: bool = False

    @property
    def config(self) -> RunConfig:
        return self.task.config

    @property
    def learner(self) -> Learner[nn.Module, BatchType]:
        return self.task.learner

    @property
    def last(self) -> Path:
        return self.folder / "weights" / "last.pt"

    @property
    def best(self) -> Path:
        return self.folder / "weights" / "best.pt"


def train(kind: TaskKind[Config, Recipe, BatchType], config: Config, watchers: Sequence[Watcher] = ()) -> Path:
    """Train as ``config`` says, or go on with the run that it names. Gives the run's folder.

    ``watchers`` follow the run beside the loggers that the settings name, see `Watcher`.

    Raises:
        UserError: anything missing or wrong in the files that the settings name, or a loss that is not finite.
        Stopped: SIGINT or SIGTERM; the unfinished epoch is dropped.
    """
    with joined_processes(config.device, config.local_rank) as ranks:
        repeatable_arithmetic(ranks.device)  # these two are modes of the whole process
        reuse_freed_memory(ranks.device)
        if config.resume:
            checkpoint = Path(ranks.text(str(checkpoint_to_resume(config.resume, Path(config.project)))))
            return resume(kind, checkpoint, config, ranks, watchers)
        return begin(kind, config, ranks, watchers)


def begin(
    kind: TaskKind[Config, Recipe, BatchType], config: Config, ranks: ProcessRanks, watchers: Sequence[Watcher]
) -> Path:
    """A new run, to its end."""
    run = new_run(kind, config, ranks)
    run.watchers = watchers
    with hold_run_directory(run.folder) if ranks.is_writer else nullcontext():
        if ranks.is_writer:
            remove_unfinished(run.folder)
            set_aside_older(run.folder, OF_ONE_RUN)
            write_beginning(run)
        return run_to_the_end(run)


def resume(
    kind: TaskKind[Config, Recipe, BatchType],
    checkpoint: Path,
    config: Config,
    ranks: ProcessRanks,
    watchers: Sequence[Watcher],
) -> Path:
    """The run that left ``checkpoint``, to its end."""
    with hold_run_directory(checkpoint.parent.parent) if ranks.is_writer else nullcontext():
        run = resumed_run(kind, checkpoint, config, ranks)
        run.watchers = watchers
        if ranks.is_writer:
            remove_unfinished(run.folder)
            if checkpoint != run.last:  # last.pt may be what could not be read, and is not to be kept as a good one
                write_checkpoint(run.last, run.task, run.state, resumable=True)
            if run.state.records:
                write_results_csv(run.folder / "results.csv", run.state.records)
        return run_to_the_end(run)


def new_run(kind: TaskKind[Config, Recipe, BatchType], config: Config, ranks: ProcessRanks) -> TrainingRun[BatchType]:
    """A run at its beginning. The folder is made last, when all that the settings name has been checked."""
    refuse_missing_loggers(config.loggers)
    refuse_what_processes_cannot_share(config, ranks)
    resolve_precision(config.precision, ranks.device)  # a wrong one is refused before images are read
    reseed_torch(config.seed, epoch=-1)  # the starting weights draw from a number of their own
    task = kind.begun(config, ranks)
    state = RunState(records=(), class_ap=(0.0,) * task.class_count)
    made = new_run_directory(config.project, config.name, exist_ok=config.exist_ok) if ranks.is_writer else ""
    return TrainingRun(kind.script, Path(ranks.text(str(made))), state, task)


def refuse_what_processes_cannot_share(config: RunConfig, ranks: ProcessRanks) -> None:
    """Settings that the number or kind of processes rules out.

    Raises:
        UsageError: naming the setting.
    """
    if config.sync_bn and (ranks.world == 1 or ranks.device.type != "cuda"):
        raise UsageError("--sync-bn: needs several processes on CUDA; start with torchrun --nproc_per_node N")
    if config.batch_size == -1 and ranks.world > 1:
        raise UsageError("--batch-size -1: measures one process; give the number of images over all processes")
    if config.images_per_step % ranks.world and ranks.world > 1:
        raise UsageError(f"--batch-size {config.batch_size}: must divide among {ranks.world} processes")


def resumed_run(
    kind: TaskKind[Config, Recipe, BatchType], checkpoint: Path, config: Config, ranks: ProcessRanks
) -> TrainingRun[BatchType]:
    """A run as it stood after its last finished epoch, with the settings it was begun with."""
    content = read_checkpoint(checkpoint, kind.script, kind.name)
    records = tuple(kind.record_type(**record) for record in content["records"])
    if content["finished"]:
        raise UserError(
            f"{checkpoint}: that run is finished ({counted(len(records), 'epoch')}); start a new one from it"
        )
    if content["optimizer"] is None:
        raise UserError(f"{checkpoint}: holds no training state; resume from the last.pt of its run")
    restore_threads(content)
    begun_with = config_from_plain(kind.config_type, content["config"])
    # The device and the number of workers belong to the machine that goes on, not to the run.
    settings = replace(begun_with, device=config.device, workers=config.workers)
    refuse_what_processes_cannot_share(settings, ranks)
    task = kind.reopened(checkpoint, settings, config_from_plain(kind.recipe_type, content["hyp"]), ranks)
    restore(task.learner, content)
    LOGGER.info("resuming %s with epoch %d of %d", checkpoint.parent.parent, len(records), settings.epochs)
    state = RunState(records, class_ap=tuple(content["class_ap"]), thresholds=content["thresholds"])
    return TrainingRun(kind.script, checkpoint.parent.parent, state, task, resumed=True)


def run_to_the_end(run: TrainingRun[BatchType]) -> Path:
    """The epochs that are left, the last evaluation, and a line that says where the results are."""
    config, ranks, is_watched = run.config, run.learner.ranks, bool(run.watchers)
    processes = f", {ranks.world} processes" if ranks.world > 1 else ""
    LOGGER.info("training on %s%s, results in %s", describe_device(ranks.device), processes, run.folder)
    with explained_failures(config.batch_size, config.imgsz), ExitStack() as closing:
        if ranks.is_writer:
            begin_watching(run, closing)
        with stop_requests() as stop:
            for epoch in range(len(run.state.records), config.epochs):
                if patience_exhausted(run.state.records, config.patience):
                    LOGGER.info("no better fitness in %s: stopping", counted(config.patience, "epoch"))
                    break
                run_epoch(run, epoch, stop)
        finish(run)
    LOGGER.info("results in %s", run.folder)
    if config.epochs and ranks.is_writer and not is_watched:
        say_next(*run.task.next_commands(run.best if run.best.is_file() else run.last))  # --nosave has no best one
    return run.folder


def begin_watching(run: TrainingRun[BatchType], closing: ExitStack) -> None:
    """Loggers and other watchers meet the run, and its end when ``closing`` ends."""
    watched = WatchedRun(
        folder=run.folder,
        settings=plain_config(run.config),
        hyperparameters=plain_config(run.task.hyp),
        resumed=run.resumed,
        epochs_done=len(run.state.records),
    )
    run.watchers = [*open_loggers(run.config.loggers), *run.watchers]
    for watcher in run.watchers:
        with own_failures(type(watcher).__name__):
            watcher.on_begin(watched)
        closing.push(partial(end_watching, watcher))


def end_watching(watcher: Watcher, kind: type[BaseException] | None, *_: object) -> None:
    """The end of a run, by itself or by an exception of a ``kind``."""
    with own_failures(type(watcher).__name__):
        watcher.on_end(finished=kind is None)


def run_epoch(run: TrainingRun[BatchType], epoch: int, stop: StopRequest) -> None:
    """Train on every image once, evaluate the average, record and save.

    Raises:
        Stopped: a signal asked to stop; the epoch leaves no trace.
    """
    config, is_last, ranks = run.config, epoch == run.config.epochs - 1, run.learner.ranks
    reseed_torch(config.seed, epoch, ranks.rank)
    batches = run.task.batches(epoch, run.state.class_ap)
    title = f"epoch {epoch}/{config.epochs - 1}"
    progress_bar = Progress(len(batches), "batch", title, shown=ranks.is_writer)
    with progress_bar as progress, measured_convolutions(ranks.device, sizes_repeat=run.learner.sizes_repeat):
        try:
            outcome = train_one_epoch(run.learner, batches, epoch, progress, stop)
        except NonFiniteLoss as error:
            raise UserError(f"{error}; the last good checkpoint is {run.last}") from error
        except (RuntimeError, OSError, EOFError) as error:
            # A signal to the whole group ends the loading processes at once, perhaps before it is heard of here.
            if not (is_lost_loader(error) and stop.arrives_within(MOMENT)):
                raise
            outcome = None
    if outcome is None:
        number = stop.signal_number or signal.SIGTERM  # another process may have been asked
        again = f"{typed(f'python {run.script}')} --resume {run.last}"
        raise Stopped(number, f"stopped in epoch {epoch}; go on with: {again}")
    ranks.share(run.learner.average.model)  # batch statistics are each process's own
    if is_last or not config.noval:
        give_back_freed_memory()
        record, class_ap, thresholds = run.task.evaluate(epoch, outcome)
    else:
        record, class_ap, thresholds = run.task.record(epoch, outcome), run.state.class_ap, None
    run.state = RunState((*run.state.records, record), class_ap, thresholds=thresholds)
    LOGGER.info("%s", record.line())
    if ranks.is_writer:
        write_epoch(run, record)


def write_epoch(run: TrainingRun[BatchType], record: FinishedEpoch) -> None:
    """Checkpoints and the table, after a finished epoch."""
    config, epoch = run.config, record.epoch
    is_last, best = epoch == config.epochs - 1, best_epoch(run.state.records)
    is_saved = is_last or not config.nosave
    if is_saved:
        if best is record or best is None:
            write_checkpoint(run.best, run.task, run.state, resumable=False)
        keep_previous(run.last)
        write_checkpoint(run.last, run.task, run.state, resumable=True)
    if config.save_period > 0 and epoch % config.save_period == 0:
        write_checkpoint(run.last.with_name(f"epoch{epoch}.pt"), run.task, run.state, resumable=False)
    write_results_csv(run.folder / "results.csv", run.state.records)
    for watcher in run.watchers:
        with own_failures(type(watcher).__name__):
            watcher.on_epoch(record)
            if is_saved and best is record:
                watcher.on_best(record, run.best)


def write_beginning(run: TrainingRun[BatchType]) -> None:
    """Settings and the start weights, from which a run that is killed in its first epoch goes on."""
    (run.folder / "weights").mkdir(exist_ok=True)
    write_text(run.folder / "hyp.yaml", yaml.safe_dump(plain_config(run.task.hyp), sort_keys=False))
    write_text(run.folder / "opt.yaml", yaml.safe_dump(plain_config(run.config), sort_keys=False))
    write_checkpoint(run.last, run.task, run.state, resumable=True)
    run.task.write_beginning(run.folder, run.state.class_ap)


def finish(run: TrainingRun[BatchType]) -> None:
    """Evaluate the best weights once more, with images, or only write those of no epoch; close the run's checkpoint."""
    is_writer = run.learner.ranks.is_writer
    if run.config.epochs:
        if (best := best_epoch(run.state.records)) is not None:
            LOGGER.info("best epoch: %d, %s is %.5f", best.epoch, run.config.fitness_is, best.fitness)
        evaluate_best(run)
    if not is_writer:
        return
    if not run.config.epochs:
        write_checkpoint(run.best, run.task, run.state, resumable=False)
        command = script_command(run.script.replace("train", "val"), "--weights", run.best)
        LOGGER.info("start weights in %s, not evaluated: %s", run.best, command)
    if run.state.records and not run.config.noplots:
        plot_results(run.folder / "results.png", run.state.records)
    run.state = replace(run.state, finished=True)
    write_checkpoint(run.last, run.task, run.state, resumable=False)
    run.last.with_name(PREVIOUS).unlink(missing_ok=True)


def evaluate_best(run: TrainingRun[BatchType]) -> None:
    """Evaluate best.pt, in half precision if that changes no figure of its epoch, and leave it so; else as it is."""
    ranks, best, record = run.learner.ranks, run.best, best_epoch(run.state.records)
    if ranks.any(ranks.is_writer and record is not None and round_to_half(best)):
        kept = False
        try:
            kept = run.task.evaluate_best(best, run.folder, record)
        finally:
            if ranks.is_writer:
                settle_rounding(best, kept=kept)
        if kept:
            return
    run.task.evaluate_best(best if best.is_file() else run.last, run.folder, None)

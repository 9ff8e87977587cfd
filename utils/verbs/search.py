"""A search for better hyperparameters (``--evolve N``): an Optuna study of training runs, kept in an SQLite file.

The sampler is TPE (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011); runs that fall behind
the median of the others at the same epoch are pruned. Several processes may work on one study at once.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from utils.config.fitness import YOLOV5_MIX
from utils.config.hyperparameters import Hyperparameters, find_hyperparameters, read_hyperparameters
from utils.config.train_flags import TrainConfig
from utils.reporting.curve_plots import plot_search
from utils.reporting.epoch_log import FinishedEpoch
from utils.reporting.run_directory import new_run_directory
from utils.reporting.watchers import Watcher
from utils.runtime.atomic_files import write_text
from utils.runtime.console_log import counted
from utils.runtime.stop_signals import Stopped
from utils.training.checkpoint import config_from_plain, plain_config
from utils.training.one_epoch import NonFiniteLoss
from utils.training.starting_model import ModelSource
from utils.user_error import UsageError, UserError, typed
from utils.verbs.train import train_detector

LOGGER = logging.getLogger(__name__)
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
FEWEST_FOR_IMPORTANCE = 8  # complete trials; below them the shares say nothing
# YOLOv5's limits. Left out are iou_t, which has no effect, fl_gamma, which YOLOv5 keeps too, and anchors.
SEARCH_SPACE: dict[str, tuple[float, float]] = {
    "lr0": (1e-5, 1e-1),
    "lrf": (0.01, 1.0),
    "momentum": (0.6, 0.98),
    "weight_decay": (0.0, 0.001),
    "warmup_epochs": (0.0, 5.0),
    "warmup_momentum": (0.0, 0.95),
    "warmup_bias_lr": (0.0, 0.2),
    "box": (0.02, 0.2),
    "cls": (0.2, 4.0),
    "cls_pw": (0.5, 2.0),
    "obj": (0.2, 4.0),
    "obj_pw": (0.5, 2.0),
    "anchor_t": (2.0, 8.0),
    "hsv_h": (0.0, 0.1),
    "hsv_s": (0.0, 0.9),
    "hsv_v": (0.0, 0.9),
    "degrees": (0.0, 45.0),
    "translate": (0.0, 0.9),
    "scale": (0.0, 0.9),
    "shear": (0.0, 10.0),
    "perspective": (0.0, 0.001),
    "flipud": (0.0, 1.0),
    "fliplr": (0.0, 1.0),
    "mosaic": (0.0, 1.0),
    "mixup": (0.0, 1.0),
    "copy_paste": (0.0, 1.0),
}
# An anchor-free head has gains of its own in place of these; YOLOv5u has no limits for them.
OF_ANCHORS = ("box", "cls", "cls_pw", "obj", "obj_pw", "anchor_t")
OF_NO_ANCHORS = {"free_box": (2.0, 20.0), "free_cls": (0.1, 2.0), "free_dfl": (0.4, 6.0)}
LOGARITHMIC = ("lr0",)


class FitnessReport(Watcher):
    """Tells the study a run's fitness after every evaluated epoch, and ends a run that falls behind."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.best = 0.0

    def on_epoch(self, record: FinishedEpoch) -> None:
        """Report an epoch.

        Raises:
            optuna.TrialPruned: the other runs were better at this epoch.
        """
        if not record.evaluated:
            return
        self.best = max(self.best, record.fitness)
        self.trial.report(record.fitness, record.epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def search(config: TrainConfig) -> Path:
    """Train with ever other hyperparameters until ``config.evolve`` trials are finished; the study's folder.

    Raises:
        UserError: no such study, or wrong settings.
        Stopped: SIGINT or SIGTERM; the unfinished trial does not count.
    """
    assert config.evolve is not None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--evolve: a trial is one process; start the command several times with --resume-evolve")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder, study = opened_study(config) if config.resume_evolve else new_study(config)
    settings = config_from_plain(TrainConfig, study.user_attrs["config"])
    settings = replace(settings, device=config.device, workers=config.workers)
    base = Hyperparameters(**study.user_attrs["hyp"])
    while (held := next_trial(study, folder, config.evolve, settings.seed)) is not None:
        trial, lock = held
        with contextlib.closing(lock):
            run_trial(study, trial, settings, base, folder)
        with study_lock(folder):
            write_results(study, base, folder)
    finished = len(study.get_trials(deepcopy=False, states=FINISHED))
    running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    others = f"; {running} more are running in other processes" if running else ""
    done = f"{counted(finished, 'trial')} {'is' if finished == 1 else 'are'} finished{others}"
    LOGGER.info("%s; the best hyperparameters: %s", done, folder / "hyp_evolved.yaml")
    return folder


def new_study(config: TrainConfig) -> tuple[Path, optuna.Study]:
    """A study in a folder of its own; the given hyperparameters, then those of the population, are its first trials."""
    base = read_hyperparameters(find_hyperparameters(config.hyp))
    first = [base, *population(config.evolve_population)]
    anchor_free = ModelSource(config.weights, config.cfg).read()[0].anchors == 0
    default_project = TrainConfig.__dataclass_fields__["project"].default
    project = "runs/evolve" if config.project == default_project else config.project
    folder = new_run_directory(project, config.name, exist_ok=False)
    study = optuna.create_study(storage=storage(folder / "study.db"), study_name="evolve", direction="maximize")
    study.set_user_attr("anchor_free", anchor_free)
    for hyp in first:
        values = hyp.to_dict()
        study.enqueue_trial({n: min(max(values[n], low), high) for n, (low, high) in search_space(study).items()})
    study.set_user_attr("hyp", base.to_dict())
    own = replace(config, evolve=None, evolve_population="", resume_evolve="", project=str(folder))
    study.set_user_attr("config", plain_config(own))  # the last, without which a study is not complete
    LOGGER.info("study in %s; to join it: %s --evolve N --resume-evolve %s", folder, typed("python train.py"), folder)
    return folder, study


def search_space(study: optuna.Study) -> dict[str, tuple[float, float]]:
    """The limits of each hyperparameter that has an effect on the study's model."""
    if not study.user_attrs.get("anchor_free", False):
        return SEARCH_SPACE
    return {n: limits for n, limits in SEARCH_SPACE.items() if n not in OF_ANCHORS} | OF_NO_ANCHORS


def population(folder: str) -> list[Hyperparameters]:
    """The hyp YAMLs of ``--evolve_population DIR``, by name.

    Raises:
        UserError: the folder has none, or one is wrong.
    """
    if not folder:
        return []
    files = sorted(path for path in Path(folder).glob("*.y*ml") if path.suffix in (".yaml", ".yml"))
    if not files:
        raise UserError(f"--evolve-population {folder}: no hyp YAML there")
    return [read_hyperparameters(path) for path in files]


def opened_study(config: TrainConfig) -> tuple[Path, optuna.Study]:
    """The study of ``--resume_evolve``: its folder or its ``study.db``.

    Raises:
        UserError: no study is there.
    """
    named = Path(config.resume_evolve)
    file = named / "study.db" if named.is_dir() else named
    if not file.is_file():
        raise UserError(f"--resume-evolve {config.resume_evolve}: no study.db there")
    try:
        study = optuna.load_study(study_name="evolve", storage=storage(file))
        complete = "config" in study.user_attrs
    except (KeyError, optuna.exceptions.OptunaError, SQLAlchemyError) as error:
        raise UserError(f"{file}: not a study of {typed('train.py')} --evolve") from error
    if not complete:
        raise UserError(f"{file}: its process ended before the study had settings; start a new one")
    return file.parent, study


def storage(file: Path) -> optuna.storages.RDBStorage:
    """The SQLite file, which waits while another process writes.

    Raises:
        UserError: it is not one.
    """
    url = URL.create("sqlite", database=str(file.resolve())).render_as_string()
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 120}})
    except (optuna.exceptions.OptunaError, SQLAlchemyError, RuntimeError) as error:
        raise UserError(f"{file}: not a study of {typed('train.py')} --evolve") from error


def next_trial(
    study: optuna.Study, folder: Path, wanted: int, seed: int
) -> tuple[optuna.Trial, io.TextIOWrapper] | None:
    """A trial and the lock that shows that it lives; None when those finished and running are enough."""
    with study_lock(folder):
        for dead in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            with trial_lock_file(folder, dead.number) as lock, contextlib.suppress(BlockingIOError):
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                study.tell(dead.number, state=TrialState.FAIL)
                shutil.rmtree(folder / f"trial{dead.number}" / "weights", ignore_errors=True)
                again = dict(dead.system_attrs.get("fixed_params", {}))
                if again:  # a trial that was asked for is asked for again
                    study.enqueue_trial(again)
        if len(study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING))) >= wanted:
            return None
        # Every trial draws from numbers of its own, whichever process runs it.
        count = len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(seed=(seed * 1_000_003 + count) % 2**32)
        study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
        trial = study.ask()
        lock = trial_lock_file(folder, trial.number)
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return trial, lock


@contextmanager
def study_lock(folder: Path) -> Iterator[None]:
    """One process at a time counts, asks and writes results."""
    with (folder / ".lock").open("a") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield


def trial_lock_file(folder: Path, number: int) -> io.TextIOWrapper:
    """Locked by the process that runs the trial; the lock ends with it, however it ends."""
    return (folder / f".trial{number}.lock").open("a")


def run_trial(
    study: optuna.Study, trial: optuna.Trial, config: TrainConfig, base: Hyperparameters, folder: Path
) -> None:
    """Train once with the trial's hyperparameters and tell the study how it went; the weights are not kept."""
    limits = search_space(study)
    drawn = {n: trial.suggest_float(n, low, high, log=n in LOGARITHMIC) for n, (low, high) in limits.items()}
    name = f"trial{trial.number}"
    hyp_file = folder / f"{name}.hyp.yaml"
    write_text(hyp_file, yaml.safe_dump(replace(base, **drawn).to_dict(), sort_keys=False))
    config = replace(config, hyp=str(hyp_file), name=name, exist_ok=True, noplots=True, nosave=True, loggers=("none",))
    report = FitnessReport(trial)
    try:
        train_detector(config, (report,))
        study.tell(trial, report.best)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except Stopped as stop:
        study.tell(trial, state=TrialState.FAIL)
        wanted = f"{typed('python train.py')} --evolve N --resume-evolve {folder}"
        raise Stopped(stop.exit_code - 128, f"stopped in trial {trial.number}; go on with: {wanted}") from stop
    except UserError as error:
        if not isinstance(error.__cause__, NonFiniteLoss):
            study.tell(trial, state=TrialState.FAIL)
            raise
        LOGGER.warning("%s: %s", name, error.__cause__)
        study.tell(trial, 0.0)  # as bad as can be, which the sampler shall learn
    finally:
        shutil.rmtree(folder / name / "weights", ignore_errors=True)
        hyp_file.unlink(missing_ok=True)  # the run's folder has a copy


def write_results(study: optuna.Study, base: Hyperparameters, folder: Path) -> None:
    """``evolve.csv`` of all finished trials, the best hyperparameters, and the plots."""
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    write_text(folder / "evolve.csv", trials_csv(trials, tuple(search_space(study))))
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        return
    best, measure = study.best_trial, study.user_attrs.get("config", {}).get("fitness", YOLOV5_MIX)
    comment = f"# Best of {len(trials)} trials: trial {best.number}, fitness {best.value:.5f} ({measure})\n"
    found = replace(base, **best.params).to_dict()
    write_text(folder / "hyp_evolved.yaml", comment + yaml.safe_dump(found, sort_keys=False))
    importance: dict[str, float] = {}
    if len(complete) >= FEWEST_FOR_IMPORTANCE and len({trial.value for trial in complete}) > 1:
        # Not above: it brings scikit-learn, which sets environment variables.
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        importance = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    values = [(trial.number, trial.value) for trial in complete if trial.value is not None]
    plot_search(folder / "evolve.png", values, importance, measure)


def trials_csv(trials: Sequence[FrozenTrial], names: Sequence[str]) -> str:
    """One row per trial: number, state, fitness, the hyperparameters ``names``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "fitness", *names])
    for trial in trials:
        value = "" if trial.value is None else f"{trial.value:.6f}"
        params = [f"{trial.params[name]:.6g}" for name in names]
        writer.writerow([trial.number, trial.state.name.lower(), value, *params])
    return text.getvalue()

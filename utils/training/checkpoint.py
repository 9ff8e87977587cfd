"""Checkpoints of a training run: tensors and plain values only, written whole or not at all."""

from __future__ import annotations

import copy
import logging
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

import torch
from torch import nn

from models.pickles import DAMAGE
from models.weights import SCHEMA
from utils.reporting.epoch_log import FinishedEpoch, moved_figure
from utils.runtime.atomic_files import atomic_file
from utils.runtime.device import placed
from utils.runtime.process_ranks import ProcessRanks
from utils.training.one_epoch import BatchType, Learner
from utils.training.optimizer import load_state
from utils.training.task import PlainFields, Task
from utils.user_error import UserError, typed

LOGGER = logging.getLogger(__name__)
Settings = TypeVar("Settings")  # a dataclass of plain values
Model = TypeVar("Model", bound=nn.Module)
PREVIOUS = "last.prev.pt"
EXACT = ".best.pt.exact"  # best.pt as it was, while it is tried in half precision
OF_ONE_RUN = (
    "weights/last.pt",
    "weights/last.prev.pt",
    "weights/best.pt",
    "results.csv",
    "metrics.json",
    "problems.txt",
)


@dataclass(frozen=True, slots=True)
class RunState:
    """What the finished epochs of a run leave to those to come, besides the learner's own state."""

    records: tuple[FinishedEpoch, ...]  # of every finished epoch
    class_ap: tuple[float, ...]  # how well each class did in the last evaluation, 0 before it
    finished: bool = False
    thresholds: dict[str, object] | None = None  # of the last epoch's evaluation, None where it had none


class CheckpointContent(TypedDict):
    """A checkpoint's keys, besides the task's ``model_fields``."""

    model: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor] | None  # what may be None is so where nobody is to resume
    average_updates: int
    optimizer: dict[str, Any] | None  # as torch's optimizers give it
    scaler: dict[str, Any] | None
    config: dict[str, object]  # see `plain_config`
    hyp: dict[str, object]
    records: list[dict[str, float | str]]  # fields of each epoch's record
    finished: bool
    class_ap: list[float]
    thresholds: dict[str, object] | None  # see `EvaluationReport.stored_thresholds`
    threads: int
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Library versions that a bit-identical continuation depends on."""
    return {"python": platform.python_version(), "torch": str(torch.__version__)}


def write_checkpoint(path: Path, task: Task[BatchType], state: RunState, *, resumable: bool) -> None:
    """Write model and average and, if the file is to be ``resumable``, all that going on needs.

    Raises:
        UserError: the disk is full or the folder cannot be written; an older file under ``path`` stays as it was.
    """
    learner = task.learner
    averaged = learner.average.model.state_dict()
    content: CheckpointContent = {
        # What is not resumed is only used, and the average is the model that was evaluated.
        "model": learner.model.state_dict() if resumable else averaged,
        "average": averaged if resumable else None,
        "average_updates": learner.average.updates,
        "optimizer": learner.optimizer.state_dict() if resumable else None,
        "scaler": learner.scaler.state_dict() if resumable else None,
        "config": plain_config(task.config),
        "hyp": plain_config(task.hyp),
        "records": [record.as_dict() for record in state.records],
        "finished": state.finished,
        "class_ap": list(state.class_ap),
        "thresholds": state.thresholds,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    _save(path, {**task.model_fields(), **content})


def _save(path: Path, content: Mapping[str, object]) -> None:
    try:
        with atomic_file(path) as file:
            torch.save(dict(content), file)
    except (OSError, RuntimeError) as error:  # torch reports a failed write of its archive as RuntimeError
        raise UserError(f"{path}: cannot write the checkpoint: {error}") from error


def plain_config(config: PlainFields) -> dict[str, object]:
    """The fields of a settings object as plain values, tuples as lists, for YAML and checkpoints."""
    values = {item.name: getattr(config, item.name) for item in fields(config)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def config_from_plain(kind: Callable[..., Settings], values: Mapping[str, object]) -> Settings:
    """The settings that :func:`plain_config` made plain."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def read_checkpoint(path: Path, script: str = "train.py", task: str = "detect") -> CheckpointContent:
    """The content of a checkpoint of ``task`` that ``script`` wrote, opened without running anything in it.

    Raises:
        UserError: no such file, damaged, or not a checkpoint of a training run of this script.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except DAMAGE as error:
        kept = previous_of(path)
        offer = f"; the epoch before it is whole: {typed(f'python {script}')} --resume {kept}" if kept else ""
        raise UserError(f"{path}: damaged, or not a checkpoint of {typed(script)}{offer}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or "optimizer" not in content:
        raise UserError(f"{path}: not a checkpoint of {typed(script)} (schema {SCHEMA})")
    found = content.get("task", "detect")  # the first checkpoints were all of detectors and did not say so
    if found != task:
        raise UserError(f"{path}: a checkpoint whose task is '{found}'; {typed(script)} trains to {task}")
    return cast(CheckpointContent, {"class_ap": [], "thresholds": None, **content})  # older ones had none


def restore(learner: Learner[nn.Module, BatchType], content: CheckpointContent) -> None:
    """Give the learner the state in which the last epoch of a checkpoint to resume from ended."""
    assert content["average"] is not None and content["optimizer"] is not None and content["scaler"] is not None
    learner.model.load_state_dict(content["model"])
    learner.average.model.load_state_dict(content["average"])
    learner.average.updates = content["average_updates"]
    load_state(learner.optimizer, content["optimizer"])
    learner.scaler.load_state_dict(content["scaler"])


def restore_threads(content: CheckpointContent) -> None:
    """Compute with as many threads as the run did, as sums depend on it, and warn of other library versions."""
    torch.set_num_threads(content["threads"])
    for library, version in versions().items():
        before = content["versions"].get(library)
        if before != version:
            LOGGER.warning(
                "resumed with %s %s, begun with %s: figures may differ in the last digits", library, version, before
            )


def checkpoint_to_resume(wanted: bool | str, project: Path) -> Path:
    """The ``last.pt`` named by ``--resume PATH``, or that of the newest run below the project's parent folder.

    A run's folder may be named instead of its checkpoint.

    Raises:
        UserError: there is none.
    """
    if isinstance(wanted, str):
        named = Path(wanted)
        path = named / "weights" / "last.pt" if named.is_dir() else named
        if not path.is_file():
            raise UserError(f"--resume {wanted}: no such checkpoint")
        return path.resolve()
    found = list(project.glob("*/weights/last.pt"))
    if not found:
        raise UserError(f"--resume: no run with a weights/last.pt in {project}")
    return max(found, key=lambda path: path.stat().st_mtime_ns).resolve()


def same_in_every_process(load: Callable[[Path], Model], path: Path, own: Model, ranks: ProcessRanks) -> Model:
    """The model of a checkpoint that only the writer can be sure to read; ``own`` is of its architecture."""
    model = placed(load(path), ranks.device) if ranks.is_writer else copy.deepcopy(own)
    ranks.share(model)
    return model


def keep_previous(last: Path) -> None:
    """Keep the checkpoint under ``last``, if there is one, as ``last.prev.pt`` beside it."""
    if last.is_file():
        _keep(last, f".{PREVIOUS}").replace(last.with_name(PREVIOUS))


def _keep(path: Path, name: str) -> Path:
    """The file under another name too."""
    kept = path.with_name(name)
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, kept)
    return kept


def round_to_half(best: Path) -> bool:
    """Round the weights in ``best`` to half precision, as YOLOv5's are, on trial: see `settle_rounding`.

    False, and nothing done, where there is no such file or a weight is too large.
    """
    if not best.is_file():
        return False
    content = torch.load(best, map_location="cpu", weights_only=True)
    state = {name: each.half() if each.dtype == torch.float32 else each for name, each in content["model"].items()}
    if not all(bool(torch.isfinite(each).all()) for each in state.values()):
        return False
    _keep(best, EXACT)
    _save(best, {**content, "model": state})
    return True


def settle_rounding(best: Path, *, kept: bool) -> None:
    """End the trial of `round_to_half`: the rounded weights are ``kept``, or the exact ones are there again."""
    exact = best.with_name(EXACT)
    if kept:
        exact.unlink(missing_ok=True)
    elif exact.is_file():
        exact.replace(best)


def as_expected(checkpoint: Path, found: FinishedEpoch, expected: FinishedEpoch | None, ranks: ProcessRanks) -> bool:
    """Whether the writer ``found`` the figures expected of rounded weights, if any are; the first other one is told."""
    moved = moved_figure(found, expected) if expected is not None and ranks.is_writer else ""
    if moved:
        LOGGER.info("%s: keeps float32 weights; in half precision %s", checkpoint, moved)
    return not ranks.any(bool(moved))


def previous_of(checkpoint: Path) -> Path | None:
    """The checkpoint kept beside a ``last.pt``."""
    kept = checkpoint.with_name(PREVIOUS)
    return kept if checkpoint.name == "last.pt" and kept.is_file() else None


def remove_unfinished(folder: Path) -> None:
    """Delete checkpoints that a killed process had not written to their end; nobody else may be writing there."""
    settle_rounding(folder / "weights" / "best.pt", kept=False)
    for path in (folder / "weights").glob(".*.pt.*"):
        path.unlink()

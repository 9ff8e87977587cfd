"""Checkpoints of a training run: tensors and plain values only, written whole or not at all."""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from models.pickles import DAMAGE
from models.weights import SCHEMA
from utils.config.shared_flags import RunConfig
from utils.reporting.epoch_log import FinishedEpoch
from utils.runtime.atomic_files import atomic_file
from utils.training.learner import Learner
from utils.training.run_files import previous_of
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)
Settings = TypeVar("Settings")  # a dataclass of plain values
Config = TypeVar("Config", bound=RunConfig)
Recipe = TypeVar("Recipe")  # a dataclass of plain values
Record = TypeVar("Record", bound=FinishedEpoch)


@dataclass(frozen=True, slots=True)
class RunState(Generic[Config, Recipe, Record]):
    """What a killed run needs to go on where its last finished epoch ended."""

    config: Config
    hyp: Recipe
    records: tuple[Record, ...]  # of every finished epoch
    finished: bool
    class_ap: tuple[float, ...] = ()  # how well each class did in the last evaluation, 0 before it


def versions() -> dict[str, str]:
    """Library versions that a bit-identical continuation depends on."""
    return {"python": platform.python_version(), "torch": str(torch.__version__)}


def write_checkpoint(path: Path, learner: Learner[Any, Any], state: RunState, *, resumable: bool) -> None:
    """Write model and average and, if the file is to be ``resumable``, all that going on needs.

    Raises:
        UserError: the disk is full or the folder cannot be written; an older file under ``path`` stays as it was.
    """
    averaged = learner.average.model.state_dict()
    content = {
        **learner.description,
        # What is not resumed is only used, and the average is the model that was evaluated.
        "model": learner.model.state_dict() if resumable else averaged,
        "average": averaged if resumable else None,
        "average_updates": learner.average.updates,
        "optimizer": learner.optimizer.state_dict() if resumable else None,
        "scaler": learner.scaler.state_dict() if resumable else None,
        "config": plain_config(state.config),
        "hyp": plain_config(state.hyp),
        "records": [record.as_dict() for record in state.records],
        "finished": state.finished,
        "class_ap": list(state.class_ap),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    try:
        with atomic_file(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch reports a failed write of its archive as RuntimeError
        raise UserError(f"{path}: cannot write the checkpoint: {error}") from error


def plain_config(config: Any) -> dict[str, Any]:
    """The fields of a settings object as plain values, tuples as lists, for YAML and checkpoints."""
    values = {item.name: getattr(config, item.name) for item in fields(config)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def config_from_plain(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """The settings that :func:`plain_config` made plain."""
    settings: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
    return kind(**settings)


def read_checkpoint(path: Path, script: str = "train.py", task: str = "detect") -> dict[str, Any]:
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
        offer = f"; the epoch before it is whole: python {script} --resume {kept}" if kept else ""
        raise UserError(f"{path}: damaged, or not a checkpoint of {script}{offer}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or "optimizer" not in content:
        raise UserError(f"{path}: not a checkpoint of {script} (schema {SCHEMA})")
    found = content.get("task", "detect")  # the first checkpoints were all of detectors and did not say so
    if found != task:
        raise UserError(f"{path}: a checkpoint whose task is '{found}'; {script} trains to {task}")
    return content


def restore(learner: Learner[Any, Any], content: dict[str, Any]) -> None:
    """Give the learner the state in which the checkpoint's last epoch ended."""
    learner.model.load_state_dict(content["model"])
    learner.average.model.load_state_dict(content["average"])
    learner.average.updates = content["average_updates"]
    learner.optimizer.load_state_dict(content["optimizer"])
    learner.scaler.load_state_dict(content["scaler"])


def restore_threads(content: dict[str, Any]) -> None:
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

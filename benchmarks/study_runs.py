"""The runs of a study: which there are, in which order, what each found, and what may still be begun."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from utils.runtime.atomic_files import write_text
from utils.user_error import UsageError, UserError

FIGURES = ("AP", "AP50", "AP_S", "AP_M", "AP_L")
HELD_BACK = ("val", "test")  # parts: models and settings are chosen by the first, the second is reported
RANDOM = "random"  # the start from random weights


@dataclass(frozen=True, slots=True, order=True)
class StudyRun:
    """One training: a model on a data set from one start and one seed."""

    data: str
    start: str  # RANDOM, or a file of weights
    model: str  # with what of the recipe is its own, see `Variant`
    seed: int

    @property
    def arena(self) -> tuple[str, str]:
        """Runs of the same data and the same start compare."""
        return self.data, self.start

    @property
    def name(self) -> str:
        return f"{self.data}--{Path(self.start).stem}--{self.model}--seed{self.seed}"


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished run found. ``figures`` of val and test: 0-1, -1 where no object of that size exists."""

    run: StudyRun
    figures: Mapping[str, Mapping[str, float]]
    cpu_seconds: float  # of training and evaluation


def ordered_runs(
    data: Sequence[str], starts: Sequence[str], models: Sequence[str], seeds: Sequence[int]
) -> list[StudyRun]:
    """Every model is done with one seed everywhere before the next seed, so that a study cut off has whole pairs."""
    return [
        StudyRun(name, start, model, seed) for seed in seeds for name in data for start in starts for model in models
    ]


class StudyFolder:
    """The files of a study: ``settings.json`` and one file per finished run under ``runs/``.

    Several processes may work on one study: a run belongs to the process that holds its lock, which ends with the
    process, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results_folder = folder / "results"
        self.results_folder.mkdir(parents=True, exist_ok=True)

    def settle(self, settings: Mapping[str, object]) -> None:
        """Keep the settings that every run of the study has, or hold them to those that it was begun with.

        Raises:
            UserError: they differ, which would mix figures that do not compare.
        """
        file, wanted = self.folder / "settings.json", json.loads(json.dumps(settings))
        if not file.is_file():
            write_text(file, json.dumps(wanted, indent=2) + "\n")
            return
        known = json.loads(file.read_text(encoding="utf-8"))
        for key in sorted(known.keys() | wanted.keys()):
            if known.get(key) != wanted.get(key):
                raise UserError(
                    f"{file}: the study was begun with {key} {known.get(key)}, not {wanted.get(key)}; use another --out"
                )

    def results(self) -> list[RunResult]:
        """Every finished run."""
        return [_read(path) for path in sorted(self.results_folder.glob("*.json"))]

    def keep(self, result: RunResult) -> None:
        """Write a finished run's figures, whole or not at all."""
        write_text(self._file(result.run), json.dumps(asdict(result), indent=2) + "\n")

    @contextmanager
    def claimed(self, run: StudyRun) -> Iterator[bool]:
        """Whether the run is this process's to do: neither finished nor in the hands of another process.

        Raises:
            UserError: a run from other weights of the same file name is finished, whose figures would be taken for it.
        """
        with (self.results_folder / f".{run.name}.lock").open("a") as lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            finished = self._file(run)
            if finished.is_file() and (other := _read(finished).run) != run:
                raise UserError(f"{finished}: is a run from {other.start}, not {run.start}; give one another name")
            yield not finished.is_file()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time prepares data and writes what is common to all."""
        with (self.folder / ".lock").open("a") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            yield

    def _file(self, run: StudyRun) -> Path:
        return self.results_folder / f"{run.name}.json"


def _read(path: Path) -> RunResult:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        figures = {part: {name: float(content["figures"][part][name]) for name in FIGURES} for part in HELD_BACK}
        return RunResult(StudyRun(**content["run"]), figures, float(content["cpu_seconds"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a run of a study; delete it, and it will be done again") from error


@dataclass(frozen=True, slots=True)
class CpuBudget:
    """CPU time that all runs of a study may take together, those that are finished included."""

    seconds: float

    @classmethod
    def parse(cls, text: str) -> CpuBudget:
        """``90m`` or ``2.5h``.

        Raises:
            UsageError: anything else.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([mh])", text)
        if match is None or float(match[1]) <= 0:
            raise UsageError(f"--cpu-budget {text}: write minutes or hours, as in 90m or 2.5h")
        return cls(float(match[1]) * (60 if match[2] == "m" else 3600))

    def admits(self, run: StudyRun, finished: Sequence[RunResult]) -> bool:
        """Whether ``run`` fits into what is left, if it takes as long as the longest like it that is known."""
        return sum(one.cpu_seconds for one in finished) + expected_seconds(run, finished) <= self.seconds


def expected_seconds(run: StudyRun, finished: Sequence[RunResult]) -> float:
    """CPU time of the longest finished run of the same model and data, else of the same data, else 0: unknown."""
    same_data = [one for one in finished if one.run.arena == run.arena]
    same = [one for one in same_data if one.run.model == run.model] or same_data
    return max((one.cpu_seconds for one in same), default=0.0)

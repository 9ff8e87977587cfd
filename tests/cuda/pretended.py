"""Scripts run as if the machine had a CUDA GPU, and what was noted of them.

The tool that pretends lies with the optional reference data: a tensor says ``cuda:0`` to Python and is computed on the
CPU, what CUDA refuses is refused, and each time that the host waits for the device is counted by line. Counts are for
a unit (a step, a batch, an image): two runs, one with more units, and the difference, so that what happens once in a
run does not count.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from tests.end_to_end.scripts import environment
from tests.shared_data import REPOSITORY, SHARED

TOOL = SHARED / "tools" / "pretend_cuda" / "pretend_cuda.py"
RUNS = REPOSITORY / "tests" / "cuda" / "forked_runs.py"
needs_tool = pytest.mark.skipif(not TOOL.is_file(), reason=f"no {TOOL} (set SPD_SHARED to the reference data's folder)")

# What the tool's report files events under: the innermost of these functions that was running.
PHASES = {
    "utils.training.one_epoch:train_one_epoch": "train",
    "utils.training.batch_size:fitting_batch_size": "autobatch",
    "utils.training.session:write_epoch": "checkpoint",
    "utils.verbs.train:detection_task": "setup",
    "utils.evaluation.evaluate:evaluate": "val",
    "utils.evaluation.evaluate:evaluate_predictor": "val-slice",
    "utils.evaluation.classification:evaluate_classifier": "cls-val",
    "utils.inference.classifier_backends:classify_images": "cls-predict",
    "utils.verbs.detect:_Run._detect": "detect",
    "utils.verbs.export:export_model": "export",
    "utils.reporting.labelled_images:batch_mosaic": "drawing",
}


def named_function(place: str) -> Any:
    """What stands at ``module:name`` or ``module:Class.name``."""
    module, _, name = place.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def pretending(report: Path, **settings: str) -> dict[str, str]:
    """The environment of a program that runs under the tool."""
    phases = {place.rpartition(":")[2].rpartition(".")[2]: phase for place, phase in PHASES.items()}
    own = {"ROOT": str(REPOSITORY), "REPORT": str(report), "PHASES": json.dumps(phases), "QUIET": "1"} | settings
    return environment() | {f"PRETEND_{name}": value for name, value in own.items()}


@dataclass(frozen=True, slots=True)
class Noted:
    """A run that ended: how, what it said, and how often each event was seen, by (phase, kind, line)."""

    command: str
    code: int
    said: str
    events: Mapping[tuple[str, str, str], int]

    @classmethod
    def of(cls, command: str, code: int, said: str, report: Path) -> Noted:
        rows = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else []
        return cls(command, code, said, {(row["phase"], row["kind"], row["line"]): row["count"] for row in rows})

    def waits(self, phases: Collection[str] = ()) -> Counter[str]:
        """How often the host waited, by line and reason; in some ``phases``, or in all but the drawing."""
        found: Counter[str] = Counter()
        for (phase, kind, line), count in self.events.items():
            if kind.startswith("sync: ") and (phase in phases if phases else phase != "drawing"):
                found[f"{line}  {kind.removeprefix('sync: ')}"] += count
        return found

    def meetings(self) -> Counter[str]:
        """How often this process met the others, by collective and phase."""
        found: Counter[str] = Counter()
        for (phase, kind, _), count in self.events.items():
            if kind.startswith("collective: "):
                found[f"{kind.removeprefix('collective: ')} in {phase}"] += count
        return found

    def checked(self) -> Noted:
        """Itself, if nothing was refused and all went well."""
        assert self.code == 0 and "Traceback" not in self.said, f"{self.command}: {self.code}\n{self.said[-3000:]}"
        return self


@dataclass(frozen=True, slots=True)
class Waits:
    """How often the host waits for the device in one unit, by the line that waits."""

    lines: Mapping[str, float]

    @classmethod
    def between(cls, short: Noted, long: Noted, units: int, phases: Collection[str] = ()) -> Waits:
        """Of a unit, of which ``long`` has so many more than ``short``; see ``Noted.waits``."""
        lines: Counter[str] = Counter(long.waits(phases))
        lines.subtract(short.waits(phases))
        return cls({line: count / units for line, count in lines.items() if count})

    def per(self, units: int, without: Waits | None = None, times: int = 1) -> Waits:
        """The waits of one of ``units``, after so many ``times`` those of something else are taken off."""
        off = without.lines if without else {}
        lines = {*self.lines, *off}
        return Waits({one: (self.lines.get(one, 0) - times * off.get(one, 0)) / units for one in lines})

    @property
    def total(self) -> float:
        return sum(self.lines.values())

    def __str__(self) -> str:
        rows = sorted(self.lines.items(), key=lambda item: -item[1])
        return f"{self.total:g}" + "".join(f"\n    {share:6.3g}  {line}" for line, share in rows)


@dataclass
class PretendedGpu:
    """A machine with one GPU of 16 GiB."""

    folder: Path
    log: IO[bytes] = field(init=False)
    process: subprocess.Popen[str] = field(init=False)
    number: int = 0

    def __enter__(self) -> PretendedGpu:
        self.log = (self.folder / "server.txt").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, str(TOOL), str(RUNS)],
            env=pretending(self.folder / "server.json", OPS=os.environ.get("PRETEND_OPS", "")),
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=60)
        self.log.close()

    def run(self, *words: object) -> Noted:
        """``python WORDS``, which has to go well."""
        return self.ended(*words).checked()

    def ended(self, *words: object) -> Noted:
        """``python WORDS``, however it ends."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.number += 1
        report = self.folder / f"run{self.number}.json"
        request = {"words": ["python", *map(str, words)], "folder": str(self.folder), "report": str(report)}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, (self.folder / "server.txt").read_text(encoding="utf-8")[-3000:]
        said = report.with_suffix(".txt").read_text(encoding="utf-8")
        return Noted.of(" ".join(map(str, words)), json.loads(answer)["code"], said, report)


def run_alone(folder: Path, *words: object, processes: int = 1) -> list[Noted]:
    """``python WORDS`` by itself, in as many ``processes`` with a GPU each; what was noted in each of them."""
    report = folder / "alone.json"
    starter = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(starter if processes > 1 else []), str(TOOL), str(RUNS), *map(str, words)]
    done = subprocess.run(
        command,
        cwd=folder,
        env=pretending(report),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    reports = [report.with_suffix(f".{rank}.json") for rank in range(processes)] if processes > 1 else [report]
    return [Noted.of(" ".join(map(str, words)), done.returncode, done.stdout, one) for one in reports]

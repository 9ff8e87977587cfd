"""Things measured in turn, the medians of what each takes, and tables of them.

Machines are noisy and shared. What is compared always runs in turn within one run, so that a slow minute hits both.
Where other programs take most of a machine the wall clock says little even so; processor time leaves them out, and with
one thread (``OMP_NUM_THREADS=1``) it is what the wall clock would show on an idle machine. Both are printed.

    python -m benchmarks.measuring MODULE FUNCTION ARGUMENTS    call a function here and print its result as JSON
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

REPOSITORY = Path(__file__).parents[1]
Item = TypeVar("Item")
Result = TypeVar("Result")
COST_HEAD = ("what", "side", "ms", "ratio", "CPU ms", "ratio", "peak MiB", "ratio")


class Cost(NamedTuple):
    """What something takes once."""

    wall: float  # seconds
    cpu: float  # seconds of the processor, its workers' too
    mib: float  # largest resident memory of the process, or of a worker that it waited for


class Side(Protocol):
    """One of the things that are compared."""

    def run(self) -> dict[str, Cost]:
        """What each of its parts takes; a side that has no parts names it ``""``."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, the folder it runs in and what is added to its environment; as a side, the whole process."""

    words: tuple[str, ...]
    folder: Path = REPOSITORY
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = threading.TIMEOUT_MAX  # that it may take

    def finished(self) -> tuple[str, Cost]:
        """What it prints, and what it takes from its start to its end.

        Raises:
            RuntimeError: it failed or took too long; the message ends with its last lines.
        """
        start = time.perf_counter()
        process = subprocess.Popen(
            self.words,
            cwd=self.folder,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        alarm = threading.Timer(self.seconds, process.terminate)
        alarm.start()
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        late = alarm.finished.is_set()
        alarm.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            tail = "\n".join([*output.splitlines()[-15:], *([f"ended after {self.seconds:g} s"] if late else [])])
            raise RuntimeError(f"{' '.join(self.words)} (in {self.folder}) failed:\n{tail}")
        return output, Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)

    def run(self) -> dict[str, Cost]:
        return {"": self.finished()[1]}

    def result(self) -> Any:
        """The JSON that it prints."""
        return _json_in(self.finished()[0])


@dataclass(frozen=True, slots=True)
class Timed:
    """A command that takes the time itself: it prints {part: [[wall, cpu], ...]}, seconds."""

    command: Command

    def run(self) -> dict[str, Cost]:
        output, whole = self.command.finished()
        parts: dict[str, list[list[float]]] = _json_in(output)
        return {
            part: whole._replace(wall=median(w for w, _ in own), cpu=median(c for _, c in own))
            for part, own in parts.items()
        }


@dataclass(frozen=True, slots=True)
class Further:
    """What each of ``count`` further rounds takes that ``long`` has and ``short`` has not; the memory is ``long``'s."""

    short: Command
    long: Command
    count: int

    def run(self) -> dict[str, Cost]:
        few, many = self.short.finished()[1], self.long.finished()[1]
        return {"": Cost((many.wall - few.wall) / self.count, (many.cpu - few.cpu) / self.count, many.mib)}


def _json_in(output: str) -> Any:
    """The last line that is JSON; warnings may follow it."""
    return json.loads(next(line for line in reversed(output.splitlines()) if line[:1] in ("{", "[")))


@dataclass(frozen=True, slots=True)
class AtOnce:
    """So many processes of one command, started together: the time of all, the processor's sum, the largest memory."""

    command: Command
    count: int

    def run(self) -> dict[str, Cost]:
        start = time.perf_counter()
        costs = [cost for _, cost in each_of(Command.finished, [self.command] * self.count, at_once=True)]
        together = time.perf_counter() - start
        return {"": Cost(together, sum(cost.cpu for cost in costs), max(cost.mib for cost in costs))}


def python(*words: object, folder: Path = REPOSITORY) -> Command:
    """A command of this interpreter."""
    return Command((sys.executable, *map(str, words)), folder)


def in_child(function: Callable[..., object], **arguments: object) -> Command:
    """A call of one of our functions in a process of its own; its result is the command's."""
    words = (function.__module__, function.__name__, json.dumps(arguments, default=str))
    return python("-m", "benchmarks.measuring", *words)


def each_of(call: Callable[[Item], Result], items: Sequence[Item], *, at_once: bool) -> Iterator[Result]:
    """The call's results for all items, one after another or side by side."""
    if not at_once:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(len(items)) as pool:
        yield from pool.map(call, items)


def measured(sides: Mapping[str, Side], rounds: int, *, at_once: bool = False) -> dict[str, dict[str, Cost]]:
    """Medians by part and side; the sides run in turn.

    ``at_once``: all sides of a round run side by side. Their wall time then means nothing, their processor time as
    much as before; on a machine that others fill anyway it is the way to an end.
    """
    costs: dict[str, dict[str, list[Cost]]] = {}
    for _ in range(rounds):
        done = each_of(lambda side: side.run(), list(sides.values()), at_once=at_once)
        for name, parts in zip(sides, done, strict=True):
            for part, cost in parts.items():
                costs.setdefault(part, {}).setdefault(name, []).append(cost)
    return {
        part: {name: Cost(*map(median, zip(*own, strict=True))) for name, own in of_part.items()}
        for part, of_part in costs.items()
    }


def alternate_calls(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call; they run in turn, ``rounds`` times after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(own) for name, own in seconds.items()}


def machine() -> str:
    """One line that names the machine: processor, threads, versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} processors, {torch.get_num_threads()} threads, torch {torch.__version__}"


def cost_rows(what: str, costs: Mapping[str, Cost]) -> list[tuple[str, ...]]:
    """A row of COST_HEAD per side; ratios are to the last side's figures."""
    rows, (*_, reference) = [], costs.values()
    for side, cost in costs.items():
        cells = [
            f"{cost.wall / reference.wall:.3f}",
            f"{cost.cpu / reference.cpu:.3f}",
            f"{cost.mib / reference.mib:.2f}",
        ]
        figures = (_milliseconds(cost.wall), _milliseconds(cost.cpu), f"{cost.mib:.0f}")
        rows.append((what, side, *(cell for pair in zip(figures, cells, strict=True) for cell in pair)))
    return rows


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f}" if seconds >= 1 else f"{1000 * seconds:.4g}"


@dataclass(frozen=True, slots=True)
class Table:
    """A Markdown table. ``rows`` may be found one after another while they are printed."""

    head: Sequence[str]
    rows: Iterable[Sequence[object]]
    title: str = ""

    def print(self, *, continued: bool = False) -> None:
        """``continued``: the rows go on in the table before, whose head is the same."""
        if not continued:
            print(*([f"\n{self.title}"] if self.title else []), f"\n{table_line(self.head)}", sep="\n")
            print(table_line(["---"] + ["---:"] * (len(self.head) - 1)), flush=True)
        for row in self.rows:
            print(table_line(row), flush=True)


def table_line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main(words: Sequence[str]) -> None:
    module, function, arguments = words
    print(json.dumps(getattr(importlib.import_module(module), function)(**json.loads(arguments))))


if __name__ == "__main__":
    main(sys.argv[1:])

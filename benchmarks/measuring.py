"""Two things timed in turn: alternating processes or alternating calls, medians and their ratio.

Machines are noisy and shared. What is compared always runs in turn within one run, so that a slow minute hits both.
Where other programs take most of a machine the wall clock says little even so; processor time leaves them out, and with
one thread (``OMP_NUM_THREADS=1``) it is what the wall clock would show on an idle machine. Both are printed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

REPOSITORY = Path(__file__).parents[1]
FIGURES_OF_A_RUN = ("seconds", "peak_mib", "cpu_seconds")


@dataclass(frozen=True, slots=True)
class ProcessRun:
    """One process, from its start to its end."""

    seconds: float  # of the wall clock
    peak_mib: float  # largest resident memory of one process: itself or a worker that it waited for
    cpu_seconds: float  # user and system time, of its workers too


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


def alternate_processes(
    commands: Mapping[str, Command], rounds: int, *, at_once: bool = False
) -> dict[str, ProcessRun]:
    """Median time and memory of each command; they run in turn.

    ``at_once``: all commands of a round run side by side. Their wall time then means nothing, their processor time as
    much as before; on a machine that others fill anyway it is the way to an end.

    Raises:
        RuntimeError: a command failed; the message ends with its last lines.
    """
    runs: dict[str, list[ProcessRun]] = {name: [] for name in commands}
    for _ in range(rounds):
        with ThreadPoolExecutor(len(commands) if at_once else 1) as pool:
            for name, run in zip(commands, pool.map(Command.run, commands.values()), strict=True):
                runs[name].append(run)
    return {
        name: ProcessRun(*(median(getattr(run, name) for run in own) for name in FIGURES_OF_A_RUN))
        for name, own in runs.items()
    }


@dataclass(frozen=True, slots=True)
class Command:
    """A command line and the folder it runs in."""

    words: tuple[str, ...]
    folder: Path = REPOSITORY

    def run(self) -> ProcessRun:
        start = time.perf_counter()
        process = subprocess.Popen(self.words, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            tail = "\n".join(output.decode(errors="replace").splitlines()[-15:])
            raise RuntimeError(f"{' '.join(self.words)} (in {self.folder}) failed:\n{tail}")
        return ProcessRun(seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime)

    def json_line(self) -> list[float]:
        """The numbers that the command prints as its last line."""
        done = subprocess.run(self.words, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(self.words)} (in {self.folder}) failed:\n{done.stderr[-2000:]}")
        numbers: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
        return numbers


def alternate_children(commands: Mapping[str, Command], rounds: int) -> dict[str, float]:
    """Median of the seconds that each command prints as a JSON list; they run in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            seconds[name] += command.json_line()
    return {name: median(own) for name, own in seconds.items()}


def python(*words: str | Path, folder: Path = REPOSITORY) -> Command:
    """A command of this interpreter."""
    return Command((sys.executable, *map(str, words)), folder)


def machine() -> str:
    """One line that names the machine: processor, threads, versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} processors, {torch.get_num_threads()} threads, torch {torch.__version__}"


def print_ratios(title: str, seconds: Mapping[str, float], reference: str, unit: str = "s") -> None:
    """A small Markdown table: each row's figure and its ratio to ``reference``'s."""
    print(f"\n{title} ({machine()})\n\n| | {unit} | ratio |\n|---|---:|---:|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.4g} | {value / seconds[reference]:.3f} |")


def print_process_ratios(title: str, runs: Mapping[str, ProcessRun], reference: str) -> None:
    """A Markdown table of wall time and processor time of whole processes, each with its ratio to ``reference``'s."""
    base = runs[reference]
    print(f"\n{title} ({machine()})\n\n| | wall s | ratio | CPU s | ratio |\n|---|---:|---:|---:|---:|")
    for name, run in runs.items():
        wall, cpu = run.seconds, run.cpu_seconds
        print(f"| {name} | {wall:.4g} | {wall / base.seconds:.3f} | {cpu:.4g} | {cpu / base.cpu_seconds:.3f} |")


def numbers_of(line: Sequence[float]) -> str:
    """A JSON list for :func:`alternate_children`."""
    return json.dumps(list(line))

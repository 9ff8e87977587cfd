"""Top-1 of an SPD ResNet beside the ResNet that it comes from, trained from scratch with the same recipe and seeds.

Runs that are finished in ``--project`` are not run again, and one that was killed goes on, so the command can be
repeated.
"""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

from benchmarks.measuring import Table, python


def epochs_of(run: Path) -> list[float]:
    """Top-1 of the finished epochs of a run."""
    table = run / "results.csv"
    if not table.is_file():
        return []
    with table.open(encoding="utf-8") as file:
        rows = [{key.strip(): cell for key, cell in row.items()} for row in csv.DictReader(file)]
    return [float(row["metrics/accuracy_top1"]) for row in rows]


def finish(run: Path, model: str, seed: int, flags: Namespace) -> None:
    """Train to the end, from wherever the run stands."""
    if len(epochs_of(run)) >= flags.epochs:
        return
    words: list[object] = ["--resume", run]
    if not (run / "weights" / "last.pt").is_file():
        words = ["--model", model, "--seed", seed, "--data", Path(flags.data).resolve(), "--img", flags.img]
        words += ["--hyp", flags.hyp, "--epochs", flags.epochs, "--precision", flags.precision]
        words += ["--project", run.parent, "--name", run.name, "--exist-ok", "--noplots"]
    python("classify/train.py", *words, "--workers", flags.workers).finished()


def tables(flags: Namespace) -> Iterator[Table]:
    """After each seed a row per network: best top-1 of each seed so far, mean and spread, and the last epoch's mean."""
    head = ("network", "best top-1, by seed", "mean", "standard deviation", "mean of the last epoch")
    project = Path(flags.project).resolve()
    for count, seed in enumerate(flags.seeds, start=1):
        for model in flags.models:
            finish(project / f"{model}-{seed}", model, seed, flags)
        rows = []
        for model in flags.models:
            done = [epochs_of(project / f"{model}-{one}") for one in flags.seeds[:count]]
            best = [max(epochs) for epochs in done]
            spread = f"{stdev(best):.3f}" if count > 1 else ""
            cells = ", ".join(f"{value:.3f}" for value in best)
            rows.append((model, cells, f"{mean(best):.3f}", spread, f"{mean(own[-1] for own in done):.3f}"))
        title = f"{Path(flags.data).name}, {flags.img} px, {flags.epochs} epochs, {flags.precision}"
        yield Table(head, rows, f"{title}, {count} of {len(flags.seeds)} seeds")

"""Top-1 of an SPD ResNet beside the ResNet that it comes from, trained from scratch with the same recipe and seeds.

python -m benchmarks.classification_study --data FOLDER --img 32 --epochs 15 --seeds 0 1 2 --precision bf16

Runs that are finished in --project are not run again, and one that was killed goes on, so the command can be repeated.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from benchmarks.measuring import machine, python


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One network with one seed."""

    model: str
    seed: int
    folder: Path

    @property
    def rows(self) -> list[dict[str, float]]:
        """Its finished epochs."""
        table = self.folder / "results.csv"
        if not table.is_file():
            return []
        with table.open(encoding="utf-8") as file:
            return [{key.strip(): float(cell) for key, cell in row.items()} for row in csv.DictReader(file)]

    def finish(self, flags: argparse.Namespace) -> None:
        """Train it to its end, from wherever it stands."""
        if len(self.rows) >= flags.epochs:
            return
        if (self.folder / "weights" / "last.pt").is_file():
            words = ["--resume", str(self.folder)]
        else:
            words = ["--model", self.model, "--seed", str(self.seed), "--data", str(flags.data), "--img", flags.img]
            words += ["--hyp", flags.hyp, "--epochs", str(flags.epochs), "--precision", flags.precision]
            words += ["--project", str(self.folder.parent), "--name", self.folder.name, "--exist-ok", "--noplots"]
        print(f"{self.model}, seed {self.seed}", flush=True)
        python("classify/train.py", *words, "--workers", flags.workers).run()


def main() -> None:
    """Train what is not trained yet, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/ or test/")
    parser.add_argument("--models", nargs="+", default=["resnet18-spd", "resnet18"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--img", default="32")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--hyp", default="hyp.classify-small-set.yaml")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--workers", default="0")
    parser.add_argument("--project", type=Path, default=Path("runs/classification-study"))
    flags = parser.parse_args()
    flags.data, flags.project = flags.data.resolve(), flags.project.resolve()
    runs = [StudyRun(model, seed, flags.project / f"{model}-{seed}") for seed in flags.seeds for model in flags.models]
    for run in runs:
        run.finish(flags)
        print_table(runs, flags)


def print_table(runs: Sequence[StudyRun], flags: argparse.Namespace) -> None:
    """A row per network: best top-1 of each seed that is done, mean and spread, and the last epoch's mean."""
    print(f"\n{flags.data.name}, {flags.img} px, {flags.epochs} epochs, {flags.precision} ({machine()})\n")
    print("| network | best top-1, by seed | mean | standard deviation | mean of the last epoch |")
    print("|---|---|---:|---:|---:|")
    for model in flags.models:
        done = [rows for run in runs if run.model == model and len(rows := run.rows) >= flags.epochs]
        if not done:
            continue
        best = [max(row["metrics/accuracy_top1"] for row in rows) for rows in done]
        last = mean(rows[-1]["metrics/accuracy_top1"] for rows in done)
        spread = f"{stdev(best):.3f}" if len(best) > 1 else ""
        cells = ", ".join(f"{value:.3f}" for value in best)
        print(f"| {model} | {cells} | {mean(best):.3f} | {spread} | {last:.3f} |", flush=True)


if __name__ == "__main__":
    main()

"""Images of a hyperparameter search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from matplotlib.figure import Figure

from utils.runtime.atomic_files import atomic_file


def plot_search(path: Path, fitness: Sequence[tuple[int, float]], importance: Mapping[str, float]) -> None:
    """Fitness of each complete trial and the best so far; the share of its spread that each hyperparameter explains."""
    figure = Figure(figsize=(12 if importance else 7, 5), layout="constrained")
    axes = figure.subplots(1, 2 if importance else 1, squeeze=False)[0]
    numbers, values = zip(*fitness, strict=True)
    axes[0].plot(numbers, values, "o", color="#0072b2", label="trial")
    axes[0].step(numbers, list(accumulate(values, max)), where="post", color="#d55e00", label="best so far")
    axes[0].set(xlabel="trial", ylabel="fitness: 0.1 mAP50 + 0.9 mAP50-95", title="History")
    axes[0].legend()
    if importance:
        shown = list(importance.items())[:15][::-1]
        axes[1].barh([name for name, _ in shown], [share for _, share in shown], color="#009e73")
        axes[1].set(xlabel="share of the spread", title="Importance")
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)

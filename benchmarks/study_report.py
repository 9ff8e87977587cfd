"""The table and the image of a study over seeds: mean and spread, and differences of pairs that share a seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student_t

from benchmarks.study_models import LARGE, WIDE_AS, ModelCost, baseline_of
from benchmarks.study_runs import RANDOM, RunResult
from utils.runtime.atomic_files import write_text
from utils.user_error import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEGIN, END = "<!-- study: begin -->", "<!-- study: end -->"
SHOWN = ("AP", "AP50", "AP_S", "AP_M")
COMPARED = ("AP", "AP_S")
COLOURS = ("#777777", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#D55E00", "#B8A000", "#000000")


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation (of a sample; 0 for a single value) of ``count`` values."""

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(fmean(values), stdev(values) if len(values) > 1 else 0.0, len(values))


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean of the differences of ``count`` pairs, and its confidence interval.

    The interval is Student's, mean -/+ t s / sqrt(count): it assumes that the differences scatter like a normal
    distribution, and is wide for few pairs. A single pair has none (infinite).
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float], confidence: float = 0.95
) -> PairedDifference | None:
    """``values`` minus ``reference``, over the seeds that both have; None without such a seed.

    Args:
        values, reference: figure by seed.
    """
    seeds = sorted(values.keys() & reference.keys())
    if not seeds:
        return None
    spread = Spread.of([values[seed] - reference[seed] for seed in seeds])
    if spread.count == 1:
        return PairedDifference(spread.mean, -math.inf, math.inf, 1)
    quantile = float(student_t.ppf(0.5 + confidence / 2, spread.count - 1))
    half = quantile * spread.deviation / math.sqrt(spread.count)
    return PairedDifference(spread.mean, spread.mean - half, spread.mean + half, spread.count)


@dataclass(frozen=True, slots=True)
class ArenaSummary:
    """All finished runs on one data set from one start. ``figures[model][figure][seed]``: 0-1."""

    title: str
    figures: Mapping[str, Mapping[str, Mapping[int, float]]]
    minutes: Mapping[str, float]  # CPU time of a run, by model: the mean
    costs: Mapping[str, ModelCost]  # by model

    @classmethod
    def of(
        cls, arena: tuple[str, str], part: str, finished: Sequence[RunResult], costs: Mapping[str, ModelCost]
    ) -> ArenaSummary:
        """``part``: the one whose figures are shown, val or test."""
        figures: dict[str, dict[str, dict[int, float]]] = {}
        seconds: dict[str, list[float]] = {}
        for one in (one for one in finished if one.run.arena == arena and one.run.model in costs):
            seconds.setdefault(one.run.model, []).append(one.cpu_seconds)
            for key in SHOWN:
                if one.figures[part][key] >= 0:
                    figures.setdefault(one.run.model, {}).setdefault(key, {})[one.run.seed] = one.figures[part][key]
        # In the order in which the models were named, which is that of `costs`.
        return cls(
            title=f"{arena[0]}, {part}, from {'random weights' if arena[1] == RANDOM else Path(arena[1]).name}",
            figures={model: figures[model] for model in costs if model in figures},
            minutes={model: fmean(each) / 60 for model, each in seconds.items()},
            costs=costs,
        )

    def pairs(self) -> list[tuple[str, str]]:
        """What is compared: each model with the YOLOv5 of its size, with the wide one of its own cost, and a changed
        recipe with the unchanged one."""
        models = list(self.figures)
        pairs = [(model, baseline_of(model) if "+" not in model else model.partition("+")[0]) for model in models]
        pairs += [(wide.removeprefix(WIDE_AS), wide) for wide in models if wide.startswith(WIDE_AS)]
        return [(model, other) for model, other in pairs if model != other and {model, other} <= self.figures.keys()]

    def difference(self, model: str, reference: str, figure: str) -> PairedDifference | None:
        """Of the same seeds."""
        return paired_difference(self.figures[model].get(figure, {}), self.figures[reference].get(figure, {}))

    def front(self, figure: str) -> list[str]:
        """The models that no other beats at their latency or less, the quickest first."""
        best: list[str] = []
        with_figure = [model for model in self.figures if self.figures[model].get(figure)]
        for model in sorted(with_figure, key=lambda one: self.costs[one].milliseconds):
            if not best or self.mean(model, figure) > self.mean(best[-1], figure):
                best.append(model)
        return best

    def mean(self, model: str, figure: str) -> float:
        return fmean(self.figures[model][figure].values())


def markdown(summaries: Sequence[ArenaSummary], note: str) -> str:
    """Per data set and start a table of figures and costs, and one of differences."""
    blocks = [note]
    for summary in (one for one in summaries if one.figures):
        blocks.append(f"### {summary.title}\n\n{_figures_table(summary)}")
        if differences := _differences_table(summary):
            blocks.append(differences)
    return "\n\n".join(blocks) + "\n"


def put_into_page(page: Path, text: str) -> None:
    """Replace what stands between the marks in a page of the documentation.

    Raises:
        UserError: the page has no such place.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{page}: has no lines {BEGIN} and {END} to write between")
    write_text(page, f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}")


def _figures_table(summary: ArenaSummary) -> str:
    head = ["model", "parameters", "GFLOPs", "ms", f"ms at {LARGE}", "training", *SHOWN, "seeds"]
    rows = []
    for model, figures in summary.figures.items():
        cost = summary.costs[model]
        cells = [f"{cost.parameters / 1e6:.2f} M", f"{cost.gflops:.2f}"]
        cells += [f"{cost.milliseconds:.1f}", f"{cost.large_milliseconds:.1f}"]
        cells.append(f"{summary.minutes[model]:.1f} min")
        rows.append([f"`{model}`", *cells, *(_percent(figures.get(key)) for key in SHOWN), str(len(figures["AP"]))])
    return _table(head, rows)


def _differences_table(summary: ArenaSummary) -> str:
    rows = [
        [f"`{model}` minus `{other}`", *(_difference_text(summary.difference(model, other, key)) for key in COMPARED)]
        for model, other in summary.pairs()
    ]
    return _table(["points", *COMPARED], rows) if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _percent(by_seed: Mapping[int, float] | None) -> str:
    if not by_seed:
        return "-"
    spread = Spread.of(list(by_seed.values()))
    return f"{100 * spread.mean:.1f}" + (f" ± {100 * spread.deviation:.1f}" if spread.count > 1 else "")


def _difference_text(difference: PairedDifference | None) -> str:
    if difference is None:
        return "-"
    text = f"{100 * difference.mean:+.1f}"
    if difference.count == 1:
        return text
    text += f" ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    return f"**{text}**" if difference.is_clear else text


def plot(path: Path, summaries: Sequence[ArenaSummary]) -> None:
    """A row per data set and start: AP and AP_S over latency with the front, and the differences."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [one for one in summaries if one.figures]
    if not shown:
        return
    figure = Figure(figsize=(17, 4.5 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(shown), 3, squeeze=False)
    for panels, summary in zip(rows, shown, strict=True):
        for panel, key in zip(panels, COMPARED, strict=False):
            _scatter(panel, summary, key)
        _intervals(panels[2], summary)
    figure.savefig(path, dpi=100)


def _scatter(panel: Axes, summary: ArenaSummary, figure: str) -> None:
    """Every seed as a dot, their mean as a disc, and a line through the models that no quicker one beats."""
    for model, figures in summary.figures.items():
        values = 100 * np.array(list(figures.get(figure, {}).values()))
        if not len(values):
            continue
        colour, at = _colour(summary, model), summary.costs[model].milliseconds
        panel.plot([at] * len(values), values, ".", color=colour, alpha=0.6, markersize=5)
        panel.plot(at, values.mean(), "o", color=colour, markersize=9, label=model)
    front = summary.front(figure)
    across = [summary.costs[model].milliseconds for model in front]
    panel.step(across, [100 * summary.mean(model, figure) for model in front], "k--", where="post", linewidth=1)
    panel.set(xlabel="ms per image", ylabel=f"{figure}, %", title=f"{summary.title}: {figure}")
    panel.margins(x=0.15)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7)


def _intervals(panel: Axes, summary: ArenaSummary) -> None:
    pairs = summary.pairs()
    for place, (model, other) in enumerate(pairs):
        for shift, key in zip((-0.15, 0.15), COMPARED, strict=True):
            difference = summary.difference(model, other, key)
            if difference is None:
                continue
            colour, filled = _colour(summary, model), key == "AP_S"
            if difference.count > 1:
                ends = (100 * difference.low, 100 * difference.high)
                panel.plot(ends, (place + shift,) * 2, color=colour, linewidth=3 if filled else 1.5)
            face = colour if filled else "white"
            panel.plot(100 * difference.mean, place + shift, "o", color=colour, markerfacecolor=face, markersize=8)
    panel.axvline(0, color="black", linewidth=1)
    panel.set_yticks(range(len(pairs)), [f"{model}\n- {other}" for model, other in pairs], fontsize=7)
    panel.set_ylim(len(pairs) - 0.5, -0.5)
    panel.set(title="differences", xlabel="points: AP hollow, AP_S filled; 95 % interval")
    panel.grid(axis="x", alpha=0.3)


def _colour(summary: ArenaSummary, model: str) -> str:
    return COLOURS[list(summary.costs).index(model) % len(COLOURS)]

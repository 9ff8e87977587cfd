"""The images of a hyperparameter search, read from matplotlib's objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from utils.reporting.search_plots import plot_search


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *rest, **settings: kept.append(figure))
    return kept


def test_trials_and_the_best_so_far(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_search(tmp_path / "s.png", [(0, 0.25), (2, 0.5), (3, 0.375), (7, 0.75)], {})
    (panel,) = drawn[0].axes
    trials, best = panel.lines
    assert np.asarray(trials.get_xdata()).tolist() == np.asarray(best.get_xdata()).tolist() == [0, 2, 3, 7]
    assert np.asarray(trials.get_ydata()).tolist() == [0.25, 0.5, 0.375, 0.75]
    assert np.asarray(best.get_ydata()).tolist() == [0.25, 0.5, 0.5, 0.75]
    assert best.get_drawstyle() == "steps-post"  # a trial counts from when it is there


def test_the_most_important_are_on_top_and_fifteen_at_most(tmp_path: Path, drawn: list[Figure]) -> None:
    importance = {f"h{k}": 1 / (k + 2) for k in range(17)}
    plot_search(tmp_path / "s.png", [(0, 0.25)], importance)
    bars = drawn[0].axes[1]
    shown: list[Any] = list(bars.patches)
    assert len(shown) == 15
    assert shown[-1].get_width() == 0.5  # the highest bar is the first name
    assert [label.get_text() for label in bars.get_yticklabels()][::14] == ["h14", "h0"]


def test_the_old_image_stays_if_the_new_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(figure: Figure, file: Any, **settings: Any) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    (tmp_path / "s.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="No space left"):
        plot_search(tmp_path / "s.png", [(0, 0.25)], {"lr0": 1.0})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"s.png": b"old"}

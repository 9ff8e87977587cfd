"""The table of a comparison and the names of its models."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.evaluation.model_comparison import ComparedModel, Difference, PairedDifferences
from utils.verbs.compare import comparison_table, short_names

FIRST = ComparedModel("old.pt", 7_235_389, 16.54, 0.5, 0.75, 0.125, 0.6, -1.0, 12.34, None)


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        (["runs/a/best.pt"], ["best.pt"]),
        (["runs/a/old.pt", "runs/a/new.pt"], ["old.pt", "new.pt"]),
        (["runs/a/weights/best.pt", "runs/b/weights/best.pt"], ["a/weights/best.pt", "b/weights/best.pt"]),
        (["best.pt", "runs/best.pt"], ["best.pt", "runs/best.pt"]),
        (["runs/best.pt", "runs/best.pt"], ["best.pt", "best.pt"]),  # the same file twice
        (["a/x.pt", "a/x.pt", "b/x.pt"], ["a/x.pt", "a/x.pt", "b/x.pt"]),
    ],
)
def test_short_names(weights: list[str], names: list[str]) -> None:
    assert short_names(weights) == names


part = st.sampled_from("abc")


@given(st.lists(st.lists(part, min_size=1, max_size=4).map("/".join), min_size=1, max_size=5))
def test_short_names_tell_files_apart_and_end_as_they_do(weights: list[str]) -> None:
    names = short_names(weights)
    assert len(set(names)) == len(set(weights))
    for name, path in zip(names, weights, strict=True):
        assert path == name or path.endswith(f"/{name}")


def test_a_row_per_model_then_the_differences() -> None:
    sure, chance = Difference(0.1, 0.05, 0.15), Difference(-0.02, -0.05, 0.01)
    rows = [
        FIRST,
        replace(FIRST, name="new.onnx", parameters=None, gflops=None, differences=PairedDifferences(sure, chance)),
        replace(FIRST, name="third.pt", AP=0.0, differences=PairedDifferences(Difference(-0.5, -0.6, -0.4), None)),
    ]
    lines = comparison_table(rows).splitlines()
    assert lines[0].split() == ["model", "parameters", "GFLOPs", "AP", "AP50", "AP_S", "AP_M", "AP_L", "ms"]
    assert lines[1].split() == ["old.pt", "7", "235", "389", "16.5", "0.5", "0.75", "0.125", "0.6", "-", "12.3"]
    assert lines[2].split() == ["new.onnx", "-", "-", "0.5", "0.75", "0.125", "0.6", "-", "12.3"]
    assert lines[3].split()[4:6] == ["16.5", "0"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[4:6] == ["", "differences to old.pt, 95% intervals from 1000 resamples of the images"]
    assert [" ".join(line.split()) for line in lines[6:]] == [
        "new.onnx AP +0.1000 [+0.0500, +0.1500]; AP_S -0.0200 [-0.0500, +0.0100] (could be chance)",
        "third.pt AP -0.5000 [-0.6000, -0.4000]; AP_S -",
    ]

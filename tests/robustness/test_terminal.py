"""What the scripts say where standard output is a file: figures, progress and warnings as a user reads them."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from tests.robustness.running import Outcome, succeeds

pytestmark = pytest.mark.slow
AREA = "Words on the terminal"


@pytest.fixture(scope="module")
def trained(data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run of two epochs on images whose objects are all under 96 pixels, and what it said."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["--data", data, "--weights", weights, "--img", 64, "--epochs", 2, "--batch-size", 1]
    words += ["--workers", 0, "--loggers", "none", "--noautoanchor"]
    return folder / "runs" / "train" / "exp", succeeds("train", *words, folder=folder)


@pytest.mark.case(AREA, "training on a data set without large objects", "`-` in the epoch line, null in metrics.json")
def test_figures_of_objects_that_do_not_exist(trained: tuple[Path, Outcome]) -> None:
    run, outcome = trained
    sizes = [line for line in outcome.output.splitlines() if line.strip().startswith("AP_S")]
    assert len(sizes) == 2 and all(line.endswith("AP_L -") for line in sizes), outcome.output
    assert " -1" not in outcome.output
    assert max(map(len, (line for line in outcome.output.splitlines() if "/" not in line))) <= 100, outcome.output
    with (run / "results.csv").open() as file:
        cells = [row["metrics/AP_L"] for row in csv.DictReader(file, skipinitialspace=True)]
    assert cells == ["", ""]
    text = (run / "metrics.json").read_text()
    metrics = json.loads(text)
    assert metrics["AP_L"] is None and metrics["AR_L"] is None and metrics["per_class"][0]["AP_L"] is None
    assert "-1.0" not in text
    assert math.isfinite(metrics["AP"])
    assert (run / "results.png").is_file()


@pytest.mark.case(AREA, "training without a terminal", "no carriage return, nothing on standard error")
def test_no_bars_in_the_log_of_a_training(trained: tuple[Path, Outcome]) -> None:
    _, outcome = trained
    assert "\r" not in outcome.output and outcome.errors == ""


COMMANDS = {
    "val": "val --weights {weights} --data {data} --img 64 --workers 0",
    "detect": "detect --weights {weights} --source {images} --img 64",
    "export": "export --weights {weights} --include onnx --img 64",
}


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.case(AREA, f"{one} without a terminal", "no bar")) for one in COMMANDS]
)
def test_no_bars_in_a_log(name: str, data: Path, weights: Path, tmp_path: Path) -> None:
    images = data.parent / "images" / "val"
    script, *words = COMMANDS[name].format(weights=weights, data=data, images=images).split()
    outcome = succeeds(script, *words, folder=tmp_path)
    assert "\r" not in outcome.output + outcome.errors, outcome

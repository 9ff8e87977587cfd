"""What ``val.py`` writes about images whose file names repeat."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.exporting.small_model import write_small_checkpoint
from tests.small_dataset import write_small_dataset
from utils.config.command_line import parse_command_line
from utils.config.val_flags import ValConfig
from utils.verbs.evaluate import run_evaluation

PLACES = ("east/frame", "west/frame", "east/1", "east/001")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four images, two of one name and two of one number."""
    folder = tmp_path_factory.mktemp("data")
    yaml = write_small_dataset(folder, train=1, val=4)
    for kind, ending in (("images", "png"), ("labels", "txt")):
        for number, place in enumerate(PLACES):
            target = folder / kind / "val" / f"{place}.{ending}"
            target.parent.mkdir(exist_ok=True)
            (folder / kind / "val" / f"{number:03d}.{ending}").rename(target)
    return yaml


def evaluate(data: Path, runs: Path, *flags: object) -> Path:
    """The folder of a run."""
    weights = write_small_checkpoint(data.with_name("small.pt"))
    common = ("--weights", weights, "--data", data, "--img", 96, "--workers", 0, "--project", runs)
    words = map(str, (*common, "--single-cls", *flags))
    run_evaluation(parse_command_line(ValConfig, list(words), prog="val.py", description=""))
    return runs / "exp"


@pytest.mark.parametrize("flag", ["--save-txt", "--save-hybrid"])
def test_each_image_has_its_label_file(data: Path, tmp_path: Path, flag: str, caplog: pytest.LogCaptureFixture) -> None:
    labels = evaluate(data, tmp_path, flag) / "labels"
    assert sorted(path.name for path in labels.iterdir()) == ["001.txt", "1.txt", "frame.txt", "frame2.txt"]
    first, second = (np.loadtxt(labels / name, ndmin=2) for name in ("frame.txt", "frame2.txt"))
    assert first.shape != second.shape or (first != second).any()
    (line,) = [line for line in caplog.messages if "have one name" in line]
    assert "east/frame.png and " in line and "west/frame.png have one name" in line and "frame2" in line


def test_each_image_has_its_id(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = json.loads((evaluate(data, tmp_path, "--save-json") / "small_predictions.json").read_text())
    assert {entry["image_id"] for entry in entries} == {f"{place}.png" for place in PLACES}
    assert len([line for line in caplog.messages if "image id" in line]) == 1


@pytest.mark.slow
@pytest.mark.case("Runs", "val.py --exist-ok onto an old run", "its label files and predictions are kept as *.older")
def test_exist_ok_leaves_nothing_of_an_earlier_run(data: Path, tmp_path: Path) -> None:
    evaluate(data, tmp_path, "--save-txt", "--save-json", "--exist-ok")
    folder = evaluate(data, tmp_path, "--exist-ok")
    assert not (folder / "labels").exists() and not list(folder.glob("*_predictions.json"))
    assert len(list((folder / "labels.older").glob("*.txt"))) == len(PLACES)

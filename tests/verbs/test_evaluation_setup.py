"""What every evaluation begins with: the part of a data set, the detector of its classes, whole images or tiles."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import val
from tests.exporting.small_model import write_small_checkpoint, write_small_torchscript
from tests.small_dataset import write_small_dataset
from utils.config.val_flags import ValConfig
from utils.inference.slicing import SliceSettings
from utils.user_error import UserError
from utils.verbs.evaluate import EvaluationSetup


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_small_dataset(tmp_path / "data", train=1, val=3)


def config(folder: Path, **settings: Any) -> ValConfig:
    common: dict[str, Any] = {
        "data": str(folder / "data" / "small.yaml"),
        "weights": (str(folder / "small.pt"),),
        "imgsz": 96,
    }
    common |= {"workers": 0, "device": "cpu", "project": str(folder / "runs"), "name": "v"}
    return ValConfig(**(common | settings))


def of_one_class(dataset: Path) -> None:
    """All objects of the data set become one class, the only one that it names."""
    for labels in (dataset.parent / "labels").glob("*/*.txt"):
        labels.write_text(re.sub(r"^\d+", "0", labels.read_text(), flags=re.MULTILINE))
    dataset.write_text(f"{dataset.read_text().partition('names:')[0]}names: [thing]\n")


def test_classes_as_one_need_not_be_as_many(tmp_path: Path, dataset: Path) -> None:
    of_one_class(dataset)
    write_small_checkpoint(tmp_path / "small.pt")
    with pytest.raises(UserError, match=r"small\.pt: has 3 classes, but .*small\.yaml names 1"):
        val.run(config(tmp_path))
    setup = EvaluationSetup.of(config(tmp_path, single_cls=True))
    assert setup.drawn_names(setup.detector(setup.config.weights)) == ("item", "item", "item")
    val.run(setup.config)
    figures = json.loads((tmp_path / "runs" / "v" / "metrics.json").read_text())
    assert [row["name"] for row in figures["per_class"]] == ["item"]
    assert (tmp_path / "runs" / "v" / "val_batch0_pred.jpg").is_file(), "boxes of the classes 1 and 2 have a name too"


def test_what_is_learned_in_tiles_is_evaluated_in_tiles(tmp_path: Path, dataset: Path) -> None:
    def tiles(**settings: Any) -> SliceSettings | None:
        return EvaluationSetup.of(config(tmp_path, **settings)).tiles

    assert tiles() is None
    assert tiles(slice=48, slice_overlap=0.1, slice_merge="greedy") == SliceSettings(48, 0.1, "greedy")
    dataset.write_text(f"{dataset.read_text()}tile: 64\n")
    assert tiles() == SliceSettings(64)
    assert tiles(slice=48) == SliceSettings(48)
    assert tiles(save_hybrid=True) is None and tiles(as_yolov5=True) is None


@pytest.mark.usefixtures("dataset")
def test_a_fixed_size_wins_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exported = write_small_torchscript(tmp_path / "small.torchscript", (64, 96))
    setup = EvaluationSetup.of(config(tmp_path, weights=(str(exported),)))
    detector = setup.detector(setup.config.weights)
    assert detector.names == ("red", "green", "blue"), "those of the data set, as the file has none"
    assert setup.evaluate(detector).images == 3
    assert "image size 96x96 (height x width): taking 64x96 px, the only size that the model file takes" in caplog.text

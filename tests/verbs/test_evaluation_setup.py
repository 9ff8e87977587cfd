"""What every evaluation begins with: the part of a data set, the detector of its classes, whole images or tiles."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import val
from models.yolo import DetectionModel
from tests.exporting.small_model import write_small_checkpoint, write_small_torchscript
from tests.small_dataset import write_small_dataset
from utils.config.val_flags import ValConfig
from utils.evaluation.yolov5_rounding import HalfPrecisionDetector
from utils.inference.slicing import SliceSettings
from utils.user_error import UsageError, UserError
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


@pytest.mark.usefixtures("dataset")
@pytest.mark.parametrize(
    ("settings", "halved"),
    [
        pytest.param({}, 0, marks=pytest.mark.case("Flags", "`val.py --as-yolov5`", "fp32, as `python val.py` there")),
        pytest.param(
            {"half": True},
            1,
            marks=pytest.mark.case("Flags", "`val.py --as-yolov5 --half` on a CPU", "every step rounded to fp16"),
        ),
        ({"precision": "fp16"}, 1),
    ],
)
def test_half_precision_as_yolov5_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], halved: int
) -> None:
    made: list[HalfPrecisionDetector] = []

    def halving(model: DetectionModel) -> HalfPrecisionDetector:
        made.append(HalfPrecisionDetector(model))
        return made[-1]

    monkeypatch.setattr("utils.verbs.evaluate.HalfPrecisionDetector", halving)
    write_small_checkpoint(tmp_path / "small.pt")
    setup = EvaluationSetup.of(config(tmp_path, as_yolov5=True, **settings))
    assert setup.settings.halved_padding
    setup.evaluate(setup.detector(setup.config.weights))
    assert len(made) == halved


@pytest.mark.usefixtures("dataset")
@pytest.mark.case(
    "Flags", "`val.py --as-yolov5 --precision bf16`", "exit 2: “--as-yolov5 --precision bf16: YOLOv5 validates in fp32”"
)
def test_what_yolov5_does_not_do_is_refused(tmp_path: Path) -> None:
    for name in ("bf16", "auto"):
        with pytest.raises(UsageError, match=f"--as-yolov5 --precision {name}: YOLOv5 validates in fp32, with --half"):
            config(tmp_path, as_yolov5=True, precision=name)
    write_small_checkpoint(tmp_path / "small.pt")
    setup = EvaluationSetup.of(config(tmp_path, as_yolov5=True, half=True, augment=True))
    with pytest.raises(UsageError, match=r"--as-yolov5 --half: rounds one \.pt file"):
        setup.detector(setup.config.weights)


@pytest.mark.usefixtures("dataset")
@pytest.mark.case("Flags", "`val.py --conf 0.25`", "evaluated, with one warning that mAP is lower so")
def test_a_higher_threshold_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    EvaluationSetup.of(config(tmp_path))
    EvaluationSetup.of(config(tmp_path, conf_thres=0.0))
    assert not caplog.messages
    EvaluationSetup.of(config(tmp_path, conf_thres=0.25))
    line = "--conf-thres 0.25: what scores less is not counted, so mAP is lower than at the default 0.001"
    assert caplog.messages == [line]

"""The files that ``classify/predict.py`` writes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.classifier import Classifier, ClassifierPlan, classifier_fields
from utils.config.classify_flags import ClassifyPredictConfig
from utils.config.command_line import parse_command_line
from utils.verbs.classify import PredictionSummary, run_prediction


def predict(folder: Path, *flags: object) -> PredictionSummary:
    torch.manual_seed(0)
    model = Classifier(ClassifierPlan(name="yolov5n-spd-cls", cutoff=4), ("blue", "red"), imgsz=32)
    torch.save({**classifier_fields(model), "model": model.state_dict(), "average": None}, folder / "best.pt")
    words = ("--weights", folder / "best.pt", "--project", folder / "runs", *flags)
    return run_prediction(parse_command_line(ClassifyPredictConfig, list(map(str, words)), prog="", description=""))


def test_images_of_one_name_and_frames_of_a_video_have_files_of_their_own(tmp_path: Path) -> None:
    source = tmp_path / "images"
    (source / "below").mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for name in ("a.jpg", "below/a.png", "a2.jpg", "v_0.jpg"):
        cv2.imwrite(str(source / name), image)
    writer = cv2.VideoWriter(str(source / "v.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, (40, 40))
    for _ in range(2):
        writer.write(image)
    writer.release()
    summary = predict(tmp_path, "--source", source, "--save-txt", "--recursive")
    assert len(summary.best) == 6
    names = ["a", "a2", "a3", "v_0", "v_0-2", "v_1"]
    assert sorted(path.stem for path in (summary.folder / "labels").iterdir()) == names
    assert sorted(path.name for path in summary.folder.glob("*.*")) == [
        "a.jpg", "a2.jpg", "a3.png", "v_0-2.jpg", "v_0.jpg", "v_1.jpg",
    ]  # fmt: skip
    assert [path.name for path, _, _ in summary.best] == ["a.jpg", "a2.jpg", "a.png", "v.avi", "v.avi", "v_0.jpg"]


@pytest.mark.case("Runs", "classify/predict.py --exist-ok onto an old run", "its label files are kept as *.older")
def test_exist_ok_leaves_nothing_of_an_earlier_run(tmp_path: Path) -> None:
    for name in ("first", "second"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((1, 1, 3), np.uint8))
        folder = predict(tmp_path, "--source", tmp_path / f"{name}.png", "--save-txt", "--nosave", "--exist-ok").folder
    assert [path.name for path in (folder / "labels").iterdir()] == ["second.txt"]
    assert [path.name for path in (folder / "labels.older").iterdir()] == ["first.txt"]

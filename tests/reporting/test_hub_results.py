"""Results of torch.hub's detector out of detections worked by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from tests.evaluation.small_cases import detections_of
from utils.geometry.letterbox import FrameSize
from utils.inference.image_inputs import NamedImage
from utils.reporting.hub_results import CallTimes, HubResults

SIZE = FrameSize(height=100, width=200)
FOUND = detections_of((1, 0.75, 20, 10, 60, 40), (1, 0.5, 0, 0, 200, 100), (0, 0.25, 10, 20, 20, 40), size=SIZE)
TIMES = CallTimes(1.25, 20.0, 3.0, (2, 3, 320, 640))


@pytest.fixture
def results() -> HubResults:
    image = np.full((*SIZE, 3), 100, np.uint8)
    small = FrameSize(height=10, width=20)
    images = [NamedImage(image, "a.jpg"), NamedImage(np.zeros((*small, 3), np.uint8), "a.jpg")]
    return HubResults(images, [FOUND, detections_of(size=small)], {0: "cat", 1: "dog"}, TIMES)


def test_the_four_forms(results: HubResults) -> None:
    # From (20, 10) to (60, 40) in 200 x 100: centre (40, 25), sides 40 x 30.
    first = {name: getattr(results, name)[0][0].tolist() for name in ("xyxy", "xywh", "xyxyn", "xywhn")}
    assert first == {
        "xyxy": [20, 10, 60, 40, 0.75, 1],
        "xywh": [40, 25, 40, 30, 0.75, 1],
        "xyxyn": pytest.approx([0.1, 0.1, 0.3, 0.4, 0.75, 1]),
        "xywhn": pytest.approx([0.2, 0.25, 0.2, 0.3, 0.75, 1]),
    }
    assert [tuple(rows.shape) for rows in results.xywhn] == [(3, 6), (0, 6)]


def test_data_frames(results: HubResults) -> None:
    frames = results.pandas()
    expected = pd.DataFrame(
        {
            "xcenter": [40.0, 100.0, 15.0],
            "ycenter": [25.0, 50.0, 30.0],
            "width": [40.0, 200.0, 10.0],
            "height": [30.0, 100.0, 20.0],
            "confidence": [0.75, 0.5, 0.25],
            "class": [1, 1, 0],
            "name": ["dog", "dog", "cat"],
        }
    )
    pd.testing.assert_frame_equal(frames.xywh[0], expected)
    assert frames.xyxyn[0]["xmax"].tolist() == pytest.approx([0.3, 1.0, 0.1])
    assert len(frames.xyxy[1]) == 0 and list(frames.xyxy[1].columns)[-1] == "name"


def test_what_is_printed(results: HubResults) -> None:
    assert str(results).splitlines() == [
        "image 1/2: 100x200 1 cat, 2 dogs",
        "image 2/2: 10x20 (no detections)",
        "Speed: 1.2ms pre-process, 20.0ms inference, 3.0ms NMS per image at shape (2, 3, 320, 640)",
    ]


def test_a_list_of_results_has_one_image_each(results: HubResults) -> None:
    first, second = results.tolist()
    assert (first.n, second.n, first.files, second.files) == (1, 1, ["a.jpg"], ["a.jpg"])
    assert torch.equal(first.xyxy[0], results.xyxy[0]) and len(second.xyxy[0]) == 0
    assert str(second).startswith("image 1/1: 10x20")


def test_images_of_one_name_are_saved_under_two(results: HubResults, tmp_path: Path) -> None:
    folder = results.save(save_dir=tmp_path / "exp")
    shapes = {path.name: np.asarray(cv2.imread(str(path))).shape[:2] for path in folder.iterdir()}
    assert shapes == {"a.jpg": (100, 200), "a_2.jpg": (10, 20)}
    assert (results.ims[0] != 100).any(), "what was drawn on stays"


def test_crops(results: HubResults, tmp_path: Path) -> None:
    first, whole, last = results.crop(save_dir=tmp_path / "exp")
    assert [crop["label"] for crop in (first, whole, last)] == ["dog 0.75", "dog 0.50", "cat 0.25"]
    assert first["box"].tolist() == [20, 10, 60, 40] and (float(first["conf"]), int(first["cls"])) == (0.75, 1)
    # From 14.6 to 65.4 and from 4.7 to 45.3, see the crops of detect.py.
    assert first["im"].shape == (41, 51, 3) and whole["im"].shape == (100, 200, 3)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    assert files == [f"exp/crops/{name}.jpg" for name in ("cat/a", "dog/a", "dog/a2")]
    assert len(results.crop(save=False, save_dir=tmp_path / "other")) == 3 and not (tmp_path / "other").exists()


def test_wrong_tags_leave_no_folder(results: HubResults, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tags='some'"):
        results.save(save_dir=tmp_path / "exp", tags="some")
    assert not (tmp_path / "exp").exists()


def test_tags_of_rendered_images(results: HubResults) -> None:
    auto, every, none = (results.render(tags=tags)[0] for tags in ("auto", "all", "none"))
    assert (auto != none).any() and (every != none).any() and (auto != every).any()
    assert (results.render(labels=False)[0] == none).all()
    for labels, tags in ((False, "all"), (True, "some")):
        with pytest.raises(ValueError, match=f"labels={labels}, tags='{tags}'"):
            results.render(labels, tags)

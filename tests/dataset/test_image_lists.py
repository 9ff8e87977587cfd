"""Images that two parts share are known by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.dataset.image_lists import original_name, shared_images
from utils.verbs.train import warn_of_shared_images

HEX = "0123456789abcdef" * 2


def test_versions_that_roboflow_made() -> None:
    assert original_name(f"img_1_jpg.rf.{HEX}") == "img_1_jpg"
    assert original_name("img_1_jpg") is None and original_name("a.rf.1") is None


def test_images_that_two_parts_share(tmp_path: Path) -> None:
    def image(name: str, content: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
        return file

    train = [image("train/1.jpg", "a"), image("train/2.jpg", "b"), image(f"train/x_jpg.rf.{HEX}.jpg", "c")]
    copy, other = image("val/1.jpg", "a"), image("val/2.jpg", "another image of that name")
    version, gone = image(f"val/x_jpg.rf.{HEX[::-1]}.jpg", "d"), tmp_path / "val" / "2.jpg" / "1.jpg"
    assert shared_images(train, [copy, other, version, train[1], gone]) == [
        (train[0], copy),
        (train[2], version),
        (train[1], train[1]),
    ]


def test_training_says_so(caplog: pytest.LogCaptureFixture) -> None:
    train, val = [Path("a.jpg"), Path("b.jpg")], [Path("b.jpg"), Path("c.jpg"), Path("d.jpg")]
    with caplog.at_level("INFO", logger="utils"):
        warn_of_shared_images(train, val[1:], "my.yaml")
        warn_of_shared_images(train, val, "my.yaml")
        warn_of_shared_images(train, train, "my.yaml")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "val: 1 of 3 images are train's too, such as b.jpg: its figures will be too good; "
            "python -m utils.dataset.split my.yaml makes parts that share none",
        ),
        ("INFO", "val has the same images as train: its figures say how well they are remembered, no more"),
    ]

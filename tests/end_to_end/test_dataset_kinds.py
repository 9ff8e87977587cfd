"""Training on data sets as people have them: COCO JSON and Pascal VOC read directly, a set to be fetched, tiles."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.dataset.test_dataset_download import zipped
from tests.dataset.test_voc_files import voc_object, voc_text
from tests.runtime.loopback import Served, loopback_server
from tests.small_dataset import NAMES, write_small_dataset
from utils.config.train_flags import TrainConfig
from utils.config.val_flags import ValConfig
from utils.verbs.evaluate import run_evaluation
from utils.verbs.train import train_detector

pytestmark = pytest.mark.slow
HEIGHT, WIDTH = 96, 128  # of the small data set's images


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a small data set with YOLO labels."""
    return write_small_dataset(tmp_path_factory.mktemp("labelled"), train=8, val=4)


def whole_boxes(label: Path) -> list[tuple[int, list[int]]]:
    """Class and corners of each row; the boxes of the small data set are whole pixels."""
    rows = [list(map(float, line.split())) for line in label.read_text().splitlines()]
    scale = np.array([WIDTH, HEIGHT] * 2)
    corners = [np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * scale for _, x, y, w, h in rows]
    return [(int(row[0]), box.round().astype(int).tolist()) for row, box in zip(rows, corners, strict=True)]


def as_coco(labelled: Path, folder: Path) -> Path:
    """The same images with COCO annotation files and no label files."""
    shutil.copytree(labelled.parent / "images", folder / "images")
    for part in ("train", "val"):
        images: list[dict[str, object]] = []
        rows: list[dict[str, object]] = []
        for number, image in enumerate(sorted((folder / "images" / part).iterdir())):
            images.append({"id": number, "file_name": image.name, "height": HEIGHT, "width": WIDTH})
            for kind, (x1, y1, x2, y2) in whole_boxes(labelled.parent / "labels" / part / f"{image.stem}.txt"):
                place = {"image_id": number, "category_id": 10 + kind, "iscrowd": 0, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                rows.append({"id": len(rows) + 1, "area": (x2 - x1) * (y2 - y1), **place})
        categories = [{"id": 10 + kind, "name": name} for kind, name in enumerate(NAMES)]
        content = {"images": images, "annotations": rows, "categories": categories}
        (folder / f"{part}.json").write_text(json.dumps(content))
    more = "annotations: {train: train.json, val: val.json}\n"
    (folder / "coco-form.yaml").write_text(f"train: images/train\nval: images/val\n{more}names: {list(NAMES)}\n")
    return folder / "coco-form.yaml"


def as_voc(labelled: Path, folder: Path) -> Path:
    """The same images in VOC's folders, with XML files and lists of names."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for part in ("train", "val"):
        names = []
        for image in sorted((labelled.parent / "images" / part).iterdir()):
            name = f"{part}_{image.stem}"
            shutil.copy(image, folder / "JPEGImages" / f"{name}{image.suffix}")
            boxes = whole_boxes(labelled.parent / "labels" / part / f"{image.stem}.txt")
            objects = [voc_object(NAMES[kind], (x1 + 1, y1 + 1, x2, y2)) for kind, (x1, y1, x2, y2) in boxes]
            (folder / "Annotations" / f"{name}.xml").write_text(voc_text(*objects, size=(HEIGHT, WIDTH)))
            names.append(f"{name}\n")
        (folder / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(names))
    lists = "train: ImageSets/Main/train.txt\nval: ImageSets/Main/val.txt\n"
    (folder / "voc-form.yaml").write_text(f"{lists}names: {list(NAMES)}\n")
    return folder / "voc-form.yaml"


def settings(data: Path, folder: Path) -> TrainConfig:
    return TrainConfig(
        weights="",
        cfg="yolov5n-spd.yaml",
        data=str(data),
        imgsz=64,
        batch_size=4,
        epochs=1,
        workers=0,
        device="cpu",
        noplots=True,
        noautoanchor=True,
        project=str(folder),
    )


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "results.csv").open() as file:
        return list(csv.DictReader(file, skipinitialspace=True))


def losses(data: Path, folder: Path) -> list[float]:
    """Losses of training and validation in an epoch."""
    run = train_detector(settings(data, folder))
    assert not (run / "problems.txt").exists()
    (row,) = rows_of(run)
    return [float(row[f"{part}/{kind}_loss"]) for part in ("train", "val") for kind in ("box", "obj", "cls")]


def evaluated(weights: Path, data: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """metrics.json of val.py."""
    flags: dict[str, Any] = {"weights": (str(weights),), "data": str(data), "imgsz": 64, "workers": 0, "device": "cpu"}
    run_evaluation(ValConfig(**(flags | more), project=str(folder), name="val", exist_ok=True))
    content: dict[str, Any] = json.loads((folder / "val" / "metrics.json").read_text())
    return content


def test_the_same_labels_in_another_format_train_the_same(labelled: Path, tmp_path: Path) -> None:
    as_labels = losses(labelled, tmp_path / "runs")
    assert min(as_labels) > 0
    # Label files hold six decimals, the others whole pixels.
    for name, data in (("coco", as_coco(labelled, tmp_path / "coco")), ("voc", as_voc(labelled, tmp_path / "voc"))):
        assert losses(data, tmp_path / "runs") == pytest.approx(as_labels, rel=2e-2), name


def test_a_data_set_is_fetched_by_train_and_val(labelled: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    for kind in ("images", "labels"):
        shutil.copytree(labelled.parent / kind, archive / "small" / kind)
    with loopback_server({"small.zip": Served(zipped(archive))}) as server:
        (tmp_path / "fetched.yaml").write_text(
            f"path: {tmp_path}/sets/small\ntrain: images/train\nval: images/val\nnames: {list(NAMES)}\n"
            f"download: {server.url('small.zip')}\n"
        )
        run = train_detector(settings(tmp_path / "fetched.yaml", tmp_path / "runs"))
        metrics = evaluated(run / "weights" / "last.pt", tmp_path / "fetched.yaml", tmp_path / "runs")
        assert len(server.files["small.zip"].requests) == 1
    assert metrics["images"] == 4


def test_training_and_validation_in_tiles(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 2), ("val", 1)):
        for kind in ("images", "labels"):
            (tmp_path / kind / part).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(90, 150, (300, 400, 3), dtype=np.uint8)
            rows = []
            for _ in range(12):
                x, y = int(rng.integers(0, 380)), int(rng.integers(0, 280))
                image[y : y + 20, x : x + 20] = (60, 60, 220)
                rows.append(f"0 {(x + 10) / 400} {(y + 10) / 300} {20 / 400} {20 / 300}\n")
            cv2.imwrite(str(tmp_path / "images" / part / f"{number}.png"), image)
            (tmp_path / "labels" / part / f"{number}.txt").write_text("".join(rows))
    (tmp_path / "large.yaml").write_text("train: images/train\nval: images/val\nnames: [red]\ntile: 96\n")
    tiled = replace(settings(tmp_path / "large.yaml", tmp_path / "runs"), imgsz=96, noplots=False, batch_size=8)
    run = train_detector(tiled)
    (row,) = rows_of(run)
    # Whole images are evaluated in tiles: there is no loss, and all objects of the image count, not those of windows.
    assert row["val/box_loss"] == "nan" and row["metrics/mAP_0.5"] != "nan"
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["images"], metrics["objects"]) == (1, 12)
    assert (run / "train_batch0.jpg").is_file()
    assert len(list((tmp_path / "labels").glob("*.cache.bin"))) == 1  # what windows are read from
    evaluate_it = partial(evaluated, run / "weights" / "last.pt", tmp_path / "large.yaml", tmp_path / "runs", imgsz=96)
    assert evaluate_it()["map50_95"] == evaluate_it(slice=96)["map50_95"]
    assert evaluate_it()["settings"]["slice"] is None
    # --tile 0 takes whole images, whatever the YAML says.
    (row,) = rows_of(train_detector(replace(tiled, tile=0, noplots=True)))
    assert row["val/box_loss"] != "nan"

"""Each format, as its publisher writes it, becomes the labels worked out by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.dataset.converters.reading import blank, converted, objects, opened
from tests.dataset.test_voc_files import voc_object, voc_set, voc_text
from tests.end_to_end.scripts import environment
from utils.config.dataset_yaml import read_dataset_yaml
from utils.dataset.converters.aerial_images import DOTA_NAMES, VISDRONE_NAMES, XVIEW_NAMES
from utils.dataset.converters.label_writing import SourceSettings
from utils.dataset.label_files import LabelProblem
from utils.evaluation.coco_average_precision import CocoFindings, coco_figures
from utils.user_error import UserError


def visdrone_set(root: Path) -> Path:
    folder = root / "VisDrone2019-DET-val"
    for name in ("0000001_02999_d_0000005", "0000002_00005_d_0000014"):
        blank(folder / "images" / f"{name}.jpg")
    (folder / "annotations").mkdir()
    rows = (
        "10,20,30,40,1,4,0,0",  # a car, x 10-40, y 20-60
        "100,0,60,50,0,0,0,0",  # a region to ignore, x 100-160, y 0-50
        "110,10,20,20,1,1,0,1",  # a pedestrian inside it
        "150,10,20,20,1,4,0,0,",  # a car, half of it inside
        "152,10,20,20,1,4,0,0",  # a car, less than half of it inside
        "60,60,10,10,0,10,0,2",  # a motor that does not count
        "70,70,10,10,1,11,0,0",  # "others"
        "190,90,30,30,1,9,1,0",  # a bus that leaves the image
        "1,2,3,4,1,12,0,0",
        "hello",
    )
    (folder / "annotations" / "0000001_02999_d_0000005.txt").write_text("\r\n".join(rows) + "\r\n")
    (folder / "annotations" / "0000002_00005_d_0000014.txt").write_text("")
    return root


def test_visdrone(tmp_path: Path) -> None:
    summary = converted("visdrone", SourceSettings(visdrone_set(tmp_path)))["val"]
    assert (summary.images, summary.empty, summary.ignored, summary.clipped) == (2, 1, 2, 1)
    assert [(problem.line, problem.text[:12]) for problem in summary.problems] == [
        (9, "category 12 "),
        (10, "not a row le"),
    ]
    dataset = opened(summary, VISDRONE_NAMES, tmp_path)
    assert objects(dataset, "0000001_02999_d_0000005.jpg") == [
        (3, 10, 20, 40, 60),
        (3, 152, 10, 172, 30),
        (8, 190, 90, 200, 100),
    ]
    assert objects(dataset, "0000002_00005_d_0000014.jpg") == []
    truth = dataset.coco_truth
    assert truth is not None
    # The region counts for each of the ten classes, the motor for its own.
    assert (len(truth.crowd), int(truth.crowd.sum())) == (14, 11)

    def average_precision(second: list[float]) -> float:
        assert truth is not None
        boxes = np.array([second, [10.0, 20, 40, 60], [152.0, 10, 172, 30]])
        found = CocoFindings(np.zeros(3, int), np.full(3, 3), boxes, np.array([0.9, 0.8, 0.7]))
        return coco_figures(truth, found).per_class[3].AP50

    # Ranked first, a false car in the region changes nothing; elsewhere the precisions are 1/2 and 2/3.
    assert average_precision([110.0, 5, 130, 25]) == pytest.approx(1)
    assert average_precision([60.0, 5, 80, 25]) == pytest.approx(2 / 3, abs=0.01)


def test_dota(tmp_path: Path) -> None:
    blank(tmp_path / "train" / "images" / "P0000.png")
    (tmp_path / "train" / "labelTxt-v1.0").mkdir()
    (tmp_path / "train" / "labelTxt-v1.0" / "P0000.txt").write_text(
        "imagesource:GoogleEarth\n"
        "gsd:0.146343590398\n"
        "30.0 10.0 50.0 30.0 30.0 50.0 10.0 30.0 small-vehicle 0\n"  # a square on its corner
        "100.0 10.0 120.0 10.0 120.0 20.0 100.0 20.0 large-vehicle 1\n"
        "1 2 3 4 5 6 7 8 container-crane 0\n"
        "1 2 3 4\n"
    )
    summary = converted("dota", SourceSettings(tmp_path))["train"]
    dataset = opened(summary, DOTA_NAMES, tmp_path)
    assert objects(dataset, "P0000.png") == [(10, 10, 10, 50, 50)]
    truth = dataset.coco_truth
    assert truth is not None
    assert truth.crowd.tolist() == [False, True]
    assert truth.boxes[1].tolist() == [100, 10, 120, 20]
    assert [problem.line for problem in summary.problems] == [5, 6]


def test_sku110k(tmp_path: Path) -> None:
    for name in ("train_0.jpg", "train_1.jpg", "val_0.jpg"):
        blank(tmp_path / "images" / name)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "annotations_train.csv").write_text(
        "train_0.jpg,10,20,30,60,object,200,100\n"
        "train_1.jpg,0,0,200,100,object,200,100\n"
        "train_0.jpg,150,20,170,101,object,200,100\n"
        "train_9.jpg,150,20,170,101,object,200,100\n"
        "train_0.jpg,150,oops,170,101,object,200,100\n"
    )
    (tmp_path / "annotations" / "annotations_val.csv").write_text("val_0.jpg,1,2,3,4,object,200,100\n")
    summaries = converted("sku110k", SourceSettings(tmp_path))
    train = summaries["train"]
    dataset = opened(train, ("object",), tmp_path)
    assert [path.name for path in dataset.index.paths] == ["train_0.jpg", "train_1.jpg"]
    assert objects(dataset, "train_0.jpg") == [(0, 10, 20, 30, 60), (0, 150, 20, 170, 100)]
    assert train.clipped == 1
    assert [problem.line for problem in train.problems] == [5, 0]
    assert (tmp_path / "val.txt").read_text() == "images/val_0.jpg\n"


@pytest.mark.parametrize("suffix", ["geojson", "csv"])
def test_xview(tmp_path: Path, suffix: str) -> None:
    images = [f"{number}.tif" for number in (5, 10, 12, 20, 21, 27, 33, 34, 40, 41)]
    for name in images:
        blank(tmp_path / "train_images" / name)
    rows = [{"image_id": name, "type_id": 18, "bounds_imcoords": "10,20,30,60"} for name in images]
    rows += [
        {"image_id": "5.tif", "type_id": 94, "bounds_imcoords": "-5,0,20,20"},
        {"image_id": "5.tif", "type_id": 75, "bounds_imcoords": "1,2,3,4"},  # types 75 and 82 are no classes
        {"image_id": "1395.tif", "type_id": 18, "bounds_imcoords": "1,2,3,4"},  # never published
        {"image_id": "5.tif", "type_id": 18, "bounds_imcoords": "1,2"},
    ]
    if suffix == "csv":
        lines = [f'{row["image_id"]},{row["type_id"]},"{row["bounds_imcoords"]}"' for row in rows]
        text = "\n".join(["image_id,type_id,bounds_imcoords", *lines])
    else:
        features = [{"type": "Feature", "geometry": None, "properties": row} for row in rows]
        text = json.dumps({"type": "FeatureCollection", "features": features})
    file = tmp_path / f"xView_train.{suffix}"
    file.write_text(text)
    summaries = converted("xview", SourceSettings(file))
    train, val = (opened(summaries[part], XVIEW_NAMES, tmp_path) for part in ("train", "val"))
    assert sorted(path.name for path in [*train.index.paths, *val.index.paths]) == sorted(images)
    assert len(val) == 1
    assert objects(train, "5.tif") == [(5, 10, 20, 30, 60), (59, 0, 0, 20, 20)]
    texts = [problem.text for part in summaries.values() for problem in part.problems]
    assert len(texts) == 3
    assert "type_id 75 is not a class of xView" in texts
    assert (len(XVIEW_NAMES), len(set(XVIEW_NAMES))) == (60, 60)


def test_voc(tmp_path: Path) -> None:
    first = voc_text(voc_object("dog", (11, 21, 50, 60)), voc_object("cat", (101, 1, 200, 100), difficult=1))
    voc_set(tmp_path, a=first, b=voc_text(voc_object("cat", (1, 1, 10, 10))))
    summary = converted("voc", SourceSettings(tmp_path))["trainval"]
    dataset = opened(summary, ("cat", "dog"), tmp_path)
    assert objects(dataset, "a.jpg") == [(1, 10, 20, 50, 60)]
    assert objects(dataset, "b.jpg") == [(0, 0, 0, 10, 10)]
    truth = dataset.coco_truth
    assert truth is not None
    assert truth.boxes[truth.crowd].tolist() == [[100, 0, 200, 100]]
    only_dogs = converted("voc", SourceSettings(tmp_path, names=("dog",)))["trainval"]
    assert [problem.text for problem in only_dogs.problems] == ["'cat' is no class of the data set"] * 2


def coco_set(root: Path) -> Path:
    for name in ("000000000139.jpg", "000000000285.jpg"):
        blank(root / "val2017" / name)
    row = {"id": 1, "image_id": 139, "category_id": 18, "iscrowd": 0, "area": 400}
    content = {
        "images": [
            {"id": 139, "file_name": "000000000139.jpg", "height": 100, "width": 200},
            {"id": 285, "file_name": "000000000285.jpg", "height": 100, "width": 200},
            {"id": 632, "file_name": "000000000632.jpg", "height": 100, "width": 200},
        ],
        "categories": [{"id": 44, "name": "bottle"}, {"id": 18, "name": "dog"}],
        "annotations": [
            row | {"bbox": [10, 20, 30.5, 40], "segmentation": [[10, 20, 40.5, 20, 40.5, 60]]},
            row
            | {
                "id": 2,
                "category_id": 44,
                "bbox": [50, 50, 20, 20],
                "segmentation": [[50, 50, 70, 70, 50, 70], [1, 1]],
            },
            row
            | {"id": 3, "iscrowd": 1, "bbox": [100, 0, 90, 90], "segmentation": {"counts": [1], "size": [100, 200]}},
        ],
    }
    (root / "annotations").mkdir()
    file = root / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps(content))
    return file


def test_coco(tmp_path: Path) -> None:
    file = coco_set(tmp_path)
    summary = converted("coco", SourceSettings(file))["val2017"]
    dataset = opened(summary, ("dog", "bottle"), tmp_path)  # in order of the ids
    assert objects(dataset, "000000000139.jpg") == [(0, 10, 20, 40, 60), (1, 50, 50, 70, 70)]
    assert objects(dataset, "000000000285.jpg") == []
    assert [Path(problem.file).name for problem in summary.problems] == ["000000000632.jpg"]
    assert dataset.source_labels(0).polygons == (None, None)
    outlined = converted("coco", SourceSettings(file, outlines=True), tmp_path / "outlined")["val2017"]
    polygons = opened(outlined, ("dog", "bottle"), tmp_path / "outlined").source_labels(0).polygons
    assert polygons[0] is not None and polygons[0].round(1).tolist() == [[10, 20], [40.5, 20], [40.5, 60]]
    assert polygons[1] is None  # of two parts


def test_into_a_folder_of_its_own(tmp_path: Path) -> None:
    source = visdrone_set(tmp_path / "source")
    before = sorted(source.rglob("*"))
    for _ in range(2):  # a second time over the first
        summary = converted("visdrone", SourceSettings(source), tmp_path / "to")["val"]
        assert objects(opened(summary, VISDRONE_NAMES, tmp_path), "0000001_02999_d_0000005.jpg")[0] == (
            3,
            10,
            20,
            40,
            60,
        )
    assert sorted(source.rglob("*")) == before
    (tmp_path / "to" / "images" / "val" / "0000001_02999_d_0000005.jpg").unlink()
    blank(tmp_path / "to" / "images" / "val" / "0000001_02999_d_0000005.jpg")
    with pytest.raises(UserError, match="is there already and is not a link"):
        converted("visdrone", SourceSettings(source), tmp_path / "to")


@pytest.mark.case(
    "COCO annotation files", "conversion of a file made at another image size", "the image is left out, named"
)
def test_coco_of_another_image_size(tmp_path: Path) -> None:
    file = coco_set(tmp_path)
    content = json.loads(file.read_text())
    content["images"][0] |= {"width": 400, "height": 200}
    file.write_text(json.dumps(content))
    summary = converted("coco", SourceSettings(file))["val2017"]
    assert [problem.text for problem in summary.problems if "says 400 x 200" in problem.text]
    assert summary.images == 1  # of the three one is left out and one is not there


@pytest.mark.parametrize("name", ["coco", "dota", "sku110k", "visdrone", "voc", "xview"])
def test_a_folder_with_nothing_of_the_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        converted(name, SourceSettings(tmp_path))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_annotations_without_images_are_no_success(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.txt").write_text("1,2,3,4,1,1,0,0\n")
    with pytest.raises(UserError, match=r"no image with its annotation was found; the first problem: .*has no image"):
        converted("visdrone", SourceSettings(tmp_path))
    assert "has no image" in (tmp_path / "conversion_problems.txt").read_text()
    assert LabelProblem("a", 0, "b").line == 0


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    visdrone_set(tmp_path / "source")
    command = [sys.executable, "-m", "utils.dataset.converters", "visdrone", "source", "--to", "to"]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "val: 2 images (1 without objects), 3 objects, 2 regions to ignore, 1 boxes clipped" in result.stdout
    assert "car 2, bus 1" in result.stdout
    content = yaml.safe_load((tmp_path / "to" / "data.yaml").read_text())
    assert content["val"] == "images/val"
    (tmp_path / "to" / "data.yaml").write_text(yaml.safe_dump(content | {"train": "images/val"}))
    spec = read_dataset_yaml(tmp_path / "to" / "data.yaml")
    assert spec.names == VISDRONE_NAMES
    assert spec.annotations["val"].is_file()
    wrong = subprocess.run([*command[:4], "nowhere"], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (1, "error: nowhere: no such folder\n")

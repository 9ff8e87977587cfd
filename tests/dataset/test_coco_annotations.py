"""COCO annotation files: figures equal pycocotools' own reading of the file; mistakes are named."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from utils.dataset.coco_annotations import NO_CLASS, classes_of, fit_to_images
from utils.dataset.coco_files import read_coco_annotations
from utils.dataset.detection_dataset import open_dataset
from utils.evaluation.coco_average_precision import CocoFindings, coco_figures
from utils.runtime.console_log import counted
from utils.user_error import UserError

NAMES = ("person", "boat", "kite", "never annotated")
CATEGORIES = [
    {"id": 7, "name": "kite"},
    {"id": 1, "name": "Person"},
    {"id": 3, "name": "boat"},
    {"id": 90, "name": "no class here"},
]


def content(count: int = 10, *, seed: int = 0, decimals: int = 2) -> dict[str, Any]:
    """Crowd regions, areas that are not those of the boxes, images without objects, a category without a class."""
    rng = np.random.default_rng(seed)
    images = [{"id": 500 - i, "file_name": f"{i:04d}.png", "height": 240, "width": 320} for i in range(count)]
    annotations: list[dict[str, Any]] = []
    for image in images[:-3]:
        for _ in range(int(rng.integers(1, 9))):
            w, h = np.exp(rng.uniform(np.log(8), np.log(150), 2))
            x, y = rng.uniform(0, 320 - w), rng.uniform(0, 240 - h)
            annotations.append(
                {
                    "id": len(annotations) + 17,
                    "image_id": image["id"],
                    "category_id": int(rng.choice([1, 3, 7, 90], p=[0.4, 0.3, 0.2, 0.1])),
                    "bbox": [round(float(side), decimals) for side in (x, y, w, h)],
                    "area": round(float(w * h * rng.uniform(0.3, 1)), 2),
                    "iscrowd": int(rng.random() < 0.12),
                }
            )
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def found_near(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Results in COCO's form: near the objects, some doubled, some of a wrong class, some nowhere."""
    rng = np.random.default_rng(1)
    rows = []
    for one in value["annotations"] * 2:
        box = np.array(one["bbox"]) + rng.normal(0, 0.07, 4) * np.array(one["bbox"][2:] * 2)
        kind = one["category_id"] if rng.random() < 0.85 else 1
        if kind != 90 and min(box[2:]) > 0:
            rows.append(
                {"image_id": one["image_id"], "category_id": kind, "bbox": box.tolist(), "score": float(rng.random())}
            )
    return rows


def test_figures_equal_those_of_pycocotools_on_the_file(tmp_path: Path) -> None:
    value = content()
    file = write(tmp_path / "instances.json", value)
    results = found_near(value)
    paths = [tmp_path / "images" / image["file_name"] for image in reversed(value["images"])]
    fitted = fit_to_images(read_coco_annotations(file), paths, NAMES)
    image_of = {number: place for place, number in enumerate(fitted.image_ids)}
    class_of = {number: index for index, number in enumerate(fitted.category_ids) if number != NO_CLASS}
    findings = CocoFindings(
        images=np.array([image_of[row["image_id"]] for row in results]),
        classes=np.array([class_of[row["category_id"]] for row in results]),
        boxes=np.array([(x, y, x + w, y + h) for x, y, w, h in (row["bbox"] for row in results)]),
        scores=np.array([row["score"] for row in results]),
    )
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(file))
        found = known.loadRes(results)
        reference = COCOeval(known, found, "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    assert 0.1 < reference.stats[0] < 0.9
    for engine in ("hotcoco", "pycocotools"):
        figures = coco_figures(fitted.truth, findings, engine)
        np.testing.assert_allclose(figures.summary, reference.stats, rtol=0, atol=1e-9)
        for category in (1, 3, 7):
            with contextlib.redirect_stdout(io.StringIO()):
                alone = COCOeval(known, found, "bbox")
                alone.params.catIds = [category]
                alone.evaluate()
                alone.accumulate()
                alone.summarize()
            np.testing.assert_allclose(figures.per_class[class_of[category]], alone.stats, rtol=0, atol=1e-9)


@pytest.mark.parametrize("decimals", [0, 2, 15])
@pytest.mark.parametrize("seed", range(3))
def test_corners_in_memory_move_no_figure(tmp_path: Path, seed: int, decimals: int) -> None:
    """Boxes of any number of decimals, read as corners, give what pycocotools gives on the file, to the last bit."""
    value = content(seed=seed, decimals=decimals)
    file = write(tmp_path / "instances.json", value)
    results = found_near(value)
    for row in results:  # what a detector gives: float32 corners
        x, y, w, h = row["bbox"]
        x1, y1, x2, y2 = np.array([x, y, x + w, y + h], dtype=np.float32).astype(np.float64).round(decimals).tolist()
        row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    fitted = fit_to_images(read_coco_annotations(file), [tmp_path / one["file_name"] for one in value["images"]], NAMES)
    findings = CocoFindings(
        images=np.array([500 - row["image_id"] for row in results]),
        classes=np.array([fitted.category_ids.index(row["category_id"]) for row in results]),
        boxes=np.array([(x, y, x + w, y + h) for x, y, w, h in (row["bbox"] for row in results)]),
        scores=np.array([row["score"] for row in results]),
    )
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(file))
        reference = COCOeval(known, known.loadRes(results), "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    for engine in ("hotcoco", "pycocotools"):
        assert list(coco_figures(fitted.truth, findings, engine).summary) == reference.stats.tolist()


def test_classes_by_name_and_ids_of_images(tmp_path: Path) -> None:
    value = content()
    annotations = read_coco_annotations(write(tmp_path / "a.json", value))
    fitted = fit_to_images(annotations, [Path("x/0001.png"), Path("x/new.png"), Path("x/0000.png")], NAMES)
    assert fitted.image_ids == (499, -2, 500)
    assert fitted.category_ids == (1, 3, 7, NO_CLASS)
    assert fitted.listed().tolist() == [0, 2]
    assert fitted.truth.image_count == 3 and set(fitted.truth.images.tolist()) == {0, 2}
    strangers = sum(one["category_id"] == 90 for one in value["annotations"] if one["image_id"] in (499, 500))
    assert (fitted.truth.classes >= len(NAMES)).sum() == strangers


def test_images_of_one_name_are_told_apart_by_folder(tmp_path: Path) -> None:
    value = content(2)
    value["images"][0]["file_name"], value["images"][1]["file_name"] = "a/1.png", "b/1.png"
    annotations = read_coco_annotations(write(tmp_path / "a.json", value))
    assert fit_to_images(annotations, [Path("/d/b/1.png"), Path("/d/a/1.png")], NAMES).image_ids == (499, 500)
    value["images"][1]["file_name"] = "a/1.png"
    annotations = read_coco_annotations(write(tmp_path / "a.json", value))
    with pytest.raises(UserError, match="2 of its images could be"):
        fit_to_images(annotations, [Path("/d/a/1.png")], NAMES)


def test_categories_of_other_names_are_taken_in_order_of_ids(tmp_path: Path) -> None:
    value = content() | {"categories": [{"id": 9, "name": "z"}, {"id": 4, "name": "y"}], "annotations": []}
    annotations = read_coco_annotations(write(tmp_path / "a.json", value))
    assert fit_to_images(annotations, [Path("0001.png")], ("one", "two")).category_ids == (4, 9)
    with pytest.raises(UserError, match="none of its categories"):
        fit_to_images(annotations, [Path("0001.png")], NAMES)


def broken(change: str) -> dict[str, Any]:
    value = content()
    first = value["annotations"][0]
    if change == "no images":
        del value["images"]
    elif change == "twice":
        value["images"][1]["id"] = 500
    elif change == "box":
        first["bbox"] = [1, 2, 3]
    elif change == "nan":
        first["bbox"] = [1, 2, 3, float("nan")]
    elif change == "stranger":
        first["image_id"] = 1
    elif change == "name":
        value["categories"] = [{"id": 1}]
    elif change == "area":
        first["area"] = "large"
    elif change == "number":
        value["images"][0]["id"] = 5.5
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no images", "no list 'images'"),
        ("twice", "an 'id' occurs twice"),
        ("box", "four finite numbers"),
        ("nan", "four finite numbers"),
        ("stranger", "image_id 1 is not in the file"),
        ("name", "'name' is missing"),
        ("area", "area 'large'"),
        ("number", "has to be a whole number"),
    ],
)
def test_mistakes_are_named_with_file_and_entry(tmp_path: Path, change: str, message: str) -> None:
    file = write(tmp_path / "a.json", broken(change))
    with pytest.raises(UserError, match=message) as caught:
        read_coco_annotations(file)
    assert str(file) in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"images": 3}', '{"images": [], "annotations": 5}'])
def test_files_of_other_forms(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"a\.json"):
        read_coco_annotations(file)


def test_without_label_files_the_annotations_are_the_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    value = content()
    (tmp_path / "images").mkdir()
    for image in value["images"]:
        cv2.imwrite(str(tmp_path / "images" / image["file_name"]), np.zeros((240, 320, 3), dtype=np.uint8))
    value["annotations"] = value["annotations"][:1]
    value["annotations"][0] |= {
        "image_id": 500,
        "category_id": 7,
        "bbox": [10, 20, 400, 40],
        "iscrowd": 0,
        "segmentation": [[10, 20, 400, 20, 400, 60]],
    }
    crowd = value["annotations"][0] | {"id": 2, "iscrowd": 1}
    stranger = value["annotations"][0] | {"id": 3, "category_id": 90}
    outside = value["annotations"][0] | {"id": 4, "bbox": [330, 0, 5, 5]}
    value["annotations"] += [crowd, stranger, outside]
    file = write(tmp_path / "a.json", value)
    dataset = open_dataset((tmp_path / "images",), NAMES, cache_folder=tmp_path, annotations=file)
    assert sum("categories that are no class" in message for message in caplog.messages) == 1
    labels = dataset.source_labels(0)
    np.testing.assert_allclose(labels.boxes, [[10, 20, 320, 60]], atol=1e-3)
    assert labels.classes.tolist() == [2]
    assert labels.polygons[0] is not None and labels.polygons[0].shape == (3, 2)
    assert len(dataset.source_labels(1)) == 0
    assert f"{counted(len(dataset.index.problems), 'annotation')} left out" in dataset.index.summary()
    assert "unreadable" not in dataset.index.summary()
    assert [problem.text for problem in dataset.index.problems] == [
        "annotations[3]: the box from 330 0 to 335 5 lies beside its image of 320 x 240",
        "annotations[2]: 'no class here' is no class of the data set",
    ]


def test_argoverse_names_images_by_sequence(tmp_path: Path) -> None:
    value = content(count=2)
    for place, image in enumerate(value["images"]):
        image["name"], image["sid"] = image.pop("file_name"), place
    value["seq_dirs"] = ["train/a/ring_front_center", "train/b/ring_front_center"]
    annotations = read_coco_annotations(write(tmp_path / "a.json", value))
    assert annotations.image_names[1] == "train/b/ring_front_center/0001.png"
    value["images"][1]["sid"] = 2
    with pytest.raises(UserError, match=r"images\[1\]: sid 2 is not a place in 'seq_dirs'"):
        read_coco_annotations(write(tmp_path / "a.json", value))


def test_what_is_marked_to_be_ignored_counts_as_a_crowd(tmp_path: Path) -> None:
    value = content()
    for row in value["annotations"]:
        row["iscrowd"] = 0
    value["annotations"][3]["ignore"] = True  # TinyPerson
    value["annotations"][4]["ignore"] = 1  # VOC in COCO's form
    annotations = read_coco_annotations(write(tmp_path / "a.json", value))
    assert np.flatnonzero(annotations.crowd).tolist() == [3, 4]


def test_a_few_categories_spelled_differently_are_taken_by_place(tmp_path: Path) -> None:
    names = tuple(f"thing {i}" for i in range(20))
    value = content(count=1) | {"annotations": []}
    spelled = ["Head Phone" if i == 7 else name for i, name in enumerate(names)]
    value["categories"] = [{"id": 3 * i + 1, "name": name} for i, name in enumerate(spelled)]
    annotations = read_coco_annotations(write(tmp_path / "a.json", value))
    assert classes_of(annotations, names).tolist() == list(range(20))
    # In another order a name that is missing is no class.
    value["categories"][2]["name"], value["categories"][3]["name"] = names[3], names[2]
    annotations = read_coco_annotations(write(tmp_path / "a.json", value))
    assert classes_of(annotations, names).tolist()[7] == 20

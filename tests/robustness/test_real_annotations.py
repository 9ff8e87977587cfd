"""Annotations and images as labelling tools, scripts and cameras leave them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from models.weights import load_model
from tests.robustness.running import slug, succeeds
from utils.config.dataset_yaml import read_dataset_yaml
from utils.dataset.detection_dataset import DetectionDataset, open_dataset
from utils.dataset.image_files import image_size, read_image
from utils.inference.image_inputs import as_images
from utils.runtime.console_log import SAID
from utils.user_error import UserError

COCO, NAMES, IMAGES = "COCO JSON", "Class names", "Images"
SIZE = (64, 96)  # of every image here: height, width
SOUND: dict[str, Any] = {"image_id": 1, "category_id": 1, "bbox": [20, 16, 40, 32], "area": 1280, "iscrowd": 0}


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings reach ``caplog`` whatever scripts ran before."""
    monkeypatch.setattr(logging.getLogger("utils"), "propagate", True)
    SAID.clear()


def write_coco(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    *,
    size: tuple[int, int] | None = SIZE,
    image: bytes | None = None,
    image_id: object = 1,
) -> Path:
    """One grey image and its objects; ``size``: height and width that the file gives it. The dataset YAML's path."""
    (folder / "images").mkdir()
    done, grey = cv2.imencode(".jpg", np.full((*SIZE, 3), 90, np.uint8))
    assert done
    (folder / "images" / "0.jpg").write_bytes(image or grey.tobytes())
    sizes = {} if size is None else {"height": size[0], "width": size[1]}
    content = {
        "images": [{"id": image_id, "file_name": "0.jpg"} | sizes],
        "annotations": [{"id": place} | row for place, row in enumerate(rows)],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "ann.json").write_text(json.dumps(content), encoding="utf-8")
    text = "path: .\ntrain: images\nval: images\nannotations: {train: ann.json, val: ann.json}\nnames: [thing]\n"
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return folder / "data.yaml"


def opened(folder: Path) -> DetectionDataset:
    return open_dataset((folder / "images",), ("thing",), annotations=folder / "ann.json")


def boxes_and_areas(dataset: DetectionDataset) -> tuple[list[list[float]], list[list[float]], list[float]]:
    """Labels, boxes of COCO's figures, their areas."""
    truth = dataset.coco_truth
    assert truth is not None
    return dataset.source_labels(0).boxes.round(3).tolist(), truth.boxes.tolist(), truth.areas.tolist()


@pytest.mark.case(COCO, "made for images of twice the size", "boxes, outlines and areas are scaled, said once")
def test_a_file_of_larger_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outline = {"segmentation": [[40, 32, 120, 32, 120, 96]]}
    write_coco(tmp_path, [SOUND | outline | {"bbox": [40, 32, 80, 64], "area": 5120}], size=(128, 192))
    dataset = opened(tmp_path)
    box = [20.0, 16.0, 60.0, 48.0]
    assert boxes_and_areas(dataset) == ([box], [box], [1280.0])
    polygon = dataset.source_labels(0).polygons[0]
    assert polygon is not None
    np.testing.assert_allclose(polygon, [[20, 16], [60, 16], [60, 48]], atol=1e-4)
    line = "ann.json: says 192 x 128 for 0.jpg, which is 96 x 64: the boxes of 1 such images are scaled"
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path}/{line}"]


@pytest.mark.case(COCO, "sizes of a thumbnail that was rounded", "taken for the same shape")
def test_rounded_sizes_are_of_one_shape(tmp_path: Path) -> None:
    write_coco(tmp_path, [SOUND | {"bbox": [200, 150, 400, 300], "area": 120000}], size=(643, 961))
    ((x1, y1, x2, y2),) = boxes_and_areas(opened(tmp_path))[1]
    np.testing.assert_allclose((x1, y1, x2, y2), (20, 15, 60, 45), rtol=0.01)


@pytest.mark.parametrize(
    ("size", "rows", "line"),
    [
        pytest.param(size, rows, line, id=slug(case), marks=pytest.mark.case(COCO, case, f"exit 1: “{line}”"))
        for case, size, rows, line in (
            ("an image of another shape", (200, 200), [SOUND], "0.jpg is 96 x 64, but the file says 200 x 200"),
            ("sides swapped, image not turned", (96, 64), [SOUND], "the sides are swapped and no orientation tag says"),
            (
                "boxes beyond the stated size, within the image",
                (32, 48),
                [SOUND],
                "0.jpg is 96 x 64, but the file says 48 x 32; its boxes reach to 60 x 48",
            ),
        )
    ],
)
def test_sizes_that_cannot_be_reconciled(
    tmp_path: Path, size: tuple[int, int], rows: list[dict[str, Any]], line: str
) -> None:
    write_coco(tmp_path, rows, size=size)
    with pytest.raises(UserError, match=line):
        opened(tmp_path)


@pytest.mark.parametrize("size", [None, (0, 0), SIZE])
def test_no_size_or_the_right_one_is_no_matter(
    tmp_path: Path, size: tuple[int, int] | None, caplog: pytest.LogCaptureFixture
) -> None:
    write_coco(tmp_path, [SOUND], size=size)
    box = [20.0, 16.0, 60.0, 48.0]
    assert boxes_and_areas(opened(tmp_path)) == ([box], [box], [1280.0])
    assert not caplog.records


def turned_image(folder: Path, orientation: int) -> bytes:
    """An image of 64 x 96 as stored, its tag turning it, with a white rectangle where SOUND's box is."""
    stored = np.zeros((*SIZE, 3), np.uint8)
    stored[16:48, 20:60] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(folder / "turned.jpg", exif=exif, quality=100)
    return (folder / "turned.jpg").read_bytes()


@pytest.mark.parametrize(
    "orientation",
    [
        pytest.param(n, marks=pytest.mark.case(COCO, f"sizes as stored, EXIF orientation {n}", "boxes turn with it"))
        for n in (5, 6, 7, 8)
    ],
)
def test_boxes_turn_with_their_image(tmp_path: Path, orientation: int, caplog: pytest.LogCaptureFixture) -> None:
    write_coco(tmp_path, [SOUND], image=turned_image(tmp_path, orientation))
    dataset = opened(tmp_path)
    image = read_image(tmp_path / "images" / "0.jpg")
    rows, columns = np.nonzero(image[..., 0] > 128)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert boxes_and_areas(dataset)[:2] == ([seen], [seen])
    assert "says 96 x 64 for 0.jpg, which is 64 x 96: the boxes of 1 such images are turned as its" in caplog.text


@pytest.mark.case(COCO, "sizes as stored, boxes of the upright image", "boxes are kept, said once")
def test_boxes_that_fit_the_upright_image_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_coco(tmp_path, [SOUND | {"bbox": [10, 20, 30, 70], "area": 2100}], image=turned_image(tmp_path, 6))
    assert boxes_and_areas(opened(tmp_path))[1:] == ([[10, 20, 40, 90]], [2100])
    assert "the boxes of 1 such images are kept" in caplog.text


@pytest.mark.parametrize(
    ("area", "taken"),
    [
        pytest.param(area, taken, id=slug(case), marks=pytest.mark.case(COCO, case, outcome))
        for case, area, taken, outcome in (
            ("an area as large as the image", 6144, 1280, "the box's, said once"),
            ("an area of 0", 0, 1280, "the box's, said once"),
            ("a negative area", -3, 1280, "the box's, said once"),
            ("an area rounded up by a pixel a side", 41 * 33, 41 * 33, "kept"),
            ("an area of half the box", 640, 640, "kept"),
            ("no area", None, 1280, "the box's"),
        )
    ],
)
def test_areas(tmp_path: Path, area: float | None, taken: float, caplog: pytest.LogCaptureFixture) -> None:
    write_coco(tmp_path, [SOUND, SOUND | {"area": area}, SOUND | {"area": area}])
    assert boxes_and_areas(opened(tmp_path))[2] == [1280, taken, taken]
    line = f"annotations[1]: area {area}, but its box has 1280 square pixels; 2 such areas are taken from the boxes"
    assert (line in caplog.text) == bool(caplog.records) == (area is not None and area != taken)


UNUSABLE = (
    ("a negative width", [80, 10, -20, 30], "annotations[1]: width -20 and height 30: the object has no area"),
    ("no height", [30, 10, 20, 0], "annotations[1]: width 20 and height 0: the object has no area"),
    ("a box right of its image", [96, 5, 20, 20], "annotations[1]: the box from 96 5 to 116 25 lies beside its image"),
    ("a box above its image", [5, -30, 20, 30], "annotations[1]: the box from 5 -30 to 25 0 lies beside its image"),
)


@pytest.mark.parametrize(
    ("box", "line"),
    [
        pytest.param(box, line, id=slug(case), marks=pytest.mark.case(COCO, case, "dropped everywhere and named"))
        for case, box, line in UNUSABLE
    ],
)
def test_boxes_that_are_none(tmp_path: Path, box: list[float], line: str) -> None:
    write_coco(tmp_path, [SOUND, SOUND | {"bbox": box}, SOUND | {"bbox": box, "iscrowd": 1}])
    dataset = opened(tmp_path)
    assert [len(part) for part in boxes_and_areas(dataset)] == [1, 1, 1]
    first, second = (problem.text for problem in dataset.index.problems)
    assert line in first and "annotations[2]" in second


@pytest.mark.slow
@pytest.mark.case(COCO, "boxes far beyond their image, text ids", "evaluated; clipped labels; results have these ids")
def test_boxes_far_beyond_their_image(tmp_path: Path, weights: Path) -> None:
    far: list[list[float]] = [
        [80, 10, 5000, 5000],
        [90, 10, 1e9, 1e9],
        [-1e7, -1e7, 1e7 + 5, 1e7 + 30],
        [95.999, 0, 40, 1],
    ]
    rows = [SOUND | {"image_id": "a", "bbox": box, "area": box[2] * box[3]} for box in far]
    rows += [SOUND | {"image_id": "a", "bbox": box} for _, box, _ in UNUSABLE]
    data = write_coco(tmp_path, rows, size=None, image_id="a")
    data.write_text(data.read_text().replace("[thing]", "[thing, b, c]"), encoding="utf-8")
    flags = ("--weights", weights, "--data", data, "--img", 64, "--workers", 0, "--save-json", "--conf", 0.0001)
    outcome = succeeds("val", *flags, folder=tmp_path)
    folder = tmp_path / "runs" / "val" / "exp"
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["objects"] == 4
    assert (folder / "missed_objects.jpg").is_file()
    assert len((folder / "problems.txt").read_text(encoding="utf-8").splitlines()) == len(UNUSABLE)
    assert "ann.json: annotations[0]: the box reaches 4984 pixels beyond its image; 4 such" in outcome.output
    (results,) = folder.glob("*_predictions.json")
    assert {row["image_id"] for row in json.loads(results.read_text(encoding="utf-8"))} == {"a"}


@pytest.mark.parametrize(
    ("image_id", "of_rows"),
    [
        pytest.param(image_id, of_rows, id=slug(case), marks=pytest.mark.case(COCO, case, "read"))
        for case, image_id, of_rows in (
            ("ids of images are texts", "frame 7", "frame 7"),
            ("an id as text and as number", "7", 7),
            ("ids written 7.0", 7.0, 7),
            ("ids beyond 64 bits", 10**30, 10**30),
        )
    ],
)
def test_ids_of_images(tmp_path: Path, image_id: object, of_rows: object) -> None:
    write_coco(tmp_path, [SOUND | {"image_id": of_rows}], image_id=image_id)
    dataset = opened(tmp_path)
    assert dataset.annotations is not None and dataset.annotations.image_ids == (image_id,)
    assert len(dataset.source_labels(0)) == 1


@pytest.mark.case(COCO, "a number of a thousand digits", "exit 1: “bbox”")
def test_a_number_that_no_float_holds(tmp_path: Path) -> None:
    write_coco(tmp_path, [SOUND | {"bbox": [1, 2, 10**1000, 4]}])
    with pytest.raises(UserError, match=r"annotations\[0\]: bbox"):
        opened(tmp_path)


@pytest.mark.slow
@pytest.mark.case(NAMES, "in another order than the model's", "the first that differs is named")
def test_names_in_another_order(tmp_path: Path, weights: Path, data: Path) -> None:
    own = list(load_model(weights).names)
    text = data.read_text(encoding="utf-8").partition("names:")[0]
    for name, names in (("same", own), ("other", [own[0], *own[:0:-1]]), ("strange", ["x", "y", "z"])):
        (tmp_path / f"{name}.yaml").write_text(f"{text}names: {json.dumps(names)}\n", encoding="utf-8")
    flags = ("--weights", weights, "--img", 64, "--workers", 0, "--batch", 2)
    outcome = succeeds("val", *flags, "--data", "other.yaml", folder=tmp_path)
    line = f"{weights}: class 1 is {own[1]!r}, but in other.yaml it is {own[2]!r}; 2 of 3 names differ, and classes are"
    assert outcome.output.count(f"WARNING: {line} compared by number\n") == 1
    assert "differ" not in succeeds("val", *flags, "--data", "same.yaml", folder=tmp_path).output
    # In training classes go by name; where no name is the same, by number.
    learn = (*flags, "--epochs", 1, "--noplots", "--noval")
    assert "by number" not in succeeds("train", *learn, "--data", "other.yaml", folder=tmp_path).output
    outcome = succeeds("train", *learn, "--data", "strange.yaml", folder=tmp_path)
    line = f"{weights}: its classes have other names (class 0 is {own[0]!r}, here 'x'): they are taken by number"
    assert outcome.output.count(f"WARNING: {line}\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("script", ["val", "train", "utils.dataset.inspect.__main__"])
@pytest.mark.case(NAMES, "one twice in a list", "said by val.py, train.py and the inspection")
def test_a_name_that_repeats(tmp_path: Path, weights: Path, data: Path, script: str) -> None:
    (tmp_path / "d.yaml").write_text(data.read_text(encoding="utf-8").replace("2: blue", "2: Red"), encoding="utf-8")
    flags: tuple[object, ...] = ("--weights", weights, "--workers", 0, "--batch", 2)
    flags = {"val": flags, "train": (*flags, "--epochs", 1, "--noplots", "--noval")}.get(script, ())
    outcome = succeeds(script, "--data", "d.yaml", "--img", 64, *flags, folder=tmp_path)
    assert outcome.output.count("WARNING: d.yaml: names: the classes 0 and 2 are both called 'Red'\n") == 1


def test_names_that_differ_are_no_repetition(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_coco(tmp_path, [SOUND])
    data.write_text(data.read_text().replace("[thing]", "[thing, thing 2]"), encoding="utf-8")
    assert read_dataset_yaml(data).names == ("thing", "thing 2")
    assert not caplog.records


def sixteen_bit(highest: int) -> np.ndarray:
    return np.linspace(0, highest, 24 * 32).reshape(24, 32).astype(np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.case(IMAGES, "16 bits in memory, of PIL and numpy", "read as from a file")
def test_sixteen_bits_in_memory(tmp_path: Path, suffix: str) -> None:
    grey = sixteen_bit(65535)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(grey).save(path)
    with Image.open(path) as image:
        assert image.mode.startswith("I")
        forms = (image.copy(), Image.fromarray(grey.astype(np.int32)), grey, grey.astype(">u2").astype(np.uint16))
    for read in as_images(forms):
        np.testing.assert_array_equal(read.pixels, read_image(path))
    fractions = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    (read,) = as_images(Image.fromarray(fractions))
    np.testing.assert_array_equal(read.pixels[..., 0], (fractions * 255).round())


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.case(IMAGES, "12 bits stored in 16", "said once, of the first")
def test_upper_bits_that_are_never_used(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    for name, highest in (("black", 0), ("full", 65535), ("first", 4095), ("second", 255)):
        Image.fromarray(sixteen_bit(highest)).save(tmp_path / f"{name}.{suffix}")
        read_image(tmp_path / f"{name}.{suffix}")
    Image.fromarray((sixteen_bit(255) // 16).astype(np.uint8)).save(tmp_path / f"dark.{suffix}")
    read_image(tmp_path / f"dark.{suffix}")
    as_images(sixteen_bit(100))
    (record,) = caplog.records
    line = f"first.{suffix}: a 16-bit image whose highest value is 4095: its upper 4 bits are never used"
    assert line in record.getMessage()


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_pillow_reads_what_opencv_was_built_without(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a.{'avif' if kind == 'AVIF' else 'jp2'}"
    Image.fromarray(np.tile(sixteen_bit(255).astype(np.uint8)[..., None], 3)).save(path, kind)
    assert image_size(path) == (24, 32)
    by_opencv = read_image(path)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    np.testing.assert_allclose(read_image(path).astype(int), by_opencv, atol=2)


def test_what_is_sound_stays_to_the_last_bit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    boxes = np.concatenate((rng.uniform(0, 40, (50, 2)), rng.uniform(0.01, 24, (50, 2))), axis=1)
    areas = boxes[:, 2:].prod(axis=1) * rng.uniform(0.01, 1, 50)
    rows = [SOUND | {"bbox": box, "area": area} for box, area in zip(boxes.tolist(), areas.tolist(), strict=True)]
    write_coco(tmp_path, rows)
    _, kept, kept_areas = boxes_and_areas(opened(tmp_path))
    assert kept == [[x, y, x + w, y + h] for x, y, w, h in boxes.tolist()] and kept_areas == areas.tolist()
    assert not caplog.records

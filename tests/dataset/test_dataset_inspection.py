"""What an inspection finds: planted faults, and figures of real sets worked out another way."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.yolo import load_architecture
from tests.dataset.images import write_image, write_labels
from tests.shared_data import SHARED, needs_shared
from utils.config.dataset_yaml import DatasetSpec, read_dataset_yaml
from utils.dataset.demo_scenes import draw_scene
from utils.dataset.inspect import Inspection, InspectionSettings, inspect_dataset


def inspected(spec: DatasetSpec, imgsz: int = 640) -> Inspection:
    return inspect_dataset(spec, InspectionSettings(imgsz), progress=False)


def faulty_set(root: Path) -> DatasetSpec:
    """Ten images to learn from, two to evaluate on; one of each kind of fault."""

    scenes = [draw_scene(np.random.default_rng(seed), (128, 256))[0] for seed in range(11)]
    for i in range(10):
        write_image(root / "images" / "train" / f"{i}.png", scenes[i])
        write_labels(root / "labels" / "train" / f"{i}.txt", "0 0.5 0.5 0.02 0.04", "0 0.2 0.2 0.4 0.4")
    write_labels(
        root / "labels" / "train" / "0.txt",
        "1 0.5 0.5 0.1 0.1",
        "1 0.5 0.5 0.1 0.1",  # repeated
        "0 1.5 0.5 0.1 0.1",  # out of range
        "7 0.5 0.5 0.1 0.1",  # no such class
    )
    write_labels(root / "labels" / "train" / "lost.txt", "0 0.5 0.5 0.1 0.1")
    (root / "labels" / "train" / "9.txt").unlink()
    (root / "labels" / "train" / "8.txt").unlink()
    (root / "images" / "train" / "7.png").write_bytes(b"x")
    write_image(root / "images" / "val" / "a.jpg", scenes[3])  # learned too
    write_image(root / "images" / "val" / "b.jpg", scenes[10])
    for name in "ab":
        write_labels(root / "labels" / "val" / f"{name}.txt", "0 0.5 0.5 0.1 0.1")
    file = root / "set.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [person, dog, never]\n")
    return read_dataset_yaml(file)


def test_an_annotation_that_is_left_out_is_no_file(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_image(tmp_path / "images" / part / f"{part}.png", np.zeros((96, 160, 3), np.uint8))
    content = {
        "images": [{"id": 1, "file_name": "train.png", "width": 160, "height": 96}],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "kite"}],
        "annotations": [
            {"id": kind, "image_id": 1, "category_id": kind, "bbox": [9, 9, 30, 20], "area": 600, "iscrowd": 0}
            for kind in (1, 2)
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    file = tmp_path / "set.yaml"
    file.write_text("train: images/train\nval: images/val\nannotations: {train: a.json}\nnames: [person]\n")
    found = inspected(read_dataset_yaml(file))
    train = found.parts["train"]
    assert (len(train.index.rows), train.broken_files, train.bad_rows) == (1, 0, 1)
    assert "train: 1 label will be left out." in found.advice


def test_planted_faults_are_found(tmp_path: Path) -> None:
    found = inspected(faulty_set(tmp_path))
    train = found.parts["train"]
    assert (train.broken_files, train.bad_rows, train.out_of_range) == (1, 2, 1)
    assert (train.index.duplicates, train.index.unlabelled) == (1, 2)
    assert [path.name for path in train.orphans] == ["lost.txt"]
    assert [(train.index.paths[a].name, found.parts["val"].index.paths[b].name) for a, b, _ in found.leak] == [
        ("3.png", "a.jpg")
    ]
    # Six labelled images with 5 x 5 and 102 x 51 pixels, which at 640 (2.5 times) are 12.8 x 12.8 and 256 x 128.
    assert train.class_counts().tolist() == [12, 1, 0]
    assert train.share_below(12) == 0 and train.share_below(13) == pytest.approx(6 / 13)
    text = "\n".join(found.advice)
    for sentence in (
        "train: 1 file cannot be read and will be left out.",
        "train: 2 labels will be left out, 1 of them for reaching out of the image.",
        "1 label file without an image, such as lost.txt",
        "train: 2 images (22%) without a label file count as background",
        "1 of 2 val images (50.0%) look the same as a train image",
        "train: 1 label row repeated",
        "46% of your objects are under 16 px at 640, two cells of the P3 grid: train at 960, or use a model for small "
        "objects",
        "1 class without an object in train: never.",
        "2 classes with fewer than 100 objects in train: dog 1, person 12.",
    ):
        assert sentence in text


def test_large_images_of_small_objects_are_to_be_cut(tmp_path: Path) -> None:

    for part in ("train", "val"):
        write_image(tmp_path / "images" / part / f"{part}.png", np.zeros((1400, 1400, 3), np.uint8))
        write_labels(tmp_path / "labels" / part / f"{part}.txt", "0 0.5 0.5 0.01 0.01")
    (tmp_path / "set.yaml").write_text("train: images/train\nval: images/val\nnames: [a]\n")
    advice = inspected(read_dataset_yaml(tmp_path / "set.yaml")).advice
    assert any("100% of your objects are under 16 px" in line and "(--tile 640)" in line for line in advice)
    assert any("AP_S on val rests on 1 object:" in line for line in advice)


@pytest.mark.parametrize("architecture", ["yolov5n-u.yaml", "open.yaml"])
def test_without_anchor_sizes_there_is_no_fit_and_the_advice_says_so(tmp_path: Path, architecture: str) -> None:
    (tmp_path / "open.yaml").write_text("nc: 1\nanchors: 3\nbackbone: []\nhead: []\n")
    name = str(tmp_path / architecture) if architecture == "open.yaml" else architecture
    settings = InspectionSettings(architecture=name, decode_images=False)
    found = inspect_dataset(faulty_set(tmp_path), settings, progress=False)
    assert [part.fit for part in found.parts.values()] == [None, None]
    said = [line for line in found.advice if "anchors" in line]
    assert said == [f"{name} has no anchors of given sizes, so that there is no fit of them to show."]
    assert any("objects are under 16 px" in line for line in found.advice)


def real_set(folder: Path, name: str, parts: dict[str, str], names: int) -> DatasetSpec:
    """A YAML over a reference data set, whose folder stays without caches."""
    (folder / "images").symlink_to(SHARED / "data" / name / "images")
    (folder / "labels").mkdir()
    for part in set(parts.values()):
        target = folder / "labels" / part
        target.mkdir()
        for file in (SHARED / "data" / name / "labels" / part).glob("*.txt"):
            (target / file.name).symlink_to(file)
    lines = [f"{key}: images/{part}" for key, part in parts.items()]
    (folder / f"{name}.yaml").write_text("\n".join([*lines, f"names: {[f'c{i}' for i in range(names)]}"]))
    return read_dataset_yaml(folder / f"{name}.yaml")


@needs_shared
@pytest.mark.slow
def test_bccd(tmp_path: Path) -> None:
    found = inspected(real_set(tmp_path, "bccd", {"train": "train", "val": "val"}, 3), imgsz=160)
    train, val = found.parts["train"], found.parts["val"]
    # From the label files with wc and awk; every image has 640 x 480 pixels, a quarter of which is 160.
    assert (len(train.index), len(train.index.rows), train.class_counts().tolist()) == (205, 2804, [2381, 214, 209])
    assert (len(val.index), len(val.index.rows), val.class_counts().tolist()) == (87, 1137, [967, 87, 83])
    assert [round(train.share_below(side), 4) for side in (8, 16, 32)] == [0.0082, 0.0749, 0.9223]
    assert (int(train.small_on_disk().sum()), int(val.small_on_disk().sum())) == (23, 9)
    assert (train.problems, train.orphans, train.index.duplicates, train.index.unlabelled) == ((), (), 0, 0)
    assert found.leak == ()


@needs_shared
@pytest.mark.slow
def test_coco128(tmp_path: Path) -> None:
    found = inspected(real_set(tmp_path, "coco128", {"train": "train2017", "val": "train2017"}, 80))
    part = found.parts["train"]
    assert (len(part.index), len(part.index.rows), part.index.unlabelled) == (128, 929, 2)
    assert [path.stem for path in part.orphans] == ["000000000656", "000000000659"]
    assert int((part.class_counts() > 0).sum()) == 71
    assert int(part.objects_per_image.max()) == 42
    assert found.same_images
    anchors = load_architecture("yolov5s.yaml").anchors
    assert not isinstance(anchors, int)
    pairs = [level[i : i + 2] for level in anchors for i in range(0, len(level), 2)]
    small, sides, reached = 0, [], 0
    for file in (tmp_path / "images" / "train2017").glob("*.jpg"):
        label = tmp_path / "labels" / "train2017" / f"{file.stem}.txt"
        width, height = Image.open(file).size
        scale = 640 / max(width, height)
        for row in label.read_text().splitlines() if label.exists() else ():
            w, h = float(row.split()[3]) * width, float(row.split()[4]) * height
            small += w * h < 32 * 32
            sides.append(math.sqrt(w * h) * scale)
            ratios = [max(w * scale / a, a / (w * scale), h * scale / b, b / (h * scale)) for a, b in pairs]
            reached += min(ratios) < 4
    assert int(part.small_on_disk().sum()) == small == 337
    for border in (8, 16, 32):
        assert part.share_below(border) == pytest.approx(sum(side < border for side in sides) / 929)
    assert part.fit is not None
    assert part.fit.best_possible_recall == pytest.approx(reached / 929)

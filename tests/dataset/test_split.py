"""A folder split: what is read, what is written, and that no part shows what another one shows."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.dataset.images import write_image, write_labels
from tests.end_to_end.scripts import run_script
from tests.robustness.running import Outcome, run
from tests.shared_data import SHARED, needs_shared
from tests.small_dataset import write_small_dataset
from utils.config.dataset_yaml import read_dataset_yaml
from utils.dataset.demo_scenes import draw_scene
from utils.dataset.detection_dataset import open_part
from utils.dataset.inspect import InspectionSettings, inspect_dataset
from utils.dataset.split import Split, SplitConfig, split_dataset
from utils.dataset.split.__main__ import main
from utils.user_error import UserError

PARTS = ("train", "val", "test")
COMMAND = "utils.dataset.split.__main__"


def scene_folder(folder: Path, count: int = 10) -> Path:
    """Different images with labels beside them, each stored twice, once smaller; one without labels."""
    for number in range(count):
        image = draw_scene(np.random.default_rng(number), (96, 160))[0]
        write_image(folder / f"{number}.png", image)
        smaller = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
        write_image(folder / "again" / f"x{number}.jpg", smaller)
        for name in (str(number), f"again/x{number}"):
            write_labels(folder / f"{name}.txt", f"{number % 2} 0.5 0.5 0.2 0.2")
    (folder / "0.txt").unlink()
    (folder / "classes.txt").write_text("car\nboat\n")
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene_folder(tmp_path_factory.mktemp("split") / "pictures")


def split_of(source: Path, **settings: object) -> Split:
    return split_dataset(SplitConfig(source=str(source), **settings), progress=False)  # type: ignore[arg-type]


def files_under(folder: Path) -> dict[str, tuple[int, int, int]]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(f): (f.stat().st_size, f.stat().st_mtime_ns, f.stat().st_ino) for f in files}


def finished(outcome: Outcome) -> list[str]:
    assert outcome.code == 0, outcome.errors
    return outcome.output.splitlines()


def test_lists_work_from_anywhere_and_the_originals_stay(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_under(scenes)
    lines = finished(run(COMMAND, "pictures", folder=scenes.parent))
    assert files_under(scenes) == before
    made = scenes.parent / "pictures-split"
    assert {file.name for file in made.iterdir()} == {
        *(f"{part}.txt" for part in PARTS),
        *("data.yaml", "groups.csv", "report.html"),
    }
    assert "1 image without a label file: kept, as background." in lines
    assert "20 images in 10 groups, 10 of several images (joined by: look alike 10)" in lines
    assert lines[-3:] == [
        f"page: {made / 'report.html'}",
        f"dataset YAML: {made / 'data.yaml'}",
        f"next: python train.py --weights yolov5n.pt --data {made / 'data.yaml'}",
    ]
    monkeypatch.chdir("/")
    spec = read_dataset_yaml(made / "data.yaml")
    assert spec.names == ("car", "boat")
    parts = {part: open_part(spec, part).index for part in PARTS}
    assert [len(index) for index in parts.values()] == [16, 2, 2]
    found = [str(path) for index in parts.values() for path in index.paths]
    assert sorted(found) == sorted(file for file in before if not file.endswith(".txt"))
    assert sum(len(index.rows) for index in parts.values()) == 19
    with (made / "groups.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == 20 and {row["joined by"] for row in rows} == {"look alike"}
    assert len({(row["group"], row["part"]) for row in rows}) == len({row["group"] for row in rows}) == 10
    for cache in made.glob("*.npz"):
        cache.unlink()


def test_what_was_written_is_not_written_over(scenes: Path, tmp_path: Path) -> None:
    finished(run(COMMAND, scenes, "--output", tmp_path / "a" / "b", folder=tmp_path))
    before = files_under(tmp_path)
    outcome = run(COMMAND, scenes, "--output", "a/b", folder=tmp_path)
    assert (outcome.code, outcome.error_lines) == (
        1,
        ["error: --output a/b: is there already, and nothing is written over"],
    )
    assert files_under(tmp_path) == before


def test_without_an_output_runs_are_numbered(tmp_path: Path) -> None:
    yaml = write_small_dataset(tmp_path / "set")
    moved = yaml.rename(tmp_path / "my.yaml")
    moved.write_text(f"{moved.read_text()}annotations: a.json\ntile: 64\n")
    for name in ("my-split", "my-split2"):
        lines = finished(run(COMMAND, moved.name, "--shares", "3", "1", folder=tmp_path))
        assert f"WARNING: {moved}: annotations: belong to the parts as they were; the new YAML has none" in lines
        assert f"WARNING: {moved}: tile: is not taken over; train with --tile 64" in lines
        assert lines[-2] == f"dataset YAML: {tmp_path / name / 'data.yaml'}"
    first, second = (read_dataset_yaml(tmp_path / name / "data.yaml") for name in ("my-split", "my-split2"))
    assert (first.names, first.test) == (("red", "green", "blue"), ())
    for part in ("train", "val"):
        texts = {(tmp_path / name / f"{part}.txt").read_text() for name in ("my-split", "my-split2")}
        assert len(texts) == 1, "the same seed, the same split"
    assert len(open_part(second, "train").index) == 24


def test_copies_in_folders(tmp_path: Path) -> None:
    scenes = scene_folder(tmp_path / "pictures")
    write_image(scenes / "more" / "1.png", draw_scene(np.random.default_rng(99), (96, 160))[0])
    write_labels(scenes / "more" / "1.txt", "1 0.5 0.5 0.2 0.2")
    finished(run(COMMAND, scenes, "--folders", "--output", "out", folder=tmp_path))
    images = {file.name: file for file in (tmp_path / "out" / "images").rglob("*.*")}
    assert set(images) == {*(f"{n}.png" for n in range(10)), *(f"x{n}.jpg" for n in range(10)), "more_1.png"}
    assert images["more_1.png"].samefile(scenes / "more" / "1.png"), "a link where the disk permits"
    spec = read_dataset_yaml(tmp_path / "out" / "data.yaml")
    indices = [open_part(spec, part).index for part in PARTS]
    assert sum(len(index) for index in indices) == 21 and sum(len(index.rows) for index in indices) == 20
    label = next((tmp_path / "out" / "labels").rglob("more_1.txt"))
    assert not label.samefile(scenes / "more" / "1.txt") and label.read_text() == "1 0.5 0.5 0.2 0.2\n"


@pytest.mark.parametrize(
    ("files", "settings", "names", "names_from"),
    [
        ({}, {}, ("0", "1"), ""),
        ({"classes.txt": "a\nb\n\n"}, {}, ("a", "b"), "classes.txt"),
        ({"data.yaml": "names: [c, d, e]\n", "classes.txt": "a\nb\n"}, {}, ("c", "d", "e"), "data.yaml"),
        ({"classes.txt": "a\nb\n"}, {"names": ("x", "y")}, ("x", "y"), "--names"),
    ],
)
def test_where_names_come_from(
    files: dict[str, str], settings: dict[str, tuple[str, ...]], names: tuple[str, ...], names_from: str, tmp_path: Path
) -> None:
    folder = scene_folder(tmp_path / "p", 4)
    (folder / "classes.txt").unlink()
    for name, text in files.items():
        (folder / name).write_text(text)
    split = split_of(folder, **settings)
    assert (split.names, split.names_from) == (names, names_from)
    assert any("called by their numbers" in line for line in split.advice()) == (not names_from)


def test_names_that_disagree_are_asked_for(tmp_path: Path) -> None:
    folder = scene_folder(tmp_path / "p", 2)
    (folder / "again" / "classes.txt").write_text("boat\ncar\n")
    with pytest.raises(UserError, match=r"classes\.txt name other classes; say the right ones with --names"):
        split_of(folder)


def test_pascal_voc_names_its_classes(tmp_path: Path) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>40</ymax></bndbox>"
    for number, name in enumerate(("boat", "car", "boat")):
        image = draw_scene(np.random.default_rng(number), (96, 160))[0]
        write_image(tmp_path / "VOC" / "JPEGImages" / f"{number}.jpg", image)
        xml = f"<annotation><object><name>{name}</name>{box}</object></annotation>"
        write_labels(tmp_path / "VOC" / "Annotations" / f"{number}.xml", xml)
    finished(run(COMMAND, "VOC", "--shares", "2", "1", "--folders", folder=tmp_path))
    spec = read_dataset_yaml(tmp_path / "VOC-split" / "data.yaml")
    assert spec.names == ("boat", "car")
    assert [len(open_part(spec, part).index.rows) for part in ("train", "val")] == [2, 1]


def test_what_its_owner_is_told(scenes: Path) -> None:
    # All copies but that of the image 0 are one group, with their originals.
    advice = split_of(scenes, groups="(x)[1-9]", shares=(0.5, 0.5)).advice()
    for line in (
        "The largest group has 18 of 20 images (90%), more than the share of train and val; it is in train.",
        "val has 10.0% of the images where 50.0% was asked for: no group is cut.",
        "--groups '(x)[1-9]' is found in the names of 9 of 20 images; the others are grouped without it.",
        "1 class without an object in val: boat (1 group).",
    ):
        assert line in advice, advice


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ((), 2, "name the folder of images and labels, or a dataset YAML"),
        (("nowhere",), 1, "nowhere: neither a folder nor a dataset YAML"),
        (("empty",), 1, "empty: no images found"),
        (("pictures", "--shares", "1"), 2, "--shares 1: train and val need one each"),
        (("pictures", "--shares", "1", "0"), 2, "--shares 1 0: train and val need one each"),
        (("pictures", "--shares", "0.8", "-0.2"), 2, "must be at least 0"),
        (("pictures", "--share", "a"), 2, "--shares"),
        (("pictures", "--groups", "(a"), 2, "--groups '(a': not a regular expression"),
        (("pictures", "--groups", "a"), 2, "--groups 'a': has 0 groups"),
        (("pictures", "--grups", "a"), 2, "unknown flag --grups (did you mean --groups?)"),
        (
            ("pictures", "--groups", r"(\.)"),
            1,
            "20 images in 1 group (joined by: your pattern 19), too few for 3 parts; another --groups joins fewer",
        ),
        (("pictures", "--folders", "--output", "pictures/split"), 2, "copies of its images go elsewhere"),
        (("unlabelled",), 1, "unlabelled: none of 1 image has a label file (for "),
        (("coco",), 1, "`python -m utils.dataset.converters coco "),
    ],
)
def test_a_mistake_is_one_line(scenes: Path, words: tuple[str, ...], code: int, line: str) -> None:
    (scenes.parent / "empty").mkdir(exist_ok=True)
    for name in ("unlabelled", "coco"):
        write_image(scenes.parent / name / "a.png", np.zeros((40, 40, 3), np.uint8))
    (scenes.parent / "coco" / "a.json").write_text("{}")
    before = files_under(scenes.parent)
    outcome = run(COMMAND, *words, folder=scenes.parent)
    assert outcome.code == code, outcome.errors
    assert len(outcome.error_lines) == 1 and line in outcome.error_lines[0], outcome.errors
    assert files_under(scenes.parent) == before and not list(scenes.parent.glob("*-split/*.tmp"))


def test_a_yaml_of_the_program_is_split_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # train.py takes such a name, and tells it in the command that splits the data set anew.
    data = write_small_dataset(tmp_path / "program" / "data")
    monkeypatch.setattr("utils.config.dataset_file.REPOSITORY", tmp_path / "program")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("sys.argv", ["split", data.name, "--shares", "0.5", "0.5"])
    main()
    assert read_dataset_yaml(tmp_path / "here" / "small-split" / "data.yaml").names


@pytest.mark.parametrize("by_yaml", [False, True])
def test_a_coco_file_is_converted_by_the_command_that_is_told(tmp_path: Path, by_yaml: bool) -> None:
    for number in range(4):
        image = draw_scene(np.random.default_rng(number), (96, 160))[0]
        write_image(tmp_path / "p" / "my images" / "train" / f"{number}.png", image)
    content = {
        "images": [{"id": k, "file_name": f"{k}.png", "width": 160, "height": 96} for k in range(4)],
        "categories": [{"id": 1, "name": "boat"}],
        "annotations": [{"id": k, "image_id": k, "category_id": 1, "bbox": [9, 9, 30, 20]} for k in range(4)],
    }
    (tmp_path / "p" / "a.json").write_text(json.dumps(content))
    source = tmp_path / "set.yaml" if by_yaml else tmp_path / "p"
    if by_yaml:
        parts = "train: p/my images\nval: p/my images\nannotations: {train: p/a.json, val: p/a.json}"
        source.write_text(f"{parts}\nnames: [car, boat]\n")
    with pytest.raises(UserError, match=r"`python -m .*` makes label files") as told:
        split_of(source)
    words = shlex.split(str(told.value).split("`")[1])[3:]
    finished(run("utils.dataset.converters.__main__", *words, folder=tmp_path))
    split = split_of(source, shares=(0.5, 0.5))
    assert split.index.unlabelled == 0 and set(split.index.rows[:, 0]) == {float(by_yaml)}


@pytest.mark.parametrize(
    ("count", "error"),
    [
        (1, "1 image in 1 group, too few for 3 parts"),
        (2, "2 images in 1 group (joined by: the same file 1), too few for 3 parts"),
    ],
)
def test_no_limit_is_named_that_would_change_nothing(tmp_path: Path, count: int, error: str) -> None:
    for number in range(count):
        write_image(tmp_path / f"{number}.png", np.zeros((40, 40, 3), np.uint8))
        write_labels(tmp_path / f"{number}.txt", "0 0.5 0.5 0.2 0.2")
    with pytest.raises(UserError, match=f"{re.escape(error)}$"):
        split_of(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="names of other bytes")
def test_names_that_no_list_can_hold(tmp_path: Path) -> None:
    folder = scene_folder(tmp_path / "p", 4)
    (folder / "again" / "x1.jpg").rename(folder / "again" / "x\n1.jpg")
    split = split_of(folder)
    assert (split.part_of == -1).sum() == 1 and "cannot stand in a list" in split.problems[-1].text
    assert (split_of(folder, folders=True).part_of == -1).sum() == 0


def real_folder(folder: Path) -> Path:
    """A part of COCO128 with labels beside the images, half of them again as another program would store them."""
    source = SHARED / "data" / "coco128"
    for number, file in enumerate(sorted((source / "images" / "train2017").glob("*.jpg"))[:24]):
        labels = source / "labels" / "train2017" / f"{file.stem}.txt"
        image = cv2.resize(np.asarray(cv2.imread(str(file))), (160, 120), interpolation=cv2.INTER_AREA)
        for name in (file.stem, f"{number}-again") if number % 2 else (file.stem,):
            quality = 60 if name.endswith("again") else 95
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
            (folder / f"{name}.txt").write_text(labels.read_text() if labels.exists() else "")
    return folder


@needs_shared
@pytest.mark.slow
def test_real_images_from_a_folder_to_training(tmp_path: Path) -> None:
    real_folder(tmp_path / "pictures")
    said = run_script("utils/dataset/split/__main__.py", "pictures", folder=tmp_path)
    yaml = tmp_path / "pictures-split" / "data.yaml"
    found = inspect_dataset(read_dataset_yaml(yaml), InspectionSettings(imgsz=160), progress=False)
    assert found.leak == () and found.parts["train"].near_copies != ()
    assert sum(len(part.index) for part in found.parts.values()) == 36
    words = said.stdout.splitlines()[-1].removeprefix("next: python ").split()
    assert words == ["train.py", "--weights", "yolov5n.pt", "--data", str(yaml)]
    tiny = ("--weights", "", "--cfg", "yolov5n.yaml", "--img", 64, "--epochs", 1, "--workers", 0, "--noplots")
    run_script("train.py", "--data", yaml, *tiny, folder=tmp_path)
    assert (tmp_path / "runs" / "train" / "exp" / "weights" / "best.pt").is_file()

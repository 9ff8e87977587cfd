"""Data sets and recipes as labelling tools, exports and habits leave them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from tests.dataset.images import write_image
from tests.robustness.running import Outcome, run, succeeds
from tests.robustness.test_labels import GOOD
from utils.config.classification_recipe import read_recipe
from utils.config.dataset_yaml import read_dataset_yaml
from utils.config.hyperparameters import HYPS, Hyperparameters, read_hyperparameters
from utils.dataset.detection_dataset import open_part
from utils.user_error import UserError

AREA = "Data sets as they come"


def a_set(folder: Path, *images: str, yaml: str = "train: images\nval: images\nnames: [a, b, c]\n") -> Path:
    """Grey images without labels, and the YAML beside them."""
    for image in images or ("images/0.png", "images/1.png"):
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / image, np.full((48, 64, 3), 90, np.uint8))
    (folder / "d.yaml").write_text(yaml, encoding="utf-8")
    return folder / "d.yaml"


def text(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.case("Hyperparameters", "keys left out", "“h.yaml: what it leaves out takes its default: mixup 0.0”")
def test_defaults_of_a_hyp_file_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (HYPS / "hyp.scratch-low.yaml").read_text(encoding="utf-8")
    text(tmp_path / "h.yaml", "\n".join(line for line in whole.splitlines() if not line.startswith("mixup:")))
    assert read_hyperparameters(tmp_path / "h.yaml") == Hyperparameters()
    assert warnings(caplog) == [f"{tmp_path / 'h.yaml'}: what it leaves out takes its default: mixup 0.0"]


def test_files_that_are_whole_need_no_word(caplog: pytest.LogCaptureFixture) -> None:
    for file in HYPS.glob("*.yaml"):
        (read_recipe if "classify" in file.name else read_hyperparameters)(file)
    assert warnings(caplog) == []


@pytest.mark.case("Hyperparameters", "keys left out of a recipe", "“what it leaves out takes its default: ...”")
def test_defaults_of_a_recipe_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (HYPS / "hyp.classify.yaml").read_text(encoding="utf-8")
    text(tmp_path / "r.yaml", "\n".join(line for line in whole.splitlines() if not line.startswith("fliplr:")))
    read_recipe(tmp_path / "r.yaml")
    assert warnings(caplog) == [f"{tmp_path / 'r.yaml'}: what it leaves out takes its default: fliplr 0.5"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        pytest.param(
            wrong, right, marks=pytest.mark.case("Dataset YAML", f"{wrong}: for {right}:", "the nearest is named")
        )
        for wrong, right in (
            ("annotation", "annotations"),
            ("Test", "test"),
            ("dowload", "download"),
            ("tlie", "tile"),
        )
    ],
)
def test_a_misspelled_key(wrong: str, right: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_dataset_yaml(a_set(tmp_path, yaml=f"train: images\nval: images\nnames: [a]\n{wrong}: x\n"))
    assert warnings(caplog) == [
        f"{tmp_path / 'd.yaml'}: the key {wrong!r} is not known and is ignored (did you mean {right}?)"
    ]


@pytest.mark.case("Dataset YAML", "nmaes: for names:", "“the key 'names' is missing; is 'nmaes' meant for it?”")
def test_a_misspelled_key_that_is_needed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = a_set(tmp_path, yaml="train: images\nval: images\nnmaes: [a]\n")
    with pytest.raises(UserError, match="the key 'names' is missing; is 'nmaes' meant for it"):
        read_dataset_yaml(file)
    assert warnings(caplog) == []


@pytest.mark.case("Hyperparameters", "a key in capitals", "“the nearest one is 'lr0'”")
def test_a_hyp_key_in_capitals(tmp_path: Path) -> None:
    text(tmp_path / "h.yaml", "LR0: 0.1\n")
    with pytest.raises(UserError, match="unknown hyperparameter 'LR0'; the nearest one is 'lr0'"):
        read_hyperparameters(tmp_path / "h.yaml")


@pytest.mark.parametrize(
    ("line", "base"),
    [
        pytest.param(line, base, id=f"{line}-{base}", marks=pytest.mark.case(AREA, case, "found"))
        for line, base, case in (
            ("images/0.png", "lists", "a list relative to its own folder"),
            ("images/0.png", "work", "a list relative to the working folder, as YOLOv5 reads it"),
            ("images/0.png", "set", "a list relative to the YAML's path"),
            ("./images/0.png", "lists", "a list with ./ before its lines"),
        )
    ],
)
def test_lists_of_images(
    line: str, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("lists", "work", "set"):
        (tmp_path / folder).mkdir()
    a_set(tmp_path / base, "images/0.png")
    text(tmp_path / base / "labels" / "0.txt", GOOD)
    text(tmp_path / "lists" / "val.txt", f"{line}\n")
    text(tmp_path / "d.yaml", "path: set\ntrain: ../lists/val.txt\nval: ../lists/val.txt\nnames: [a, b]\n")
    monkeypatch.chdir(tmp_path / "work")
    index = open_part(read_dataset_yaml(tmp_path / "d.yaml"), "val").index
    assert (index.paths[0], len(index.rows)) == (tmp_path / base / "images" / "0.png", 1)


@pytest.mark.case(AREA, "a list of images that are nowhere", "the error names the folders that were tried")
def test_a_list_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("lists", "work", "set"):
        (tmp_path / folder).mkdir()
    text(tmp_path / "lists" / "val.txt", "\nx/0.png\n")
    text(tmp_path / "d.yaml", "path: set\ntrain: ../lists/val.txt\nval: ../lists/val.txt\nnames: [a, b]\n")
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(UserError) as caught:
        open_part(read_dataset_yaml(tmp_path / "d.yaml"), "val")
    tried = ", ".join(str(tmp_path / folder) for folder in ("lists", "work", "set"))
    assert str(caught.value) == f"{tmp_path / 'lists' / 'val.txt'}: line 2: x/0.png is in none of the folders {tried}"


@pytest.mark.parametrize(
    ("script", "without"),
    [
        pytest.param(script, without, marks=[pytest.mark.slow, pytest.mark.case(AREA, case, "runs")])
        for script, without, case in (
            ("train", "test", "train.py without the test folder"),
            ("utils.dataset.inspect.__main__", "test", "inspection without the test folder"),
            ("val", "train", "val.py without the train folder"),
        )
    ],
)
def test_a_part_that_is_not_needed(script: str, without: str, tmp_path: Path, weights: Path) -> None:
    a_set(tmp_path, yaml="train: images\nval: images\nnames: [a, b, c]\n")
    text(tmp_path / "labels" / "0.txt", GOOD)
    text(tmp_path / "d.yaml", "train: images\nval: images\ntest: images\nnames: [a, b, c]\n")
    yaml = (tmp_path / "d.yaml").read_text(encoding="utf-8").replace(f"{without}: images", f"{without}: absent")
    text(tmp_path / "d.yaml", yaml)
    own = [] if "inspect" in script else ["--weights", weights, "--workers", 0]
    learning = ["--epochs", 1, "--noplots", "--noautoanchor"] if script == "train" else []
    outcome = succeeds(script, "--data", "d.yaml", "--img", 64, *own, *learning, folder=tmp_path)
    assert ("WARNING: d.yaml: test: " in outcome.output) == ("inspect" in script)


@pytest.mark.case(AREA, "val.py --task test without the test folder", "“test: ... does not exist”")
def test_a_part_that_is_needed(tmp_path: Path) -> None:
    spec = read_dataset_yaml(a_set(tmp_path, yaml="train: images\nval: images\ntest: absent\nnames: [a]\n"))
    with pytest.raises(UserError, match=f"d.yaml: test: {tmp_path / 'absent'} does not exist"):
        open_part(spec, "test")


def coco(file: Path, *images: str) -> None:
    content = {
        "images": [{"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(images)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 2, "bbox": [8, 8, 20, 10], "area": 200, "iscrowd": 0}
            for i in range(len(images))
        ],
    }
    text(file, json.dumps(content))


LONE = "train: images/t\nval: images/v\nnames: [a, b, c]\nannotations: all.json\n"


@pytest.mark.case(AREA, "annotations: one file of train and val", "serves both")
def test_one_annotation_file_for_both_parts(tmp_path: Path) -> None:
    spec = read_dataset_yaml(a_set(tmp_path, "images/t/0.png", "images/v/1.png", yaml=LONE))
    coco(tmp_path / "all.json", "0.png", "1.png")
    assert [len(open_part(spec, part).index.rows) for part in ("train", "val")] == [1, 1]


@pytest.mark.case(AREA, "annotations: one file of val, train without labels", "“names no image of train”")
def test_one_annotation_file_of_val(tmp_path: Path) -> None:
    spec = read_dataset_yaml(a_set(tmp_path, "images/t/0.png", "images/v/1.png", yaml=LONE))
    coco(tmp_path / "all.json", "1.png")
    assert len(open_part(spec, "val").index.rows) == 1
    with pytest.raises(UserError, match=r"all\.json names no image of train, and train has no labels"):
        open_part(spec, "train")
    text(tmp_path / "labels" / "t" / "0.txt", GOOD)
    train = open_part(spec, "train")
    assert (len(train.index.rows), train.annotations) == (1, None)


# case, content of the label file of each image (None: there is none), part of the line
EMPTY = (
    (
        "scores behind the boxes",
        "0 0.5 0.5 0.2 0.2 0.9\n",
        "label rows left out: 2, the first {}/labels/0.txt:1: 6",
    ),
    ("no label files", None, "2 without labels (for {0}/images/0.png there is no {0}/labels/0.txt)"),
    ("empty label files", "", "2 images and no object: every label file is empty"),
    ("label files that are no text", "\x00\udcff", "files left out: 2, the first {}/labels/0.txt: not a text file"),
    (
        "other classes",
        "7 0.5 0.5 0.2 0.2\n",
        "label rows left out: 2, the first {}/labels/0.txt:1: class 7",
    ),
)


def without_objects(folder: Path, content: str | None) -> None:
    a_set(folder)
    for name in ("0", "1") if content is not None else ():
        (folder / "labels").mkdir(exist_ok=True)
        (folder / "labels" / f"{name}.txt").write_bytes((content or "").encode("utf-8", "surrogateescape"))


def train(folder: Path, weights: Path) -> Outcome:
    flags = ("--img", 64, "--epochs", 1, "--workers", 0, "--noplots")
    return run("train", "--weights", weights, "--data", "d.yaml", *flags, folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param(content, line, id=case, marks=pytest.mark.case(AREA, f"training on {case}", f"exit 1: “{line}”"))
        for case, content, line in EMPTY
    ],
)
def test_training_on_nothing(content: str | None, line: str, tmp_path: Path, weights: Path) -> None:
    without_objects(tmp_path, content)
    outcome = train(tmp_path, weights)
    assert outcome.code == 1 and not (tmp_path / "runs").exists()
    (said,) = outcome.error_lines
    assert said.startswith("error: d.yaml: train: nothing to learn from: ") and line.format(tmp_path) in said


@pytest.mark.slow
@pytest.mark.case(AREA, "evaluating on nothing", "a warning: “val: nothing to evaluate on: ...”")
def test_evaluation_on_nothing(tmp_path: Path, weights: Path) -> None:
    without_objects(tmp_path, EMPTY[0][1])
    outcome = succeeds("val", "--weights", weights, "--data", "d.yaml", "--img", 64, "--workers", 0, folder=tmp_path)
    assert (
        f"WARNING: val: nothing to evaluate on: 2 images and no object: {EMPTY[0][2].format(tmp_path)}"
        in outcome.output
    )


@pytest.mark.slow
@pytest.mark.case(AREA, "training with a val part of nothing", "trains; a warning: “val: nothing to evaluate on: ...”")
def test_training_with_nothing_to_evaluate_on(tmp_path: Path, weights: Path) -> None:
    a_set(tmp_path, "images/t/0.png", "images/v/1.png", yaml="train: images/t\nval: images/v\nnames: [a, b, c]\n")
    text(tmp_path / "labels" / "t" / "0.txt", GOOD)
    outcome = train(tmp_path, weights)
    assert outcome.code == 0, outcome.errors
    assert "WARNING: val: nothing to evaluate on: 1 image and no object: 1 without labels (for " in outcome.output


@pytest.mark.case(
    AREA, "labels beside the images in a folder called images", "used: “labels beside the images: 2, ...”"
)
def test_labels_beside_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = read_dataset_yaml(a_set(tmp_path, "a/images/0.png", "a/images/1.png", yaml="train: a\nval: a\nnames: [a]\n"))
    text(tmp_path / "a" / "images" / "0.txt", GOOD)
    text(tmp_path / "a" / "images" / "1.txt", "0 0.5 0.5 0.2 0.2\n")
    with caplog.at_level(logging.INFO):
        index = open_part(spec, "val").index
    assert (index.unlabelled, index.rows[:, 0].tolist()) == (0, [0])
    first = tmp_path / "a" / "images" / "0.txt"
    assert list(map(str, index.problems)) == [f"{first}:1: class 1, but the classes are 0 to 0"]
    assert caplog.messages == [f"labels beside the images: 2, such as {first}; in labels folders: 0"]


@pytest.mark.case(AREA, "labels beside some images, in labels/ for others", "both are used; a warning counts them")
def test_labels_in_two_places(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = read_dataset_yaml(a_set(tmp_path))
    text(tmp_path / "images" / "0.txt", GOOD)
    text(tmp_path / "labels" / "0.txt", 2 * GOOD.replace("0.5", "0.4", 1) + GOOD)  # which counts
    text(tmp_path / "images" / "1.txt", GOOD)
    assert open_part(spec, "val").index.row_ends.tolist() == [2, 3]
    said = f"labels beside the images: 1, such as {tmp_path / 'images' / '1.txt'}; in labels folders: 1"
    assert warnings(caplog) == [said]

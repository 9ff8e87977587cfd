"""Data sets and recipes as labelling tools, exports and habits leave them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.dataset.images import write_image
from utils.config.classification_recipe import read_recipe
from utils.config.dataset_yaml import read_dataset_yaml
from utils.config.hyperparameters import HYPS, Hyperparameters, read_hyperparameters
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
            wrong, right, marks=pytest.mark.case("Dataset YAML", f"{wrong}: for {right}:", f"“(did you mean {right}?)”")
        )
        for wrong, right in (("anotations", "annotations"), ("Test", "test"), ("dowload", "download"), ("titel", "tile"))
    ],
)  # fmt: skip
def test_a_misspelled_key(wrong: str, right: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_dataset_yaml(a_set(tmp_path, yaml=f"train: images\nval: images\nnames: [a]\n{wrong}: x\n"))
    assert warnings(caplog) == [
        f"{tmp_path / 'd.yaml'}: the key {wrong!r} is not known and is ignored (did you mean {right}?)"
    ]


@pytest.mark.case("Dataset YAML", "nmaes: for names:", "“the key 'names' is missing; is 'nmaes' meant for it?”")
def test_a_misspelled_key_that_is_needed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = a_set(tmp_path, yaml="train: images\nval: images\nnmaes: [a]\n")
    with pytest.raises(UserError, match="the key 'names' is missing; is 'nmaes' meant for it\\?$"):
        read_dataset_yaml(file)
    assert warnings(caplog) == []


@pytest.mark.case("Hyperparameters", "a key in capitals", "“the nearest one is 'lr0'”")
def test_a_hyp_key_in_capitals(tmp_path: Path) -> None:
    text(tmp_path / "h.yaml", "LR0: 0.1\n")
    with pytest.raises(UserError, match="unknown hyperparameter 'LR0'; the nearest one is 'lr0'"):
        read_hyperparameters(tmp_path / "h.yaml")

"""The page about a data set: its figures, its tables and its sheets of images, and written by the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.dataset.test_dataset_inspection import faulty_set, inspected
from tests.end_to_end.scripts import environment
from tests.reporting.test_html_page import Page
from tests.reporting.test_html_report import CHROMIUM, shown_in_a_browser
from utils.dataset.inspect import Inspection
from utils.reporting.dataset_page import figures, write_inspection


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    """Nine readable images of 128 x 256 with 13 objects, one file that is none; see ``faulty_set``."""
    return inspected(faulty_set(tmp_path_factory.mktemp("set")))


@pytest.fixture(scope="module")
def folder(found: Inspection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:  # to draw would take longer than all the rest
        patch.setattr(Figure, "savefig", lambda figure, path, **settings: path.write_bytes(b"drawn"))
        lines = write_inspection(folder, found)
    assert lines[0].startswith("train: 9 images, 13 objects") and lines[1].startswith("val: 2 images, 2 objects")
    assert lines[2:-1] == list(found.advice) and lines[-1] == f"page: {folder / 'report.html'}"
    return folder


def test_the_figures(found: Inspection) -> None:
    content: Any = json.loads(json.dumps(figures(found)))
    train = content["parts"]["train"]
    counted = {
        "images": 9,
        "objects": 13,
        "without_labels": 2,
        "without_objects": 2,
        "broken_files": 1,
        "bad_rows": 2,
        "out_of_range": 1,
        "repeated_rows": 1,
        "near_copies": 0,
        "classes": {"person": 12, "dog": 1, "never": 0},
        # At 640 the images are two and a half times as large: six objects of 12.8 x 12.8, one of 64 x 32 = 45^2 and
        # six of 256 x 128 = 181^2.
        "most_objects_in_an_image": 2,
        "median_height_width": [128, 256],
    }
    assert {key: train[key] for key in counted} == counted
    assert train["share_under"]["16"] == pytest.approx(6 / 13, abs=1e-4)
    assert train["small_on_disk"] == 7  # 5.12^2, and 25.6 x 12.8 = 18^2, are under 32^2; 102 x 51 is not
    assert [Path(path).name for path in train["labels_without_images"]] == ["lost.txt"]
    assert not content["train_and_val_are_the_same"]
    ((first, second, distance),) = content["leak"]
    assert (Path(first).name, Path(second).name) == ("3.png", "a.jpg") and distance >= 0


def test_the_tables_of_the_page(folder: Path) -> None:
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.cards["train images"] == "9" and page.cards["val images seen in train"] == "1"
    assert page.cards["under 16 px at 640"] == "46%" and page.cards["classes"] == "3"
    there, sizes, classes, problems = page.tables
    assert there[0] == ["", "train", "val"]
    assert {name: (train, val) for name, train, val in there[1:]} | {
        "images": ("9", "2"),
        "objects": ("13", "2"),
        "images without an object": ("2", "0"),
        "files that cannot be read": ("1", "0"),
        "labels left out": ("2", "0"),
        "label files without an image": ("1", "0"),
        "images that look the same as another": ("0", "0"),
    } == {name: (train, val) for name, train, val in there[1:]}
    small = {row[0]: row[1:] for row in sizes}
    assert small["that AP_S counts (under 32² px on disk)"] == ["7 (53.8%)", "2 (100.0%)"]
    assert classes == [["class", "train", "val"], ["person", "12", "2"], ["dog", "1", "0"], ["never", "0", "0"]]
    assert [row[0] for row in problems] == ["part", "train", "train", "train"]


def test_sheets_of_images_fill_the_width_of_the_page(folder: Path) -> None:
    images = {path.stem: np.asarray(cv2.imread(str(path))) for path in folder.glob("*.jpg")}
    # Seven images with objects, twice as wide as high, in rows of 2, 2 and 3: 1196 / 4 and 1192 / 6 pixels high. Square
    # cuts of the seven smallest objects and the whole image of the eighth: 1188 / 4, 1188 / 5. A pair: 1196 / 4. Near
    # copies there are none.
    heights = {"samples": 299 + 299 + 199 + 8, "smallest": 297 + 238 + 4, "leak": 299}
    assert {name: image.shape[:2] for name, image in images.items()} == {
        name: (height, 1200) for name, height in heights.items()
    }


def test_every_image_is_in_the_page(folder: Path) -> None:
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert list(page.images) == ["object_sizes.png", "classes.png", "samples.jpg", "smallest.jpg", "leak.jpg"]


def test_a_model_without_anchors_leaves_their_rows_out(
    found: Inspection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **settings: path.write_bytes(b"drawn"))
    parts = {name: replace(part, fit=None) for name, part in found.parts.items()}
    write_inspection(tmp_path, replace(found, parts=parts))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "At a training size of 640 px.</p>" in text
    assert "best possible recall" not in text.replace("\n".join(found.advice), "")
    train = json.loads((tmp_path / "inspection.json").read_text())["parts"]["train"]
    assert train["objects"] == 13 and "best_possible_recall" not in train


def test_problems_are_listed(folder: Path) -> None:
    lines = (folder / "problems.txt").read_text().splitlines()
    assert (
        len(lines) == 3 and sum("0.txt:" in line for line in lines) == 2 and sum("7.png" in line for line in lines) == 1
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    faulty_set(folder)
    command = [sys.executable, "-m", "utils.dataset.inspect", "--data", "set.yaml"]
    result = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "train: 9 images, 13 objects, 2 without labels, 1 unreadable file left out" in result.stdout
    assert result.stdout.rstrip().endswith("page: runs/inspect/exp/report.html")
    return folder / "runs" / "inspect" / "exp"


@pytest.mark.slow
def test_figures_and_problems_are_files_too(run: Path) -> None:
    figures = json.loads((run / "inspection.json").read_text())
    assert figures["parts"]["train"]["classes"] == {"person": 12, "dog": 1, "never": 0}
    assert [Path(file).name for file in figures["leak"][0][:2]] == ["3.png", "a.jpg"]
    problems = (run / "problems.txt").read_text().splitlines()
    assert len(problems) == 3
    assert any(line.endswith("0.txt:3: 1.5 is outside 0 to 1") for line in problems)


@pytest.mark.slow
def test_nothing_comes_from_outside(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', text)
    # Sizes and classes, samples, smallest objects, the pair in train and val.
    assert len(sources) == 5 and all(source.startswith("data:image/") for source in sources)
    assert "<script" not in text and "url(" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt install chromium)")
@pytest.mark.slow
def test_a_browser_shows_tables_and_images(run: Path, tmp_path: Path) -> None:
    images, tables = shown_in_a_browser(run / "report.html", tmp_path)
    assert len(images) == 5 and min(images) >= 300
    # What is there, sizes, three classes, three problems; each below its head.
    assert tables == [13, 7, 4, 4]


@pytest.mark.slow
def test_a_wrong_size_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "utils.dataset.inspect", "--data", "coco128.yaml", "--img", "8"]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (2, "error: --imgsz 8: must be 32 to 8192\n")

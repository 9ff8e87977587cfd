"""The page about a split: what went where, what joined images, and what the largest groups show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dataset.test_split import scene_folder, split_of
from tests.reporting.test_html_page import Page
from utils.dataset.split import Split
from utils.reporting.split_page import console_lines, write_split_page


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Ten groups of an image and its copy, 96 x 160 and 77 x 128 pixels; a box a fifth of them, of two classes."""
    folder = scene_folder(tmp_path_factory.mktemp("page") / "pictures")
    (folder / "bad.png").write_bytes(b"x")
    return split_of(folder)


def test_the_tables(split: Split, tmp_path: Path) -> None:
    page = Page(write_split_page(tmp_path, split).read_text(encoding="utf-8"))
    assert page.title == "split of pictures"
    assert (page.cards["groups"], page.cards["train images"], page.cards["images in the largest"]) == ("10", "16", "2")
    where, classes, rules, largest, problems = page.tables
    assert where[0] == ["", "train", "val", "test"]
    rows = {row[0]: row[1:] for row in where[1:]}
    assert rows["asked for"] == rows["of images"] == ["80.0%", "10.0%", "10.0%"]
    assert (rows["images"], rows["groups"]) == (["16", "2", "2"], ["8", "1", "1"])
    # 32 x 19.2 and 25.6 x 15.4 pixels are small, all of them.
    assert [row[:2] for row in classes[1:]] == [["boat", "small"], ["car", "small"]]
    counts = [[int(cell.split()[0]) for cell in row[2:]] for row in classes[1:]]
    assert [sum(row) for row in counts] == [10, 9]
    assert rows["objects"] == [str(sum(part)) for part in zip(*counts, strict=True)]
    assert {row[0]: row[1:3] for row in rules[1:]}["look alike"] == ["10", "10"]
    assert len(largest) == 11 and {(row[1], row[3]) for row in largest[1:]} == {("2", "look alike 1")}
    assert len(problems) == 2 and problems[1][0].endswith("bad.png: not an image that can be read")
    assert len(page.images) == 6 and all(data.startswith("data:image/jpeg;base64,") for data in page.images.values())
    assert "1 file that cannot be used, left out." in page.items
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"], "the page needs no file beside it"


def test_the_lines_of_the_console(split: Split) -> None:
    lines = console_lines(split)
    assert lines[0] == "20 images in 10 groups, 10 of several images (joined by: look alike 10)"
    assert lines[2].startswith("val: 2 images (10.0%) in 1 group, ")

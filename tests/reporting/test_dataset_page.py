"""The page about a data set: written by the command, whole without a network, and shown by a browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dataset.test_dataset_inspection import faulty_set
from tests.end_to_end.scripts import environment
from tests.reporting.test_html_report import CHROMIUM, shown_in_a_browser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    faulty_set(folder)
    command = [sys.executable, "-m", "utils.dataset.inspect", "--data", "set.yaml"]
    result = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "train: 9 images, 13 objects, 2 without labels, 1 unreadable files left out" in result.stdout
    assert result.stdout.rstrip().endswith("page: runs/inspect/exp/report.html")
    return folder / "runs" / "inspect" / "exp"


def test_figures_and_problems_are_files_too(run: Path) -> None:
    figures = json.loads((run / "inspection.json").read_text())
    assert figures["parts"]["train"]["classes"] == {"person": 12, "dog": 1, "never": 0}
    assert [Path(file).name for file in figures["leak"][0][:2]] == ["3.png", "a.jpg"]
    problems = (run / "problems.txt").read_text().splitlines()
    assert len(problems) == 3
    assert any(line.endswith("0.txt:3: 1.5 is outside 0 to 1") for line in problems)


def test_nothing_comes_from_outside(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', text)
    # Sizes and classes, samples, smallest objects, the pair in train and val.
    assert len(sources) == 5 and all(source.startswith("data:image/") for source in sources)
    assert "<script" not in text and "url(" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt install chromium)")
def test_a_browser_shows_tables_and_images(run: Path, tmp_path: Path) -> None:
    images, tables = shown_in_a_browser(run / "report.html", tmp_path)
    assert len(images) == 5 and min(images) >= 300
    # What is there, sizes, three classes, three problems; each below its head.
    assert tables == [13, 7, 4, 4]


def test_a_wrong_size_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "utils.dataset.inspect", "--data", "coco128.yaml", "--img", "8"]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (2, "error: --imgsz 8: must be 32 to 8192\n")

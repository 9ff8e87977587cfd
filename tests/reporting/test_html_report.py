"""report.html in a browser: its tables and images are there, and it needs nothing from outside."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.scripts import run_script
from tests.small_dataset import write_small_dataset

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    data = write_small_dataset(folder / "data")
    flags = ("--weights", "", "--cfg", "yolov5n-spd.yaml", "--img", 96, "--epochs", 0, "--noplots", "--workers", 0)
    run_script("train.py", *flags, "--data", data, folder=folder)
    weights = "runs/train/exp/weights/last.pt"
    run_script(
        "val.py",
        *("--weights", weights, "--data", data, "--img", 96, "--workers", 0, "--area-ranges", "ai-tod"),
        folder=folder,
    )
    return folder / "runs" / "val" / "exp" / "report.html"


def test_nothing_comes_from_outside(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', text)
    assert len(sources) >= 8 and all(source.startswith("data:image/") for source in sources)
    assert "<script" not in text and "url(" not in text


def shown_in_a_browser(page: Path, folder: Path) -> tuple[list[int], list[int]]:
    """Widths of the page's images as headless Chromium decodes them, and rows of its tables."""
    probe = """<script>window.onload = () => { document.title = JSON.stringify({
        images: [...document.images].map(i => i.naturalWidth),
        tables: [...document.querySelectorAll('table')].map(t => t.rows.length)}); }</script></body>"""
    probed = folder / "probed.html"
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    result = subprocess.run([*command, "--dump-dom", probed.as_uri()], capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", result.stdout)
    assert title is not None, result.stderr[-2000:]
    found = json.loads(title[1].replace("&quot;", '"'))
    return found["images"], found["tables"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt install chromium)")
def test_tables_and_images_are_there_in_a_browser(page: Path, tmp_path: Path) -> None:
    images, tables = shown_in_a_browser(page, tmp_path)
    assert len(images) >= 10 and min(images) >= 200
    # Figures of YOLOv5 and of COCO: a head, the whole, three classes; four areas; errors of the sizes that occur.
    assert tables[:3] == [5, 5, 5] and tables[3] >= 3

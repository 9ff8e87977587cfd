"""report.html: its tables and images are there, for a parser and in a browser, and it needs nothing from outside."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.scripts import run_script
from tests.reporting.hand_made import FIGURES, class_report, report_of
from tests.reporting.test_html_page import Page
from tests.small_dataset import write_small_dataset
from utils.evaluation.coco_average_precision import COCO_RANGES, WITHOUT_END, AreaFigures, CocoFigures
from utils.evaluation.error_analysis import KINDS, ErrorAnalysis, ErrorKind, RecallBySize, SizeErrors
from utils.evaluation.evaluation_report import ClassReport
from utils.reporting.html_report import ReportSource, write_comparison_page, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SOURCE = ReportSource("val.py --weights 'a<b>.pt'", "a<b>.pt", "val part of x & y.yaml")


def analysis() -> ErrorAnalysis:
    """Ten objects; missed ones cost 0.25 AP50, duplicates 0.05, the rest nothing."""
    lost = {"missed": 0.25, "duplicate": 0.05}
    kinds = tuple(ErrorKind(kind, 4, lost.get(kind, 0.0)) for kind in KINDS.values())
    by_size = (
        SizeErrors(COCO_RANGES[0], 10, 0.5, kinds),
        SizeErrors(COCO_RANGES[1], 8, 0.45, kinds),
        SizeErrors(COCO_RANGES[3], 0, -1.0, ()),
    )
    nothing = np.zeros(1, int)
    return ErrorAnalysis(by_size, RecallBySize(np.array([0.0, 4.0]), nothing, nothing, nothing), nothing)


def test_figures_and_tables(tmp_path: Path) -> None:
    areas = (AreaFigures("tiny", 0, 256, 4, 0.5, 0.25, 0.125), AreaFigures("big", 256, WITHOUT_END, 0, -1, -1, -1))
    report = report_of(class_report("cat & <dog>", 0), coco_figures=replace(FIGURES, by_area=areas))
    write_report(tmp_path / "report.html", SOURCE, report, analysis())
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.title == "a<b>.pt on val part of x & y.yaml" and page.code == SOURCE.command
    assert page.cards == {
        "AP": "0.5",
        "AP50": "0.75",
        "AP_S": "0.125",
        "AP_M": "0.6",
        "AP_L": "-",
        "mAP50": "0.375",
        "mAP50-95": "0.3",
        "ms per image": "23.5",  # 20 of the network, 3.5 of suppression
    }
    yolov5, coco, points, by_area, errors = page.tables
    assert points[0][:4] == ["Class", "best F1", "P >= 0.9", "R >= 0.9"] and points[1][:3] == ["all", "0.500", "-"]
    assert yolov5 == [
        ["Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95"],
        ["all", "5", "21", "0.5", "0.25", "0.375", "0.3"],
        ["cat & <dog>", "3", "7", "0.9", "0.8", "0.7", "0.6"],
    ]
    assert [row[:5] for row in coco] == [
        ["Class", "AP", "AP50", "AP75", "AP_S"],
        ["all", "0.5", "0.75", "0.25", "0.125"],
        ["cat & <dog>", "0.5", "0.75", "0.25", "0.125"],
    ]
    assert by_area[1:] == [
        ["tiny", "0", "256", "4", "0.5", "0.25", "0.125"],
        ["big", "256", "no end", "0", "-", "-", "-"],
    ]
    # A range without objects has no row.
    assert errors == [
        ["Objects", "Number", "AP50", *KINDS.values()],
        ["all", "10", "0.5", *["0.000 (4)"] * 3, "0.050 (4)", "0.000 (4)", "0.250 (4)"],
        ["small", "8", "0.45", *["0.000 (4)"] * 3, "0.050 (4)", "0.000 (4)", "0.250 (4)"],
    ]
    assert [item.split(" errors")[0] for item in page.items] == ["missed", "duplicate"]


def test_without_analysis_ranges_and_images_nothing_of_them_is_there(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", SOURCE, report_of(class_report("cat", 0)), None)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert len(page.tables) == 3 and page.images == {} and page.items == []
    assert page.titles[:2] == ["Precision, recall, mAP as YOLOv5 computes them", "COCO's figures"]
    assert page.titles[2].startswith("Confidence to detect at") and len(page.titles) == 3


def test_classes_mixed_up_are_a_table(tmp_path: Path) -> None:
    counts = np.array([[5, 1, 0], [2, 0, 0], [0, 0, 0]])
    report = report_of(class_report("cat", 0), class_report("dog", 1), confusion=counts)
    write_report(tmp_path / "report.html", SOURCE, report, None)
    confusions = Page((tmp_path / "report.html").read_text(encoding="utf-8")).tables[-1]
    assert confusions[1:] == [["cat", "2", "29%", "dog"], ["dog", "1", "100%", "cat"]]


def test_models_compared(tmp_path: Path) -> None:
    def coco(**figures: float) -> CocoFigures:
        return replace(FIGURES, summary=FIGURES.summary._replace(**figures))

    def kind(name: str, index: int, ap: float) -> ClassReport:
        return class_report(name, index, coco=FIGURES.summary._replace(AP=ap))

    first = report_of(kind("cat", 0, 0.5), kind("dog", 1, 0.5))
    second = report_of(kind("cat", 0, 0.52), kind("dog", 1, 0.25), coco_figures=coco(AP=0.4, AP_S=0.25))
    (tmp_path / "found_alone_1").mkdir()
    (tmp_path / "found_alone_1" / "0.jpg").write_bytes(b"\xff\xd8zero")
    write_comparison_page(tmp_path / "report.html", SOURCE, ["old.pt", "new.pt"], [first, second])
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.cards == {"AP_S of old.pt": "0.125", "AP_S of new.pt": "0.25"}
    models, classes = page.tables
    assert models[1][:5] == ["old.pt", "0.5", "0.125", "0.6", "-"]
    assert models[2][:5] == ["new.pt", "0.4 (-0.100)", "0.25 (+0.125)", "0.6 (+0.000)", "-"]
    assert [row[:3] for row in classes[1:]] == [["dog", "7", "0.25 (-0.250)"], ["cat", "7", "0.52 (+0.020)"]]
    assert list(page.images) == ["0.jpg"]
    assert page.titles[-1] == "Objects that only one found: old.pt (left), new.pt (right)"


def test_images_of_the_folder_are_inside_the_page(tmp_path: Path) -> None:
    contents = {
        "sample1.jpg": b"\xff\xd8one",
        "sample0.jpg": b"\xff\xd8zero",
        "PR_curve.png": b"\x89PNG",
        "x.jpg": b"x",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    write_report(tmp_path / "report.html", SOURCE, report_of(), None)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert list(page.images) == ["sample0.jpg", "sample1.jpg", "PR_curve.png"]  # samples in order, nothing else's
    for name, address in page.images.items():
        kind, encoded = address.split(";base64,")
        assert kind == ("data:image/png" if name.endswith("png") else "data:image/jpeg")
        assert base64.b64decode(encoded) == contents[name]
    assert page.titles[3:] == ["Labels (left); what was found and missed (right)", "Curves at IoU 0.5"]


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt install chromium)")
def test_tables_and_images_are_there_in_a_browser(page: Path, tmp_path: Path) -> None:
    images, tables = shown_in_a_browser(page, tmp_path)
    assert len(images) >= 10 and min(images) >= 200
    # YOLOv5's figures, COCO's and thresholds: a head, the whole, three classes; four areas; errors of some sizes.
    assert tables[:4] == [5, 5, 5, 5] and tables[4] >= 3

"""The page of an evaluation, read as a browser parses it."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from tests.reporting.hand_made import class_report, report_of
from utils.evaluation.area_ranges import COCO_RANGES, WITHOUT_END
from utils.evaluation.coco_average_precision import AreaFigures
from utils.evaluation.error_analysis import KINDS, ErrorAnalysis, ErrorKind, RecallBySize, SizeErrors
from utils.reporting.html_page import images_of
from utils.reporting.html_report import ReportSource, write_report

SOURCE = ReportSource("val.py --weights 'a<b>.pt'", "a<b>.pt", "val part of x & y.yaml")


class Page(HTMLParser):
    """Titles, cards, tables, images and list items of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.title, self.code = "", ""
        self.titles: list[str] = []
        self.cards: dict[str, str] = {}
        self.tables: list[list[list[str]]] = []
        self.images: dict[str, str] = {}
        self.items: list[str] = []
        self._open: list[str] = []
        self._card = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            named = dict(attrs)
            self.images[str(named["alt"])] = str(named["src"])
        elif tag != "meta":
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "li":
            self.items.append("")
        elif tag == "h2":
            self.titles.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "every tag is closed"

    def handle_data(self, data: str) -> None:
        tag = self._open[-1] if self._open else ""
        if tag in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif tag == "li":
            self.items[-1] += data
        elif tag == "h2":
            self.titles[-1] += data
        elif tag == "title":
            self.title += data
        elif tag == "code":
            self.code += data
        elif tag == "b":
            self.cards[self._card] = data
        elif tag == "div" and data.strip():
            self._card = data


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
    report = report_of(class_report("cat & <dog>", 0), by_area=areas)
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
    yolov5, coco, by_area, errors = page.tables
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
    assert len(page.tables) == 2 and page.images == {} and page.items == []
    assert page.titles == ["Precision, recall, mAP as YOLOv5 computes them", "COCO's figures"]


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
    assert page.titles[2:] == ["Labels (left) and detections (right)", "Curves at IoU 0.5"]


def test_images_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"b")
    (tmp_path / "c.png").mkdir()
    (image,) = images_of(tmp_path, ("a.png", "b.png", "c.png"))
    assert image == ("b.png", "data:image/png;base64,Yg==")

"""Pages read as a browser parses them, and the images in them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from utils.reporting.html_page import images_of


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


def test_images_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"b")
    (tmp_path / "c.png").mkdir()
    (image,) = images_of(tmp_path, ("a.png", "b.png", "c.png"))
    assert image == ("b.png", "data:image/png;base64,Yg==")

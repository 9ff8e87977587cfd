"""Links of README, CONTRIBUTING and docs: each leads somewhere, and every page can be reached from README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documentation.commands import pages
from tests.shared_data import REPOSITORY

FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def links_of(text: str) -> list[str]:
    """Targets within the repository, those of images too, as they are written; none out of code."""
    prose = CODE.sub("code", FENCED.sub("", text))
    return [target for target in LINK.findall(prose) if "://" not in target and not target.startswith("mailto:")]


def anchors_of(text: str) -> set[str]:
    """What ``#...`` may name: the page's headings as GitHub makes anchors of them."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCED.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        repeats = sum(re.fullmatch(re.escape(anchor) + r"(-\d+)?", other) is not None for other in found)
        found.add(f"{anchor}-{repeats}" if repeats else anchor)
    return found


def problem_of(page: Path, target: str) -> str:
    """What is wrong with a link of a page; empty if nothing is."""
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if path.startswith("/") or not file.is_relative_to(REPOSITORY):
        return f"{target}: leads out of the repository"
    if not file.exists():
        return f"{target}: no such file"
    if anchor and anchor not in anchors_of(file.read_text(encoding="utf-8")):
        return f"{target}: no such heading"
    return ""


def reached_from(start: Path) -> set[Path]:
    found, waiting = {start}, [start]
    while waiting:
        page = waiting.pop()
        for target in links_of(page.read_text(encoding="utf-8")):
            file = (page.parent / target.partition("#")[0]).resolve()
            if file.suffix == ".md" and file.is_file() and file not in found:
                found.add(file)
                waiting.append(file)
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    problems = [problem_of(page, target) for target in links_of(page.read_text(encoding="utf-8"))]
    assert [problem for problem in problems if problem] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    assert [page.name for page in pages() if page not in reached_from(REPOSITORY / "README.md")] == []


def test_every_page_leads_on() -> None:
    assert [page.name for page in pages() if len(reached_from(page)) < 3] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_another_page_is_named_by_a_link(page: Path) -> None:
    """A name in backticks cannot be followed; a page may name itself so."""
    named = re.findall(r"`(?:docs/)?([\w-]+\.md)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if name != page.name and (REPOSITORY / "docs" / name).exists()] == []


def test_what_the_search_finds() -> None:
    text = """# A page: `val.py`, twice

See [one](a.md), [two](b.md#x-y) and ![three](c.png), not `[four](d.md)` nor [five](https://host/e.md).

```md
# no heading
[six](f.md)
```

## Which threshold?
## Which threshold?
## A [link](g.md)
"""
    assert links_of(text) == ["a.md", "b.md#x-y", "c.png", "g.md"]
    assert anchors_of(text) == {"a-page-valpy-twice", "which-threshold", "which-threshold-1", "a-link"}


def test_what_is_wrong_with_a_link() -> None:
    readme = REPOSITORY / "README.md"
    assert problem_of(readme, "README.md") == problem_of(readme, "#yolov5-spd") == ""
    assert problem_of(readme, "gone.md").endswith("no such file")
    assert problem_of(readme, "README.md#gone").endswith("no such heading")
    assert problem_of(readme, "../elsewhere.md").endswith("leads out of the repository")

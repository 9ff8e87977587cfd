"""A page of tables and images in one file, which needs no network and no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.runtime.atomic_files import write_text

MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


class Table(NamedTuple):
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Image(NamedTuple):
    name: str
    data: str  # a data: URL


class Section(NamedTuple):
    title: str
    text: str
    images: Sequence[Image]
    side_by_side: bool


class PageContent(NamedTuple):
    """What every page has, from top to bottom."""

    headline: Sequence[tuple[str, str]]  # names and figures
    advice: Sequence[str]
    tables: Sequence[Table]
    sections: Sequence[Section]  # those without images are left out


def write_page(path: Path, template: str, content: PageContent, **heading: object) -> None:
    """Write the page of a template of this folder; ``heading`` is what its title and first lines speak of."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    shown = content._replace(sections=[section for section in content.sections if section.images])
    write_text(path, environment.get_template(template).render(**shown._asdict(), **heading) + "\n")


def images_of(folder: Path, names: Sequence[str]) -> list[Image]:
    """Those of the image files that are in the folder."""
    found = [folder / name for name in names if (folder / name).is_file()]
    return [Image(file.name, f"data:{MEDIA_TYPES[file.suffix]};base64,{_encoded(file)}") for file in found]


def _encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode("ascii")

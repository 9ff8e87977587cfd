"""The page about a split of a data set: what went where, and what stays together for which reason."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from utils.config.dataset_file import SPLITS
from utils.dataset.image_files import ImageReadError, read_image
from utils.dataset.split import Split
from utils.dataset.split.assignment import SIZES
from utils.dataset.split.groups import RULES, Join
from utils.reporting.html_page import Image, PageContent, Section, Table, write_page
from utils.reporting.image_grid import image_grid
from utils.reporting.labelled_images import captioned_cut
from utils.runtime.console_log import counted

PAGE = "report.html"
SHOWN_GROUPS, SHOWN_IMAGES = 6, 8
COLUMNS = 4
CELL = 280  # pixels of the longer side of an image in a sheet
LISTED = 100  # groups, and problems, in the tables


def write_split_page(folder: Path, split: Split) -> Path:
    """Write the page into ``folder``; its path."""
    content = PageContent(_headline(split), split.advice(), _tables(split), _sections(split))
    write_page(folder / PAGE, "split.html.j2", content, source=split.source.name, summary=split.index.summary())
    return folder / PAGE


def console_lines(split: Split) -> list[str]:
    """What the console says of it."""
    images, objects = split.image_counts(), split.object_counts().sum(axis=(1, 2))
    groups = _groups_in(split)
    total = max(int(images.sum()), 1)
    several = int((split.grouping.sizes > 1).sum())
    rules = Counter(join.rule for join in split.grouping.joins)
    joined = ", ".join(f"{rule} {rules[rule]}" for rule in RULES if rules[rule])
    first = f"{counted(total, 'image')} in {counted(split.grouping.count, 'group')}, {several} of several images"
    parts = [
        f"{part}: {counted(int(images[i]), 'image')} ({images[i] / total:.1%}) in {counted(int(groups[i]), 'group')}, "
        f"{counted(int(objects[i]), 'object')}"
        for i, part in enumerate(SPLITS)
        if part in split.parts
    ]
    return [f"{first}{f' (joined by: {joined})' if joined else ''}", *parts, *split.advice()]


def _groups_in(split: Split) -> np.ndarray:
    """Groups (3,) in each part."""
    _, first = np.unique(split.grouping.group_of, return_index=True)
    parts = split.part_of[first]
    return np.bincount(parts[parts >= 0], minlength=len(SPLITS))


def _headline(split: Split) -> list[tuple[str, str]]:
    images, sizes = split.image_counts(), split.grouping.sizes
    headline = [(f"{part} images", str(images[SPLITS.index(part)])) for part in split.parts]
    headline += [("groups", str(split.grouping.count)), ("of several images", str(int((sizes > 1).sum())))]
    headline += [("images in the largest", str(int(sizes.max()))), ("classes", str(len(split.names)))]
    return headline


def _tables(split: Split) -> list[Table]:
    places = [SPLITS.index(part) for part in split.parts]
    images, counts = split.image_counts()[places], split.object_counts()[places]
    columns = [
        np.array(split.shares)[places],
        images / images.sum(),
        *(counts[..., size].sum(axis=1) / max(counts[..., size].sum(), 1) for size in range(len(SIZES))),
    ]
    names = ("asked for", "of images", *(f"of {size} objects" for size in SIZES))
    parts = [(name, *(f"{share:.1%}" for share in column)) for name, column in zip(names, columns, strict=True)]
    parts += [("images", *map(str, images)), ("objects", *(str(own.sum()) for own in counts))]
    parts += [("groups", *map(str, _groups_in(split)[places]))]
    tables = [Table("What went where", ("", *split.parts), parts), _classes(split, counts)]
    tables += [_rules(split), _largest(split)]
    if split.problems:
        listed = [(str(problem),) for problem in split.problems[:LISTED]]
        title = f"What cannot be used ({len(split.problems)}; all of it in problems.txt)"
        tables.append(Table(title, ("file, line and reason",), listed))
    return tables


def _classes(split: Split, counts: np.ndarray) -> Table:
    """Objects of each class that there are, by size and part; (P, C, 3) counts."""
    rows = []
    for kind in np.argsort(-counts.sum(axis=(0, 2)), kind="stable").tolist():
        for size, name in enumerate(SIZES):
            own = counts[:, kind, size]
            if own.any():
                rows.append((split.names[kind], name, *(f"{n} ({n / own.sum():.0%})" for n in own.tolist())))
    title = "Objects of each class and size (COCO's: under 32² px on disk, under 96², above)"
    return Table(title, ("class", "size", *split.parts), rows)


def _rules(split: Split) -> Table:
    joins = Counter(join.rule for join in split.grouping.joins)
    groups = {rule: set[int]() for rule in RULES}
    for join in split.grouping.joins:
        groups[join.rule].add(int(split.grouping.group_of[join.first]))
    rows = [(rule, str(joins[rule]), str(len(groups[rule])), meaning) for rule, meaning in RULES.items()]
    return Table("What joined images", ("rule", "joins", "groups", "meaning"), rows)


def _largest(split: Split) -> Table:
    joins = _joins_of(split)
    rows = []
    for group in _by_size(split)[:LISTED]:
        first = int(np.flatnonzero(split.grouping.group_of == group)[0])
        rows.append((split.name(first), str(split.grouping.sizes[group]), _part(split, group), _why(joins[group])))
    return Table("The largest groups", ("first image", "images", "part", "joined by"), rows)


def _by_size(split: Split) -> list[int]:
    """Groups of several images, the largest first."""
    sizes = split.grouping.sizes
    order = np.argsort(-sizes, kind="stable")
    large: list[int] = order[sizes[order] > 1].tolist()
    return large


def _joins_of(split: Split) -> dict[int, list[Join]]:
    """The joins of each group."""
    joins: dict[int, list[Join]] = {}
    for join in split.grouping.joins:
        joins.setdefault(int(split.grouping.group_of[join.first]), []).append(join)
    return joins


def _part(split: Split, group: int) -> str:
    return SPLITS[int(split.part_of[split.grouping.group_of == group][0])]


def _why(joins: list[Join]) -> str:
    return ", ".join(f"{rule} {count}" for rule, count in Counter(join.rule for join in joins).most_common())


def _sections(split: Split) -> list[Section]:
    joins = _joins_of(split)
    sections = []
    for group in _by_size(split)[:SHOWN_GROUPS]:
        places = np.flatnonzero(split.grouping.group_of == group)
        shown = places[np.linspace(0, len(places) - 1, min(len(places), SHOWN_IMAGES)).round().astype(np.int64)]
        cells = [cell for cell in (_thumbnail(split, place) for place in shown.tolist()) if cell is not None]
        example = joins[group][0]
        near = f" ({example.detail})" if example.detail else ""
        pair = f"{split.name(example.first)} and {split.name(example.second)}"
        text = f"Joined by: {_why(joins[group])}. For example {pair}: {example.rule}{near}."
        title = f"{len(places)} images in {_part(split, group)}"
        sections.append(Section(title, text, [_sheet(f"group {group}", cells)] if cells else [], False))
    return sections


def _thumbnail(split: Split, place: int) -> np.ndarray | None:
    path, side = split.index.paths[place], int(split.index.sizes[place].max())
    reduction = max((r for r in (2, 4, 8) if side // r >= CELL), default=1)
    try:
        image = read_image(path, reduction)
    except ImageReadError:  # changed since it was looked at
        return None
    factor = CELL / max(image.shape[:2])
    height, width = (max(round(length * factor), 1) for length in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    return captioned_cut(small, [], path.name)


def _sheet(name: str, cells: list[np.ndarray]) -> Image:
    grid = cv2.cvtColor(image_grid(cells, COLUMNS, gap=4), cv2.COLOR_RGB2BGR)
    _, content = cv2.imencode(".jpg", grid, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return Image(name, f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode('ascii')}")

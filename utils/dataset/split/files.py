"""A split as files: lists of the original images, or folders of copies, and the dataset YAML over them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from utils.config.dataset_file import SPLITS
from utils.dataset.image_lists import label_file
from utils.dataset.split import Split
from utils.dataset.split.groups import Join
from utils.runtime.atomic_files import write_text
from utils.runtime.console_log import with_progress
from utils.user_error import UsageError, UserError, typed

YAML, GROUPS = "data.yaml", "groups.csv"


@contextmanager
def new_folder(named: Path, output: str, *, copies: bool) -> Iterator[Path]:
    """A folder that was not there before, removed again if nothing comes of it.

    Without ``output`` it is ``SOURCE-split`` beside the source, or ``SOURCE-split2`` and so on.

    Args:
        named: the source by the name that it was given (`SplitConfig.named`).
        output: folder to make, or ''.
        copies: whether images are copied into it.

    Raises:
        UserError: ``output`` is there already.
        UsageError: ``copies`` would lie within the source, where the next split would find them.
    """
    name = named.name if named.is_dir() else named.stem
    folder = Path(output).expanduser() if output else named.with_name(f"{name}-split")
    if copies and named.is_dir() and folder.resolve().is_relative_to(named.resolve()):
        raise UsageError(f"--output {output} --folders: lies in {named}; copies of its images go elsewhere")
    number = 1
    while True:
        made = folder if number == 1 else folder.with_name(f"{folder.name}{number}")
        try:
            made.mkdir(parents=True)
            break
        except FileExistsError:
            if output:
                raise UserError(f"--output {output}: is there already, and nothing is written over") from None
            number += 1
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):  # it has something in it
            made.rmdir()


def write_split(folder: Path, split: Split, *, copies: bool, progress: bool = True) -> Path:
    """Write lists or copies, ``groups.csv`` and last the dataset YAML, whose path is given."""
    write_text(folder / GROUPS, groups_table(split))
    places = _copy(folder, split, progress=progress) if copies else _list(folder, split)
    names = (f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(split.names))
    # Without `path:` the parts are relative to the YAML.
    lines = [f"# {split.source} split by {typed('python -m utils.dataset.split')}", *places, "names:", *names]
    write_text(folder / YAML, "".join(f"{' '.join(line.splitlines())}\n" for line in lines))
    return folder / YAML


def _list(folder: Path, split: Split) -> list[str]:
    """Lists of the images where they are, relative to the list, so that the two can be moved together."""
    base = folder.resolve()
    for part in split.parts:
        paths = (os.path.relpath(split.index.paths[place], base) for place in split.images(part))
        write_text(folder / f"{part}.txt", "".join(f"./{path}\n" for path in paths))
    return [f"{part}: {part}.txt" for part in split.parts]


def _copy(folder: Path, split: Split, *, progress: bool) -> list[str]:
    """Images as links to the same content where the disk permits, labels as copies: tools change labels in place."""
    places = np.flatnonzero(split.part_of >= 0).tolist()  # in one order, so that another seed changes no name
    taken: set[str] = set()
    for part in split.parts:
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True)
    for place in with_progress(places, len(places), "image", "copies", shown=progress):
        part, image = SPLITS[int(split.part_of[place])], split.index.paths[place]
        stem = _free_stem(Path(split.name(place)), taken)
        target = folder / "images" / part / f"{stem}{image.suffix}"
        try:
            os.link(image.resolve(), target)
        except OSError:  # another disk, or one without links
            shutil.copyfile(image, target)
        label = label_file(image)
        if label.is_file():
            shutil.copyfile(label, folder / "labels" / part / f"{stem}{label.suffix}")
    return [f"{part}: images/{part}" for part in split.parts]


def _free_stem(name: Path, taken: set[str]) -> str:
    """The name without its suffix, with folders in front as far as it takes for it to be the only one."""
    parts = list(name.with_suffix("").parts)
    stems = ["_".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]
    stem = next((stem for stem in stems if stem.casefold() not in taken), "")
    number = 2
    while not stem or stem.casefold() in taken:
        stem, number = f"{parts[-1]}_{number}", number + 1
    taken.add(stem.casefold())
    return stem


def groups_table(split: Split) -> str:
    """One row per image: its part, its group, and what joined it to which other image."""
    joined: dict[int, Join] = {}
    for join in split.grouping.joins:
        joined.setdefault(join.first, join)
        joined.setdefault(join.second, join)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image", "part", "group", "joined by", "to", "how near"))
    for place in range(len(split.index)):
        part = int(split.part_of[place])
        if part < 0:
            continue
        cells = [split.name(place), SPLITS[part], int(split.grouping.group_of[place])]
        how = joined.get(place)
        other = "" if how is None else split.name(how.second if how.first == place else how.first)
        rows.writerow([*cells, *(("", "", "") if how is None else (how.rule, other, how.detail))])
    return text.getvalue()

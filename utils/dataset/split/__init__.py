"""A folder of labelled images split into train, val and test, so that what looks alike stays in one part."""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.config.command_line import flag
from utils.config.dataset_file import SPLITS, class_names, dataset_content, find_dataset_yaml
from utils.config.dataset_yaml import read_dataset_yaml
from utils.dataset.image_checks import NEAR, check_images
from utils.dataset.image_lists import label_file, label_path, list_images
from utils.dataset.label_cache import read_label_index
from utils.dataset.label_files import LabelProblem, VocFile, parse_voc
from utils.dataset.label_index import LabelIndex
from utils.dataset.split.assignment import SIZES, assign_groups, object_cells
from utils.dataset.split.groups import FLAGS, FRAME_BITS, SECONDS, Grouping, GroupingRules, find_groups
from utils.runtime.console_log import counted
from utils.user_error import UsageError, UserError, typed

LOGGER = logging.getLogger(__name__)
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")  # as annotation tools leave them
MOST_CLASSES = 10_000  # where nothing says how many there are


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """What is split, and how."""

    source: str = flag("", "folder of images and labels, or dataset YAML; the first word needs no --source")
    shares: tuple[float, ...] = flag(
        (0.8, 0.1, 0.1), "shares of train, val and test, or of train and val only", at_least=0, max_values=3
    )
    seed: int = flag(0, "a different seed gives a different split", at_least=0, at_most=2**63 - 1)
    names: tuple[str, ...] = flag((), "class names in order of their numbers, if no file in the folder has them")
    output: str = flag("", "folder to create; by default SOURCE-split beside SOURCE", group="Output")
    folders: bool = flag(
        False, "write images/ and labels/ with copies (links where possible), not lists", group="Output"
    )
    groups: str = flag("", "regular expression: images whose names agree in its (group) stay together", group="Groups")
    bits: int = flag(
        NEAR,
        "images whose hashes differ in at most this many bits look alike",
        group="Groups",
        at_least=0,
        at_most=64,
    )
    seconds: float = flag(
        SECONDS, "images of one folder and camera this near in time stay together; 0: never", group="Groups", at_least=0
    )
    frame_bits: int = flag(
        FRAME_BITS,
        "neighbours by number in the file name stay together up to this many different bits; 0: never",
        group="Groups",
        at_least=0,
        at_most=128,
    )

    def __post_init__(self) -> None:
        if not self.source:
            raise UsageError(
                f"{typed('python -m utils.dataset.split')}: name the folder of images and labels, or a dataset YAML"
            )
        self.rules()
        self.fractions()

    @property
    def named(self) -> Path:
        """What ``source`` says, absolute."""
        # Not resolved: where `images` is a link, its labels lie beside the link.
        return Path(os.path.abspath(Path(self.source).expanduser()))  # noqa: PTH100  (absolute() keeps `..`)

    def place(self) -> Path:
        """The folder or YAML, absolute; of a YAML that the program comes with the name is enough, as for train.py.

        Raises:
            UserError: it is not there.
        """
        if self.named.exists():
            return self.named
        try:
            return find_dataset_yaml(self.source).absolute()
        except UserError:
            raise UserError(f"{self.source}: neither a folder nor a dataset YAML") from None

    def rules(self) -> GroupingRules:
        """What joins images.

        Raises:
            UsageError: ``groups`` is no regular expression with one group.
        """
        try:
            pattern = re.compile(self.groups) if self.groups else None
        except re.error as error:
            raise UsageError(f"--groups {self.groups!r}: not a regular expression: {error}") from error
        if pattern is not None and pattern.groups != 1:
            raise UsageError(f"--groups {self.groups!r}: has {pattern.groups} groups; put one pair of brackets")
        return GroupingRules(self.bits, self.frame_bits, self.seconds, pattern)

    def fractions(self) -> tuple[float, ...]:
        """Shares of train, val and test, sum 1.

        Raises:
            UsageError: train or val has none.
        """
        shares = (*self.shares, 0.0)[:3]
        if len(self.shares) < 2 or not all(shares[:2]):
            shown = " ".join(f"{share:g}" for share in self.shares)
            raise UsageError(f"--shares {shown}: train and val need one each, such as 0.8 0.2 or 0.8 0.1 0.1")
        return tuple(share / math.fsum(shares) for share in shares)


@dataclass(frozen=True, slots=True)
class Split:
    """Which of F images is in which part, and why."""

    source: Path
    root: Path  # what names of images are relative to
    names: tuple[str, ...]  # of the classes
    names_from: str  # what says them; '' if nothing does
    index: LabelIndex
    grouping: Grouping
    shares: tuple[float, ...]  # wanted, of train, val and test
    part_of: np.ndarray  # (F,) int64; -1: left out
    problems: tuple[LabelProblem, ...]  # images and label rows that are left out
    pattern: str  # of the user, '' for none

    @property
    def parts(self) -> tuple[str, ...]:
        """Those that were wanted."""
        return tuple(name for name, share in zip(SPLITS, self.shares, strict=True) if share > 0)

    def images(self, part: str) -> list[int]:
        return np.flatnonzero(self.part_of == SPLITS.index(part)).tolist()

    def image_counts(self) -> np.ndarray:
        """Images (3,) of each part."""
        return np.bincount(self.part_of[self.part_of >= 0], minlength=len(SPLITS))

    def object_counts(self) -> np.ndarray:
        """Objects (3, C, 3) of each part, class, and size (small, medium, large)."""
        images, cells = object_cells(self.index)
        part = self.part_of[images]
        columns = len(self.names) * len(SIZES)
        keys = (part * columns + cells)[part >= 0]
        return np.bincount(keys, minlength=len(SPLITS) * columns).reshape(len(SPLITS), -1, len(SIZES))

    def name(self, place: int) -> str:
        """Path of an image below the data set."""
        return _name(self.index.paths[place], self.root)

    def advice(self) -> list[str]:
        """What its owner should know, in sentences."""
        return [*_of_groups(self), *_of_classes(self), *_of_left_out(self)]


def split_dataset(config: SplitConfig, *, progress: bool = True) -> Split:
    """Read every label and image of a folder or data set, group what belongs together, and divide the groups.

    Raises:
        UserError: there is nothing to split, or all of it is one group.
        UsageError: settings that cannot be used.
    """
    rules, shares = config.rules(), config.fractions()
    source = config.place()
    with tempfile.TemporaryDirectory() as cache:  # nothing is left beside the originals
        index, names, names_from = _labels(source, config.names, Path(cache), "labels" if progress else "")
    checks = check_images(index, title="images" if progress else "")
    root = source if source.is_dir() else Path(os.path.commonpath([path.parent for path in index.paths]))
    paths = list(index.paths)
    listed = [_name(path, root) for path in paths]
    unlisted = {} if config.folders else _unlistable(paths)
    digests = tuple(b"" if place in unlisted else digest for place, digest in enumerate(checks.digests))
    usable = replace(checks, digests=digests)
    grouping = find_groups(listed, paths, usable, rules, title="times" if progress else "")
    _check_enough(source, grouping, shares)
    part_of_group = assign_groups(grouping.group_of, object_cells(index), len(names), shares, config.seed)
    part_of = np.where(grouping.group_of >= 0, part_of_group[grouping.group_of], -1)
    return Split(
        source=source,
        root=root,
        names=names,
        names_from=names_from,
        index=index,
        grouping=grouping,
        shares=shares,
        part_of=part_of,
        problems=(*index.problems, *checks.problems, *unlisted.values()),
        pattern=config.groups,
    )


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _labels(source: Path, given: tuple[str, ...], cache: Path, title: str) -> tuple[LabelIndex, tuple[str, ...], str]:
    """Images and labels, the names of the classes, and what says these."""
    if source.is_dir():
        sources, base = [source], None
        names, names_from = (given, "--names") if given else _names_in(source)
    else:
        spec = read_dataset_yaml(source)
        spec = spec.having(*(part for part in SPLITS if spec.split(part)))
        sources, base = [place for part in SPLITS for place in spec.split(part)], spec.root
        names, names_from = (given, "--names") if given else (spec.names, source.name)
        if spec.annotations:
            LOGGER.warning("%s: annotations: belong to the parts as they were; the new YAML has none", source)
        if spec.tile is not None:
            LOGGER.warning("%s: tile: is not taken over; train with --tile %d", source, spec.tile)
    placeholders = tuple(map(str, range(MOST_CLASSES)))
    names = names or _voc_names(list_images(sources, base))
    index = read_label_index(sources, names or placeholders, title=title, cache_folder=cache, root=base)
    if index.unlabelled == len(index):
        found = next(source.rglob("*.json"), None) if source.is_dir() else next(iter(spec.annotations.values()), None)
        hint = f"; `{_conversion(found, index.paths, source)}` makes label files" if found else ""
        example = f"for {index.paths[0]} there is no {label_path(index.paths[0])}"
        raise UserError(f"{source}: none of {counted(len(index), 'image')} has a label file ({example}){hint}")
    if not names:
        names = placeholders[: int(index.rows[:, 0].max(initial=0)) + 1]
    return index, names, names_from


def _conversion(annotations: Path, images: Sequence[Path], source: Path) -> str:
    """The command that makes label files of a COCO file; the numbers of classes stay those of a dataset YAML."""
    folder = os.path.commonpath([path.parent for path in images])
    words = ["coco", annotations, "--images", folder, *(("--data", source) if source.is_file() else ())]
    return shlex.join(["python", "-m", "utils.dataset.converters", *map(str, words)])


def _names_in(folder: Path) -> tuple[tuple[str, ...], str]:
    """The names of the classes and the file of the folder that has them; nothing if there is none."""
    found: dict[tuple[str, ...], Path] = {}
    for file in sorted(file for suffix in ("yaml", "yml") for file in folder.glob(f"*.{suffix}")):
        content = dataset_content(file)
        if content.get("names"):
            found.setdefault(class_names(file, content), file)
    for file in sorted(file for name in NAME_FILES for file in folder.rglob(name)) if not found else ():
        lines = file.read_bytes().decode("utf-8-sig", errors="replace").split("\n")
        names = tuple(" ".join(line.split()) for line in lines if line.strip())
        if names:
            found.setdefault(names, file)
    if len(found) > 1:
        first, second, *_ = found.values()
        raise UserError(f"{first} and {second} name other classes; say the right ones with --names")
    return next(((names, str(file.relative_to(folder))) for names, file in found.items()), ((), ""))


def _voc_names(images: Sequence[Path]) -> tuple[str, ...]:
    """Names of the objects in Pascal VOC files, in alphabetical order; nothing where an image has rows instead."""
    names: set[str] = set()
    for image in images:
        file = label_file(image)
        if file.suffix != ".xml":
            if file.is_file():
                return ()
            continue
        content = parse_voc(file.read_bytes().decode("utf-8-sig", errors="replace"), str(file))
        if isinstance(content, VocFile):
            names.update(item.name for item in content.objects)
    return tuple(sorted(names))


def _unlistable(paths: Sequence[Path]) -> dict[int, LabelProblem]:
    """Images that no list of images can name, which is text with one name a line."""
    return {
        place: LabelProblem(ascii(str(path)), 0, "cannot stand in a list of images; rename it, or use --folders")
        for place, path in enumerate(paths)
        if len(str(path).splitlines()) > 1 or not _is_text(str(path))
    }


def _is_text(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # bytes that are not UTF-8
        return False


def _check_enough(source: Path, grouping: Grouping, shares: Sequence[float]) -> None:
    wanted = sum(share > 0 for share in shares)
    if grouping.count >= wanted:
        return
    rules = Counter(join.rule for join in grouping.joins)
    joined = ", ".join(f"{rule} {count}" for rule, count in rules.most_common())
    why = f" (joined by: {joined})" if joined else ""
    flags = " or ".join(FLAGS[rule] for rule in rules if rule in FLAGS)
    hint = f"; another {flags} joins fewer of them" if flags else ""
    images = counted(int((grouping.group_of >= 0).sum()), "image")
    raise UserError(f"{source}: {images} in {counted(grouping.count, 'group')}{why}, too few for {wanted} parts{hint}")


def _of_groups(split: Split) -> list[str]:
    said = []
    images, sizes = split.image_counts(), split.grouping.sizes
    total = int(images.sum())
    largest = int(sizes.max())
    small = [part for part in split.parts if largest > split.shares[SPLITS.index(part)] * total]
    if small and largest > 1:
        part = SPLITS[int(split.part_of[split.grouping.group_of == int(sizes.argmax())][0])]
        said.append(
            f"The largest group has {largest} of {total} images ({largest / total:.0%}), more than the share of "
            f"{' and '.join(small)}; it is in {part}."
        )
    for part in split.parts:
        wanted, got = split.shares[SPLITS.index(part)], images[SPLITS.index(part)] / total
        if abs(got - wanted) > max(0.2 * wanted, 1 / total):
            said.append(f"{part} has {got:.1%} of the images where {wanted:.1%} was asked for: no group is cut.")
    if split.pattern and split.grouping.matched < len(split.index):
        found = f"{split.grouping.matched} of {counted(len(split.index), 'image')}"
        said.append(f"--groups {split.pattern!r} is found in the names of {found}; the others are grouped without it.")
    return said


def _of_classes(split: Split) -> list[str]:
    said = []
    if not split.names_from:
        said.append("No file of the folder names the classes: they are called by their numbers (--names).")
    counts = split.object_counts().sum(axis=2)
    images, cells = object_cells(split.index)
    groups = split.grouping.group_of[images]
    pairs = np.unique(np.stack([cells[groups >= 0] // len(SIZES), groups[groups >= 0]]), axis=1)
    holders = np.bincount(pairs[0], minlength=len(split.names))  # groups of each class
    for part in split.parts:
        missing = np.flatnonzero((counts[SPLITS.index(part)] == 0) & (holders > 0)).tolist()
        if missing:
            shown = ", ".join(f"{split.names[kind]} ({counted(int(holders[kind]), 'group')})" for kind in missing[:8])
            more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
            said.append(f"{counted(len(missing), 'class')} without an object in {part}: {shown}{more}.")
    return said


def _of_left_out(split: Split) -> list[str]:
    said = []
    if split.index.unlabelled:
        said.append(f"{counted(split.index.unlabelled, 'image')} without a label file: kept, as background.")
    rows = sum(problem.line > 0 for problem in split.problems)
    if len(split.problems) > rows:
        said.append(f"{counted(len(split.problems) - rows, 'file')} that cannot be used, left out.")
    if rows:
        said.append(f"{counted(rows, 'label row')} that cannot be used; training leaves out the same.")
    return said

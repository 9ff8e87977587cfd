"""Images that belong together, so that no two parts of a data set show the same thing: groups, and what joined them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from utils.dataset.image_checks import HASH_SIDE, NEAR, ImageChecks, all_alike
from utils.dataset.image_lists import original_name
from utils.runtime.console_log import with_progress
from utils.runtime.threads import usable_processors

SAME_BYTES = "the same file"
SAME_ORIGINAL = "one original"
SAME_PATTERN = "your pattern"
LOOK_ALIKE = "look alike"
TOGETHER = "taken together"
IN_A_ROW = "frames in a row"
RULES = {
    SAME_BYTES: "byte for byte the same",
    SAME_ORIGINAL: "versions that Roboflow made of one image (name.rf.…)",
    SAME_PATTERN: "the same text where --groups looks",
    LOOK_ALIKE: "hashes differ in no more bits than --bits",
    TOGETHER: "one folder and camera, within --seconds of the one before",
    IN_A_ROW: "neighbours by number in the file name, no more than --frame-bits apart",
}
FLAGS = {SAME_PATTERN: "--groups", LOOK_ALIKE: "--bits", TOGETHER: "--seconds", IN_A_ROW: "--frame-bits"}
FRAME_BITS = HASH_SIDE**2 // 4  # neighbours by number in COCO128, which are no frames, are 93 bits apart or more
SECONDS = 30.0
# Folders of an earlier split, which may have torn a film apart.
PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "images"})

_EXIF_IFD, _TAKEN_AT, _FRACTION, _SERIAL, _MAKE, _MODEL = 0x8769, 0x9003, 0x9291, 0xA431, 0x010F, 0x0110
_CALENDAR = re.compile(  # 2024-01-31T14.25.30, IMG_20240131_142530123
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])[-_. T]*"
    r"([01]\d|2[0-3])[-_.:h]?([0-5]\d)[-_.:m]?([0-5]\d)(?:[.,_]?(\d{3}))?(?!\d)"
)
_CLOCK = re.compile(r"(?<!\d)(1[0-9]{9})(\d{3}|\d{6}|\d{9})(?!\d)")  # milli-, micro-, nanoseconds since 1970
_NUMBERED = re.compile(r"(.*?)(\d{1,18})(\D*)", re.DOTALL)


class Join(NamedTuple):
    """Two groups that became one by two of their images."""

    first: int
    second: int
    rule: str  # one of `RULES`
    detail: str  # how near they are


@dataclass(frozen=True, slots=True)
class GroupingRules:
    """What joins images. A limit of 0 seconds or bits leaves its rule out, but hashes that are the same still join."""

    bits: int = NEAR  # of 256, between images that look alike
    frame_bits: int = FRAME_BITS  # of 256, between neighbours by number
    seconds: float = SECONDS
    pattern: re.Pattern[str] | None = None  # searched for in the path below the data set; its one group is compared


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which of F images belong together."""

    group_of: np.ndarray  # (F,) int64, groups numbered from 0 in the order of their first image; -1: left out
    joins: tuple[Join, ...]  # for each group of k images k - 1 of them, which connect it
    matched: int  # images in which the pattern was found

    @property
    def count(self) -> int:
        return int(self.group_of.max(initial=-1)) + 1

    @property
    def sizes(self) -> np.ndarray:
        """Images (G,) of each group."""
        return np.bincount(self.group_of[self.group_of >= 0], minlength=self.count)


def find_groups(
    names: Sequence[str], paths: Sequence[Path], checks: ImageChecks, rules: GroupingRules, *, title: str = ""
) -> Grouping:
    """Join the images of ``checks`` that can be read.

    Args:
        names: paths (F) below the data set, with ``/``; what folders, numbers and times are read from.
        paths: files (F), whose EXIF tags are read.
        title: of the progress bar; without it there is none.
    """
    places = np.flatnonzero(checks.readable).tolist()
    groups = _Groups(len(names))
    for copies in checks.copies():
        groups.join_all(copies, SAME_BYTES)
    named = [PurePosixPath(name) for name in names]
    groups.join_equal(places, [original_name(name.stem) for name in named], SAME_ORIGINAL)
    keys = [_found_by(rules.pattern, name) for name in names]
    groups.join_equal(places, keys, SAME_PATTERN)
    for place, others, bits in all_alike(checks, rules.bits):
        for other, distance in groups.apart(place, others, bits):
            groups.join(place, other, LOOK_ALIKE, f"{distance} of 256 bits")
    if rules.seconds > 0:
        times = _capture_times(named, paths, places, title)
        _join_times(groups, times, rules.seconds)
    if rules.frame_bits > 0:
        _join_frames(groups, named, checks, rules.frame_bits)
    root = groups.root
    root[~checks.readable] = -1
    numbers = {first: number for number, first in enumerate(np.unique(root[root >= 0]).tolist())}
    group_of = np.array([numbers.get(first, -1) for first in root.tolist()], dtype=np.int64)
    return Grouping(group_of, tuple(groups.joins), sum(key is not None for key in keys))


class _Groups:
    """Sets of images that grow together; each is named by its first image."""

    def __init__(self, count: int) -> None:
        self.root = np.arange(count)
        self.joins: list[Join] = []

    def join(self, first: int, second: int, rule: str, detail: str) -> None:
        a, b = sorted((int(self.root[first]), int(self.root[second])))
        if a != b:
            self.root[self.root == b] = a
            self.joins.append(Join(first, second, rule, detail))

    def join_all(self, places: Sequence[int], rule: str, detail: str = "") -> None:
        for first, second in itertools.pairwise(places):
            self.join(first, second, rule, detail)

    def join_equal(self, places: Sequence[int], keys: Sequence[str | None], rule: str) -> None:
        """Join images of one key; None is none."""
        found: dict[str, list[int]] = {}
        for place in places:
            key = keys[place]
            if key is not None:
                found.setdefault(key, []).append(place)
        for key, same in found.items():
            self.join_all(same, rule, key)

    def apart(self, place: int, others: np.ndarray, distances: np.ndarray) -> Iterator[tuple[int, int]]:
        """Those of ``others`` that are in other groups than ``place``, nearest first, and their distances."""
        apart = self.root[others] != self.root[place]
        others, distances = others[apart], distances[apart]
        for i in np.argsort(distances, kind="stable"):
            yield int(others[i]), int(distances[i])


def _folder(name: PurePosixPath) -> str:
    """The folder of an image, whatever part it was in."""
    return "/".join(part for part in name.parent.parts if part.lower() not in PARTS)


def _found_by(pattern: re.Pattern[str] | None, name: str) -> str | None:
    match = pattern.search(name) if pattern else None
    return match[1] if match else None


class _Moment(NamedTuple):
    """When an image was taken, and what else was taken by the same clock."""

    clock: tuple[str, str]  # folder (`_folder`), and the camera's tags or '' for a time in the name
    seconds: float  # since 1970, by that clock
    place: int


def _capture_times(
    named: Sequence[PurePosixPath], paths: Sequence[Path], places: Sequence[int], title: str
) -> list[_Moment]:
    def taken(place: int) -> _Moment | None:
        found = _by_exif(paths[place]) or _by_name(original_name(named[place].stem) or named[place].stem)
        return _Moment((_folder(named[place]), found[0]), found[1], place) if found else None

    with ThreadPoolExecutor(usable_processors()) as pool:
        found = list(with_progress(pool.map(taken, places), len(places), "image", title, shown=bool(title)))
    return sorted(moment for moment in found if moment)


def _by_exif(path: Path) -> tuple[str, float] | None:
    """Camera and time of the shot, by the tags of the file."""
    try:
        with path.open("rb") as file, Image.open(file) as image:
            if image.format == "PNG" and "exif" not in image.info:
                return None  # to look behind the pixels for tags, Pillow would decode them all
            tags = image.getexif()
            shot = tags.get_ifd(_EXIF_IFD)
            text = str(shot.get(_TAKEN_AT, "")).strip("\0 ")
            if not text:
                return None
            camera = " ".join(str(tag) for tag in (tags.get(_MAKE), tags.get(_MODEL), shot.get(_SERIAL)) if tag)
            fraction = float(f"0.{str(shot.get(_FRACTION, '')).strip() or 0}")
            return camera or "EXIF", _seconds(datetime.strptime(text, "%Y:%m:%d %H:%M:%S")) + fraction
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError, KeyError, TypeError, IndexError):
        return None  # a broken tag block says nothing


def _by_name(stem: str) -> tuple[str, float] | None:
    calendar, clock = _CALENDAR.search(stem), _CLOCK.search(stem)
    if calendar:
        try:
            moment = datetime(*(int(part) for part in calendar.groups()[:6]))  # type: ignore[arg-type]
        except ValueError:  # the 31st of February
            return None
        return "", _seconds(moment) + int(calendar[7] or 0) / 1000
    return ("", int(clock[1]) + float(f"0.{clock[2]}")) if clock else None


def _seconds(moment: datetime) -> float:
    return (moment - datetime(1970, 1, 1)).total_seconds()


def _join_times(groups: _Groups, moments: Sequence[_Moment], limit: float) -> None:
    for before, after in itertools.pairwise(moments):
        gap = after.seconds - before.seconds
        if before.clock == after.clock and gap < limit:
            groups.join(before.place, after.place, TOGETHER, f"{gap:g} s")


def _join_frames(groups: _Groups, named: Sequence[PurePosixPath], checks: ImageChecks, most_bits: int) -> None:
    """Join neighbours by number that are somewhat alike: most sets are numbered, and few are films."""
    series: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for place in np.flatnonzero(checks.telling).tolist():
        path = named[place]
        match = _NUMBERED.fullmatch(original_name(path.stem) or path.stem)
        if match:
            # Both, as parts may count each for itself.
            for folder in {str(path.parent), f"{_folder(path)}/"}:
                series.setdefault((folder, match[1], match[3]), []).append((int(match[2]), place))
    for frames in series.values():
        for (_, before), (_, after) in itertools.pairwise(sorted(frames)):
            bits = checks.distance(before, after)
            if bits <= most_bits:
                groups.join(before, after, IN_A_ROW, f"{bits} of 256 bits")

"""What the files about each source are called: one name for each image and each frame of a video, none given twice.

Names differ in more than case, as the folder of a run may lie on, or be copied to, a file system that ignores it.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

LOGGER = logging.getLogger(__name__)

WRITABLE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
FRAME_NAME = re.compile(r"(.+)_(?:0|[1-9][0-9]*)", re.DOTALL)  # a video's name and the number of a frame

NOTHING_KNOWN: Mapping[Path, bool] = MappingProxyType({})


class OutputNames:
    """The names of a run's sources; a source has the same name however often, and by whichever thread, it is asked for.

    Sources that are known beforehand are named at once, in their order; others (a list on standard input) as they come.
    The first source of a name keeps it, others get a number. Repeated names are said once in the log.
    """

    def __init__(self, known: Mapping[Path, bool] = NOTHING_KNOWN) -> None:
        """``known``: files and streams in order, and whether each is a video."""
        self._free = FreeNames()
        self._stems = dict(zip(known, self._free.take_all([(path.stem, known[path]) for path in known]), strict=True))
        self._known = known
        self._naming = threading.Lock()
        _warn_of_repeated_names(known, self._stems)

    def stem(self, path: Path, *, video: bool = False) -> str:
        """The name of the source's own files; ``video`` counts for a source that was not known beforehand."""
        with self._naming:
            if path not in self._stems:
                self._stems[path] = self._free.take(path.stem, video=video)
            return self._stems[path]

    def of(self, path: Path, number: int | None = None) -> str:
        """The name of the files about an image, or about the frame of this number of a video."""
        return self.stem(path) if number is None else f"{self.stem(path, video=True)}_{number}"

    def title(self, path: Path) -> str:
        """What tables call a source: its file's name; where that repeats, its path below the folder that all share."""
        with self._naming:
            return str(self._titles.of(path, path.name))

    def image_id(self, path: Path, number: int | None = None) -> int | str:
        """The id in COCO results: the number that a file is named with, otherwise its name; of a frame, as ``of``.

        Images that would have one id, and those whose files were numbered, have the path as ``title`` does.
        """
        if number is not None:
            return self.of(path, number)
        with self._naming:
            known = self._image_ids.given.get(path)
        if known is not None:
            return known
        self.stem(path)
        with self._naming:
            return self._image_ids.of(path, plain_image_id(path) if self._keeps(path) else None)

    def image_file(self, path: Path, number: int | None = None) -> str:
        """The name of a copy of an image or frame: in the image's format, or as JPEG where that is not written."""
        suffix = path.suffix if path.suffix.lower() in WRITABLE_SUFFIXES else ".jpg"
        return f"{self.of(path, number)}{suffix}"

    @cached_property
    def _titles(self) -> _Labels:
        return _Labels({path: path.name for path in self._known})

    @cached_property
    def _image_ids(self) -> _Labels:
        ids = {path: plain_image_id(path) for path, video in self._known.items() if not video}
        _warn_of_repeated_ids(ids)
        return _Labels(ids, barred=[path for path in ids if not self._keeps(path)])

    def _keeps(self, path: Path) -> bool:
        return self._stems[path] == path.stem


class FreeNames:
    """Names that are given away once each; a video ``v`` has the names ``v_0``, ``v_1``, ... of its frames too."""

    def __init__(self, separator: str = "") -> None:
        """``separator``: what stands between a name and the number that it gets where it repeats."""
        self._separator = separator
        self._taken: set[str] = set()
        self._videos: set[str] = set()
        self._named_as_frames: set[str] = set()  # what stands before the numbers of such images
        self._next_numbers: dict[str, int] = {}

    def take_all(self, wanted: Sequence[tuple[str, bool]]) -> list[str]:
        """Names for several, with whether each is a video; a number is given only when all names that are free are."""
        kept = [self._take(name, video) for name, video in wanted]
        return [name if own else self._numbered(name, video) for own, (name, video) in zip(kept, wanted, strict=True)]

    def take(self, name: str, *, video: bool = False) -> str:
        """``name`` if it is free, otherwise the first free of ``name2``, ``name3``, ...; after a digit ``v1-2``, ..."""
        return name if self._take(name, video) else self._numbered(name, video)

    def _take(self, name: str, video: bool) -> bool:
        key = name.casefold()
        video_of = None if video else _video_of(key)
        if key in self._taken or (video and key in self._named_as_frames) or video_of in self._videos:
            return False
        self._taken.add(key)
        if video:
            self._videos.add(key)
        elif video_of is not None:
            self._named_as_frames.add(video_of)
        return True

    def _numbered(self, name: str, video: bool) -> str:
        key = name.casefold()
        separator = self._separator or ("-" if name[-1:].isdigit() else "")
        number = self._next_numbers.get(key, 2)  # begun anew, n sources of one name would take n * n / 2 trials
        while not self._take(f"{name}{separator}{number}", video):
            number += 1
        self._next_numbers[key] = number + 1
        return f"{name}{separator}{number}"


class PartFiles:
    """Files of one ending in a folder: those of a video that goes on in further ones are ``NAME_part2``, ..."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder = folder
        self._suffix = suffix
        self._taken: set[Path] = set()

    def free(self, stem: str) -> Path:
        """Where the next file of the video ``stem`` goes."""
        path, number = self._folder / f"{stem}{self._suffix}", 2
        while path in self._taken:
            path, number = self._folder / f"{stem}_part{number}{self._suffix}", number + 1
        self._taken.add(path)
        return path


class _Labels:
    """A label for each source: a plain one where no other source has it, otherwise the source's path."""

    def __init__(self, plain: Mapping[Path, int | str], barred: Collection[Path] = ()) -> None:
        """``plain``: of the sources known beforehand; ``barred``: those of them that have to have their path."""
        counts = Counter(plain.values())
        paths_only = frozenset(barred)
        self.given = {path: label for path, label in plain.items() if counts[label] == 1 and path not in paths_only}
        self._taken = set(self.given.values())
        self._folder = _common_folder(plain) if len(self.given) < len(plain) else None
        if self._folder is not None:
            for path in plain:
                self.of(path, None)

    def of(self, path: Path, plain: int | str | None) -> int | str:
        label = self.given.get(path)
        if label is None:
            label = self.given[path] = self._first_free(path, plain)
            self._taken.add(label)
        return label

    def _first_free(self, path: Path, plain: int | str | None) -> int | str:
        if plain is not None and plain not in self._taken:
            return plain
        below = str(path) if self._folder is None else _absolute(path).removeprefix(self._folder)
        return _absolute(path) if below in self._taken else below


def plain_image_id(path: Path) -> int | str:
    """COCO's image id of a file that is alone with it: the number that it is named with, otherwise its stem."""
    return int(path.stem) if path.stem.isdecimal() else path.stem


def _video_of(name: str) -> str | None:
    """The video that has a frame of this name, if it were one's."""
    match = FRAME_NAME.fullmatch(name)
    return match[1] if match else None


def _common_folder(paths: Iterable[Path]) -> str:
    """The folder that all lie in or below, with the separator behind it."""
    alike = os.path.commonprefix([_absolute(path) for path in paths])  # noqa: RUF071  (cut at a separator)
    return alike[: alike.rfind(os.sep) + 1]


def _absolute(path: Path) -> str:
    return str(path) if path.is_absolute() else str(path.absolute())  # the second takes 5 times as long


def _warn_of_repeated_names(known: Mapping[Path, bool], stems: Mapping[Path, str]) -> None:
    renamed = next((path for path in known if stems[path] != path.stem), None)
    if renamed is not None:
        other = next(path for path in known if path != renamed and _clash(path, renamed, known))
        LOGGER.warning(
            "%s and %s have one name: files about the second are called %s, and further repeats are numbered too",
            *(other, renamed, stems[renamed]),
        )


def _warn_of_repeated_ids(ids: Mapping[Path, int | str]) -> None:
    first: dict[int | str, Path] = {}
    for path, image_id in ids.items():
        if (other := first.setdefault(image_id, path)) is not path:
            LOGGER.warning("%s and %s: image id %s twice; COCO results have their paths instead", other, path, image_id)
            return


def _clash(first: Path, second: Path, known: Mapping[Path, bool]) -> bool:
    """Whether the two, or a frame of one and the other, have one name."""
    names = first.stem.casefold(), second.stem.casefold()
    if known[first] == known[second] or names[0] == names[1]:
        return names[0] == names[1]
    return _video_of(names[1]) == names[0] if known[first] else _video_of(names[0]) == names[1]

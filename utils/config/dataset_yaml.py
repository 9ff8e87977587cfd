"""Dataset YAML: where the images of each split lie and what the classes are called. Data only; nothing in it runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from utils.config.command_line import nearest_name
from utils.config.dataset_file import KNOWN_KEYS, SPLITS, class_names, dataset_content, dataset_folder, required
from utils.user_error import UserError

log = logging.getLogger(__name__)

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
TILES = range(32, 8193)  # pixels, as --tile
SHOWN_URLS = 3  # in a message
CONVERSIONS = ("coco", "dota", "sku110k", "visdrone", "voc", "xview")  # what ``convert:`` may name


@dataclass(frozen=True, slots=True)
class Download:
    """One file of a data set on the web; archives are unpacked into ``folder``."""

    url: str
    folder: Path
    sha256: str | None = None  # hexadecimal

    @property
    def place(self) -> Path:
        """The file itself, where it is put, or may be put by hand."""
        name = Path(unquote(urlsplit(self.url).path)).name
        return self.folder / (name.replace("\0", "") or "file")


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A dataset YAML, read and checked. Every path is absolute."""

    file: Path
    root: Path
    train: tuple[Path, ...]  # folders of images or .txt lists of images
    val: tuple[Path, ...]
    test: tuple[Path, ...]  # empty when the YAML names none
    names: tuple[str, ...]  # names[i] is class i
    download: tuple[Download, ...]
    annotations: Mapping[str, Path]  # COCO annotation file of a split, where one is named; it need not exist
    lone_annotations: bool  # one name for all splits: val's, and of others that have no labels of their own
    tile: int | None  # side of the windows that images are cut into for training, pixels
    convert: str | None  # format of the annotations as published, of which label files have to be made
    obtain: str  # where to get what cannot be fetched, '' for nothing
    size: str  # of all there is to get, '' where it is not known

    def split(self, name: str) -> tuple[Path, ...]:
        """Folders and lists of ``train``, ``val`` or ``test``."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def having(self, *parts: str) -> DatasetSpec:
        """The same, for who needs these parts to be there.

        Raises:
            UserError: a folder or list of them does not exist.
        """
        for part in parts:
            missing = next((source for source in self.split(part) if not source.exists()), None)
            if missing is not None:
                raise UserError(f"{self.file}: {part}: {missing} does not exist{self._way_to_it()}")
        return self

    def _way_to_it(self) -> str:
        """How to get what is missing, as the end of a sentence."""
        size = f" ({self.size})" if self.size else ""
        if self.obtain:
            return f"; {self.obtain.replace('FOLDER', str(self.root))}{size}"
        urls = [item.url for item in self.download]
        more = f" and {len(urls) - SHOWN_URLS} more" if len(urls) > SHOWN_URLS else ""
        return f"; download {' '.join(urls[:SHOWN_URLS])}{more}{size} into {self.root}" if urls else ""

    @property
    def class_count(self) -> int:
        return len(self.names)


def read_dataset_yaml(path: Path, *, quiet: bool = False) -> DatasetSpec:
    """Read a dataset YAML.

    A relative ``path:`` is looked for from the YAML's folder first (`dataset_folder`); splits are relative to it and
    need not exist (`DatasetSpec.having`). ``quiet``: without the warnings, which the reading after a download gives.

    Raises:
        UserError: naming file and key, for anything missing, of a wrong type, or in disagreement.
    """
    content = dataset_content(path)
    for key in ("train", "val", "names"):
        required(path, content, key)
    for key in content:
        if key not in KNOWN_KEYS and not quiet:
            near = nearest_name(key.lower(), KNOWN_KEYS)
            log.warning("%s: the key %r is not known and is ignored%s", path, key, near)

    root = _root(path, content.get("path"))
    names = class_names(path, content)
    splits = {key: _split(path, root, key, content.get(key)) for key in SPLITS}
    annotations = content.get("annotations")
    return DatasetSpec(
        file=path,
        root=root,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        names=names,
        download=_downloads(path, root, content.get("download")),
        annotations=_annotations(path, root, annotations),
        lone_annotations=isinstance(annotations, str),
        tile=_tile(path, content.get("tile")),
        convert=_conversion(path, content.get("convert")),
        obtain=_text(path, "obtain", content.get("obtain")),
        size=_text(path, "size", content.get("size")),
    )


def _root(file: Path, value: object) -> Path:
    if value is None:
        return file.resolve().parent
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise UserError(f"{file}: path: {value!r} is not a folder's name")
    given = Path(value).expanduser()
    return dataset_folder(given, file.resolve().parent)


def _split(file: Path, root: Path, key: str, value: object) -> tuple[Path, ...]:
    if value is None:
        return ()
    entries: list[Any] = value if isinstance(value, list) else [value]
    if not entries:
        raise UserError(f"{file}: {key}: the list is empty")
    for entry in entries:
        if not isinstance(entry, str) or not entry.strip() or "\0" in entry:
            raise UserError(f"{file}: {key}: {entry!r} is not a folder or a .txt list")
    paths = []
    for entry in entries:
        source = root / Path(entry).expanduser()
        # Exported datasets commonly write `../train/images` for a folder that lies beside the YAML.
        if not source.exists() and entry.startswith("../") and (root / entry[3:]).exists():
            source = root / entry[3:]
        paths.append(source.resolve())
    return tuple(paths)


def _annotations(file: Path, root: Path, value: object) -> dict[str, Path]:
    named = dict.fromkeys(SPLITS, value) if isinstance(value, str) else value
    if named is None:
        return {}
    if not isinstance(named, dict):
        raise UserError(f"{file}: annotations: has to be a JSON file, or a table of them under train, val, test")
    for split, name in named.items():
        if split not in SPLITS:
            raise UserError(f"{file}: annotations: {split!r} is no part of a data set; the parts are train, val, test")
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise UserError(f"{file}: annotations: {split}: {name!r} is not the name of a JSON file")
    return {split: (root / Path(name).expanduser()).resolve() for split, name in named.items()}


def _tile(file: Path, value: object) -> int | None:
    if value is None or (type(value) is int and value == 0):
        return None
    if type(value) is not int or not TILES.start <= value < TILES.stop:
        raise UserError(f"{file}: tile: {value!r} is not a side in pixels, {TILES.start} to {TILES.stop - 1}")
    return value


def _conversion(file: Path, value: object) -> str | None:
    name = _text(file, "convert", value)
    if name and name not in CONVERSIONS:
        raise UserError(f"{file}: convert: {name!r} is not a format; the formats are {', '.join(CONVERSIONS)}")
    return name or None


def _text(file: Path, key: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{file}: {key}: {value!r} is not a text")
    return " ".join(value.split())


def _downloads(file: Path, root: Path, value: object) -> tuple[Download, ...]:
    """URLs, or tables of url, sha256 and to (a folder of the data set).

    Archives go, as in YOLOv5, beside the data set's folder, which they commonly hold; single files go into it.
    """
    if value is None or value is False:
        return ()
    entries: list[Any] = value if isinstance(value, list) else [value]
    return tuple(_download(file, root, entry if isinstance(entry, dict) else {"url": entry}) for entry in entries)


def _download(file: Path, root: Path, entry: Mapping[Any, object]) -> Download:
    url, sha256, folder = entry.get("url"), entry.get("sha256"), entry.get("to")
    unknown = [str(key) for key in entry if key not in ("url", "sha256", "to")]
    if unknown:
        raise UserError(f"{file}: download: {unknown[0]!r} is not known; an entry has url, sha256 and to")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")) or len(url.split()) != 1:
        shown = " ".join(str(url).split())[:60]
        raise UserError(f"{file}: download: takes URLs only and never runs code, not {shown!r}")
    if sha256 is not None and (not isinstance(sha256, str) or not re.fullmatch("[0-9a-fA-F]{64}", sha256)):
        raise UserError(f"{file}: download: sha256: {sha256!r} is not 64 hexadecimal digits (put it in quotes)")
    if folder is None:
        folder = ".." if is_archive(url) else "."
    inside = isinstance(folder, str) and not Path(folder).is_absolute() and ".." not in Path(folder).parts
    if not isinstance(folder, str) or "\0" in folder or not (inside or folder == ".."):
        raise UserError(f"{file}: download: to: {folder!r} is not a folder of the data set, nor '..' for the one above")
    return Download(url, (root / folder).resolve(), sha256)


def is_archive(url: str) -> bool:
    """Whether a file of this name is to be unpacked."""
    return urlsplit(url).path.lower().endswith(ARCHIVE_SUFFIXES)

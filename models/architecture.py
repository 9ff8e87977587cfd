"""Architecture files: YOLOv5's YAML rows ``[from, number, module, arguments]``, checked and frozen.

nc: 80                  classes
depth_multiple: 0.33    scales the number of a row that asks for more than one
width_multiple: 0.25    scales the output channels of a row
anchors: [[10, 13, ...], ...]   widths and heights in pixels, one list per level; or how many per level; none with
                                an anchor-free head
backbone: [[-1, 1, Conv, [64, 6, 2, 2]], ...]
head: [...]
activation: nn.SiLU()   optional
ch: 3                   optional, input channels
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from utils.user_error import UserError

MODELS_FOLDER = Path(__file__).resolve().parent
KEYS = (
    "nc",
    "depth_multiple",
    "width_multiple",
    "anchors",
    "backbone",
    "head",
    "activation",
    "ch",
    "channel_multiple",
)
ANCHOR_FREE = "AnchorFreeDetect"  # the module of the head that needs no anchors
DEFAULT_ACTIVATION = "nn.SiLU()"
LARGEST_COUNT = 100_000  # of classes, channels, anchors, repeats: more is a slip, and would be built for ever

Argument = None | bool | int | float | str | tuple["Argument", ...]


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One row as written. ``sources``: negative counts back from the row, otherwise a layer's index."""

    sources: tuple[int, ...]
    number: int
    module: str
    arguments: tuple[Argument, ...]

    def as_list(self) -> list[Any]:
        sources = self.sources[0] if len(self.sources) == 1 else list(self.sources)
        return [sources, self.number, self.module, [_thawed(a) for a in self.arguments]]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A checked architecture file.

    ``anchors``: pixels per level ``(w, h, w, h, ...)``, or a number per level; 0 with an anchor-free head.
    """

    origin: str  # the file, for messages
    class_count: int
    depth_multiple: float
    width_multiple: float
    anchors: tuple[tuple[float, ...], ...] | int
    backbone: tuple[LayerRow, ...]
    head: tuple[LayerRow, ...]
    activation: str = DEFAULT_ACTIVATION
    channels: int | None = None  # None: as the caller says
    channel_multiple: int = 8

    @property
    def rows(self) -> tuple[LayerRow, ...]:
        return self.backbone + self.head

    def place(self, index: int) -> str:
        """How messages name the layer ``index``."""
        section, row = ("backbone", index) if index < len(self.backbone) else ("head", index - len(self.backbone))
        module = self.rows[index].module if index < len(self.rows) else "?"
        return f"{self.origin}: {section} row {row} (layer {index}, {module})"

    def scaled_width(self, channels: int) -> int:
        """Output channels after the width multiple, rounded up to a multiple of 8."""
        multiple = self.channel_multiple
        return math.ceil(channels * self.width_multiple / multiple) * multiple

    def scaled_depth(self, number: int) -> int:
        """Repeats after the depth multiple; a single layer stays single."""
        return max(round(min(number * self.depth_multiple, sys.maxsize)), 1) if number > 1 else number

    def with_anchor_count(self, count: int) -> Architecture:
        """The same architecture with ``count`` anchors per level, their sizes open until fitted to a data set."""
        return replace(self, anchors=count)

    def as_dict(self) -> dict[str, Any]:
        """Plain values under the keys of the YAML file, for a checkpoint."""
        anchors = self.anchors if isinstance(self.anchors, int) else [list(level) for level in self.anchors]
        values: dict[str, Any] = {
            "nc": self.class_count,
            "depth_multiple": self.depth_multiple,
            "width_multiple": self.width_multiple,
            "anchors": anchors,
            "backbone": [row.as_list() for row in self.backbone],
            "head": [row.as_list() for row in self.head],
            "activation": self.activation,
            "channel_multiple": self.channel_multiple,
        }
        return values if self.channels is None else values | {"ch": self.channels}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], origin: str = "checkpoint") -> Architecture:
        """The architecture that plain values describe; UserError names ``origin``, row and value."""
        for key in values:
            if key not in KEYS:
                raise UserError(f"{origin}: unknown key '{key}'{nearest(str(key), KEYS)}")
        for key in ("nc", "anchors", "backbone", "head"):
            if key not in values and not (key == "anchors" and _is_anchor_free(values.get("head"))):
                raise UserError(f"{origin}: key '{key}' is missing")
        backbone = _rows(values["backbone"], f"{origin}: backbone")
        return cls(
            origin=origin,
            class_count=_whole(values["nc"], f"{origin}: nc"),
            depth_multiple=_positive(values.get("depth_multiple", 1.0), f"{origin}: depth_multiple"),
            width_multiple=_positive(values.get("width_multiple", 1.0), f"{origin}: width_multiple"),
            anchors=_anchors(values.get("anchors"), f"{origin}: anchors", anchor_free=_is_anchor_free(values["head"])),
            backbone=backbone,
            head=_rows(values["head"], f"{origin}: head"),
            activation=str(values.get("activation") or DEFAULT_ACTIVATION),
            channels=_whole(values["ch"], f"{origin}: ch") if values.get("ch") is not None else None,
            channel_multiple=_whole(values.get("channel_multiple") or 8, f"{origin}: channel_multiple"),
        )


def nearest(name: str, valid: Iterable[str]) -> str:
    """``"; nearest is 'X'"`` for the valid name most like ``name``, or nothing."""
    by_lower = {candidate.lower(): candidate for candidate in valid}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; nearest is '{by_lower[matches[0]]}'" if matches else ""


def find_architecture(name: str | Path) -> Path:
    """The architecture file ``name``: a path, or a file of ``models/`` or ``models/hub/``; ``.yaml`` is optional."""
    given = Path(name)
    candidates = [given, given.with_name(given.name + ".yaml")]
    candidates += [folder / each for folder in (MODELS_FOLDER, MODELS_FOLDER / "hub") for each in candidates[:2]]
    for path in candidates:
        if path.is_file():
            return path
    known = [path.name for path in (*MODELS_FOLDER.glob("*.yaml"), *MODELS_FOLDER.glob("hub/*.yaml"))]
    raise UserError(f"{name}: no such architecture file, nor one in models/ or models/hub/{nearest(given.name, known)}")


def read_architecture(path: Path) -> Architecture:
    """The architecture in a YAML file; UserError names file, row and value of a mistake."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply") from error
    # ValueError: PyYAML lets a date such as 2024-99-99 through to datetime; UnicodeDecodeError is one too.
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: an architecture file is a mapping with the keys nc, anchors, backbone, head")
    return Architecture.from_dict(values, str(path))


def _thawed(value: Argument) -> Any:
    return [_thawed(each) for each in value] if isinstance(value, tuple) else value


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{where} is {value!r}; a whole number of at least 1 is needed")
    if value > LARGEST_COUNT:
        raise UserError(f"{where} is {value!r}; a whole number of at most {LARGEST_COUNT} is needed")
    return value


def _positive(value: object, where: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise UserError(f"{where} is {value!r}; a positive number is needed")
    return float(value)


def _is_anchor_free(head: object) -> bool:
    """Whether the rows of a head, as they stand in the file, end with the one that needs no anchors."""
    last = head[-1] if isinstance(head, (list, tuple)) and head else None
    return isinstance(last, (list, tuple)) and ANCHOR_FREE in last


def _anchors(value: object, where: str, *, anchor_free: bool) -> tuple[tuple[float, ...], ...] | int:
    if anchor_free:
        if value not in (None, 0):
            raise UserError(f"{where} are {value!r}, but {ANCHOR_FREE} has none; leave the key out")
        return 0
    if not isinstance(value, (list, tuple)):
        return _whole(value, where)
    levels = []
    for index, level in enumerate(value):
        if not isinstance(level, (list, tuple)) or not level or len(level) % 2:
            raise UserError(f"{where} of level {index} are {level!r}; a list of widths and heights is needed")
        levels.append(tuple(_positive(side, f"{where} of level {index}") for side in level))
    if not levels or len({len(level) for level in levels}) != 1:
        raise UserError(f"{where}: every level needs the same number of anchors")
    return tuple(levels)


def _rows(value: object, where: str) -> tuple[LayerRow, ...]:
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{where} is {value!r}; a list of rows is needed")
    return tuple(_row(each, f"{where} row {index}") for index, each in enumerate(value))


def _row(value: object, where: str) -> LayerRow:
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        raise UserError(f"{where} is {value!r}; [from, number, module, arguments] is needed")
    source, number, module, arguments = value
    sources = tuple(source) if isinstance(source, (list, tuple)) else (source,)
    if not sources or not all(map(_is_integer, sources)):
        raise UserError(f"{where}: from is {source!r}; a layer's number or a list of them is needed")
    if not isinstance(module, str):
        raise UserError(f"{where}: module is {module!r}; a name is needed")
    if not isinstance(arguments, (list, tuple)):
        raise UserError(f"{where}: arguments are {arguments!r}; a list is needed")
    return LayerRow(sources, _whole(number, f"{where}: number"), module, tuple(_argument(a, where) for a in arguments))


def _argument(value: object, where: str) -> Argument:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_argument(each, where) for each in value)
    raise UserError(f"{where}: argument {value!r} is neither a number, a text nor a list")

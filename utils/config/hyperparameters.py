"""Hyperparameters of training and augmentation: YOLOv5's keys and values, each with its unit and range."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)
REPOSITORY = Path(__file__).resolve().parents[2]
HYPS = REPOSITORY / "data" / "hyps"
# Keys that YOLOv5's own files leave out. Without them nothing is done that YOLOv5 would not do.
OPTIONAL = frozenset(
    {
        *("mosaic9", "paste_small", "paste_small_size", "label_smoothing", "anchors", "nominal_batch"),
        *("nwd", "nwd_size", "free_box", "free_cls", "free_dfl"),
    }
)


def number(default: float, low: float, high: float, meaning: str) -> Any:
    """A field with its range; ``meaning`` is one line that starts with the unit where there is one."""
    return field(default=default, metadata={"low": low, "high": high, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What a hyp YAML holds. The defaults are those of ``data/hyps/hyp.scratch-low.yaml``."""

    lr0: float = number(0.01, 1e-7, 10.0, "learning rate at the start (SGD 1e-2, Adam 1e-3)")
    lrf: float = number(0.01, 0.0, 10.0, "final learning rate as a share of lr0")
    momentum: float = number(0.937, 0.0, 0.9999, "SGD momentum or Adam beta1")
    weight_decay: float = number(0.0005, 0.0, 1.0, "for the nominal batch; convolution weights only")
    warmup_epochs: float = number(3.0, 0.0, 1000.0, "epochs, fractions allowed")
    warmup_momentum: float = number(0.8, 0.0, 0.9999, "momentum at the first step")
    warmup_bias_lr: float = number(0.1, 0.0, 10.0, "learning rate of biases at the first step")
    box: float = number(0.05, 0.0, 100.0, "gain of the box loss")
    cls: float = number(0.5, 0.0, 100.0, "gain of the class loss")
    cls_pw: float = number(1.0, 0.0, 100.0, "weight of positives in the class BCE")
    obj: float = number(1.0, 0.0, 100.0, "gain of the objectness loss")
    obj_pw: float = number(1.0, 0.0, 100.0, "weight of positives in the objectness BCE")
    iou_t: float = number(0.2, 0.0, 1.0, "IoU threshold of training; kept for YOLOv5's files, no effect")
    anchor_t: float = number(4.0, 1.0, 100.0, "largest ratio of an object's side to its anchor's")
    fl_gamma: float = number(0.0, 0.0, 10.0, "focal loss gamma; 0 is plain BCE")
    hsv_h: float = number(0.015, 0.0, 1.0, "hue jitter, share of the circle, +/-")
    hsv_s: float = number(0.7, 0.0, 1.0, "saturation jitter, fraction, +/-")
    hsv_v: float = number(0.4, 0.0, 1.0, "value jitter, fraction, +/-")
    degrees: float = number(0.0, 0.0, 180.0, "degrees of rotation, +/-")
    translate: float = number(0.1, 0.0, 1.0, "translation, fraction of the frame, +/-")
    scale: float = number(0.5, 0.0, 0.99, "scale gain, +/-")
    shear: float = number(0.0, 0.0, 89.0, "degrees of shear, +/-")
    perspective: float = number(0.0, 0.0, 0.001, "perspective, fraction per pixel, +/-")
    flipud: float = number(0.0, 0.0, 1.0, "probability of an upside-down flip")
    fliplr: float = number(0.5, 0.0, 1.0, "probability of a left-right flip")
    mosaic: float = number(1.0, 0.0, 1.0, "probability of a mosaic")
    mosaic9: float = number(0.0, 0.0, 1.0, "share of the mosaics made of nine images instead of four")
    mixup: float = number(0.0, 0.0, 1.0, "probability of mixing a second mosaic in")
    copy_paste: float = number(0.0, 0.0, 1.0, "share of the outlined objects pasted mirrored")
    paste_small: float = number(0.0, 0.0, 1.0, "probability that a small object is copied to a free place")
    paste_small_size: float = number(32.0, 1.0, 10000.0, "pixels at training; small is an object of less area, squared")
    label_smoothing: float = number(0.0, 0.0, 0.5, "label smoothing epsilon of the class targets")
    anchors: float = number(0.0, 0.0, 100.0, "anchors per level; 0 keeps those of the architecture")
    nwd: float = number(0.0, 0.0, 1.0, "share of the Wasserstein distance (NWD) beside CIoU in the box loss")
    nwd_size: float = number(12.8, 0.1, 10000.0, "pixels over which it falls to 1/e; mean side of the objects")
    # The box gain of files made for anchors (0.05) would be wrong for a head without, silently: it has its own.
    free_box: float = number(7.5, 0.0, 100.0, "gain of the box loss of an anchor-free head")
    free_cls: float = number(0.5, 0.0, 100.0, "gain of the class loss of an anchor-free head")
    free_dfl: float = number(1.5, 0.0, 100.0, "gain of the distribution focal loss of an anchor-free head")
    nominal_batch: int = number(64, 1, 65536, "images to which gradients are accumulated per step")

    def __post_init__(self) -> None:
        for entry in fields(self):
            problem = number_problem(entry, getattr(self, entry.name))
            if problem:
                raise UserError(problem)

    def closed(self) -> Hyperparameters:
        """The same without mosaic, mixup and copy-paste, as of the last epochs with ``--close-mosaic``."""
        return replace(self, mosaic=0.0, mixup=0.0, copy_paste=0.0, paste_small=0.0)

    def to_dict(self) -> dict[str, float]:
        """Plain values in the order of the file, as written to ``hyp.yaml``."""
        return asdict(self)


def number_problem(entry: Field[Any], value: object) -> str | None:
    """Why ``value`` cannot stand in a field made by `number`; None if it can."""
    name = entry.name
    whole = entry.type == "int"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (whole and not isinstance(value, int)):
        return f"{name}: {value!r} is not a {'whole ' if whole else ''}number"
    low, high = entry.metadata["low"], entry.metadata["high"]
    if not math.isfinite(value) or not low <= value <= high:
        return f"{name}: {value!r} is outside {low:g} to {high:g}"
    return None


def read_hyperparameters(path: Path) -> Hyperparameters:
    """Read a hyp YAML; keys that it leaves out keep their default, which is said.

    Raises:
        UserError: naming file, key and value; for an unknown key also the nearest one that exists.
    """
    known = {entry.name: entry for entry in fields(Hyperparameters)}
    values: dict[str, Any] = {}
    for key, value in read_hyp_table(path, list(known)).items():
        # YAML 1.1 reads 1e-3 (without a point) as text.
        values[key] = as_number(value) if isinstance(value, str) else value
        problem = number_problem(known[key], values[key])
        if problem:
            raise UserError(f"{path}: {problem}")
    hyp = Hyperparameters(**values)
    say_defaults(path, {key: value for key, value in hyp.to_dict().items() if key not in (*values, *OPTIONAL)})
    return hyp


def say_defaults(path: Path, defaults: Mapping[str, object]) -> None:
    """One line about the keys that a hyp YAML leaves out."""
    if defaults:
        shown = ", ".join(f"{key} {value}" for key, value in defaults.items())
        LOGGER.warning("%s: what it leaves out takes its default: %s", path, shown)


def read_hyp_table(path: Path, known: Sequence[str]) -> dict[str, Any]:
    """The content of a hyp YAML whose keys are all ``known``.

    Raises:
        UserError: naming file and key; for an unknown key also the nearest one that exists.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = getattr(error, "problem", None) or error
        raise UserError(f"{path}: not valid YAML: {' '.join(str(problem).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: a hyp YAML is a table of keys (lr0, momentum, ...)")
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key).lower(), known, n=1, cutoff=0.0)
            raise UserError(f"{path}: unknown hyperparameter {key!r}; the nearest one is '{near[0]}'")
    return content


def as_number(text: str) -> float | str:
    """The number that a YAML text spells, or the text."""
    try:
        return float(text)
    except ValueError:
        return text


def find_hyperparameters(name: str | Path) -> Path:
    """``name`` as given, or the file of that name under the repository's ``data/hyps/``.

    Raises:
        UserError: there is no such file.
    """
    given = Path(name)
    for candidate in (given, REPOSITORY / given, HYPS / given.name, HYPS / f"{given.name}.yaml"):
        if candidate.is_file():
            return candidate
    raise UserError(f"{name}: no such hyp YAML, neither here nor in {HYPS}")

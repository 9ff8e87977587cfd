"""A dataset YAML as a file: where it lies, what it holds, and how its classes are called."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)
REPOSITORY = Path(__file__).resolve().parents[2]
DATASETS = Path("../datasets")  # the folder of all data sets, seen from the repository: YOLOv5's
SPLITS = ("train", "val", "test")
KNOWN_KEYS = ("path", *SPLITS, "nc", "names", "download", "annotations", "tile", "convert", "obtain", "size")


def find_dataset_yaml(name: str | Path) -> Path:
    """``name`` as given, or the file of that name under the repository's ``data/`` (``coco128`` = ``coco128.yaml``)."""
    given = Path(name)
    if not given.name:
        raise UserError(f"{str(name)!r}: no such dataset YAML")
    file_name = given if given.suffix in (".yaml", ".yml") else given.with_name(given.name + ".yaml")
    for candidate in (given, REPOSITORY / given, REPOSITORY / "data" / file_name.name):
        if candidate.is_file():
            return candidate
    raise UserError(f"{name}: no such dataset YAML, neither here nor in {REPOSITORY / 'data'}")


def dataset_folder(given: Path, *bases: Path) -> Path:
    """The absolute path of a data set's folder: where it is, otherwise where it is to be put.

    It is sought from ``bases``, the working folder and the repository; one of `DATASETS` in a folder ``datasets`` in
    them too. To be put beside the repository, or with an installed copy, which lies among packages, in ``datasets`` in
    the working folder.
    """
    inside = Path(*given.parts[1:]) if given.parts[:-1] == DATASETS.parts else given
    for folder in (given, inside):
        for base in (*bases, Path.cwd(), REPOSITORY):
            if (base / folder).is_dir():
                return (base / folder).resolve()
    installed = not {"site-packages", "dist-packages"}.isdisjoint(REPOSITORY.parts)
    return (Path.cwd() / inside if installed else REPOSITORY / given).resolve()


def dataset_content(path: Path) -> Mapping[str, Any]:
    """The table of keys in a dataset YAML.

    Raises:
        UserError: not readable, or no such table.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it holds characters that YAML does not admit"
        raise UserError(f"{path}:{line} not valid YAML: {' '.join(str(problem).split())}") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply") from error
    except ValueError as error:  # PyYAML lets a date such as 2024-99-99 through to datetime
        raise UserError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: a dataset YAML is a table of keys (train, val, names, ...)")
    return content


def required(file: Path, content: Mapping[str, Any], key: str) -> Any:
    """The value of a key that a dataset YAML has to have.

    Raises:
        UserError: it is missing; an unknown key that is spelled much like it is named.
    """
    if content.get(key) is None:
        spelled = difflib.get_close_matches(key, [other for other in content if other not in KNOWN_KEYS], 1, 0.5)
        hint = f"; is {spelled[0]!r} meant for it?" if spelled else ""
        raise UserError(f"{file}: the key '{key}' is missing{hint}")
    return content[key]


def class_names(file: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes, by class id.

    Raises:
        UserError: there are none, or something that is no name, or another number of them than ``nc``.
    """
    value, nc = required(file, content, "names"), content.get("nc")
    if isinstance(value, dict):
        if not all(type(key) is int for key in value) or sorted(value) != list(range(len(value))):
            raise UserError(f"{file}: names: the class numbers have to be 0 to {len(value) - 1}, each once")
        value = [value[i] for i in range(len(value))]
    if not isinstance(value, list) or not value:
        raise UserError(f"{file}: names: has to be a list of names or a table 0: name, not {value!r}")
    for index, name in enumerate(value):
        # YAML reads an unquoted no, yes, on, off as a truth value.
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or not str(name).strip():
            raise UserError(f"{file}: names: class {index} is {name!r}, not a name (put it in quotes)")
    if nc is not None:
        if type(nc) is not int:
            raise UserError(f"{file}: nc: {nc!r} is not a number of classes")
        if nc != len(value):
            raise UserError(f"{file}: nc is {nc}, but names has {len(value)} entries")
    names = tuple(" ".join(str(name).split()) for name in value)
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        same = first.setdefault(name.lower(), index)
        if same != index:
            LOGGER.warning("%s: names: the classes %d and %d are both called %r", file, same, index, name)
    return names

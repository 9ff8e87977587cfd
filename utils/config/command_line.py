"""Flags of a verb, declared once as the fields of a frozen dataclass, parsed and checked before any work starts.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class ValConfig:
        batch_size: int = flag(32, "images per batch", group="Data", at_least=1)

    config = parse_command_line(ValConfig, sys.argv[1:], prog="val.py", description="...")

The type of a field decides how its flag reads: ``bool`` is a switch, ``tuple[int, ...]`` takes several values,
``X | None`` may stay away, ``float | Literal["auto"]`` takes that word too. Names turn underscores into dashes;
unambiguous prefixes work, as in argparse.
"""

from __future__ import annotations

import argparse
import difflib
import math
import shlex
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, NoReturn, TypeVar

from utils.user_error import UsageError, typed

Config = TypeVar("Config")
GROUPS = ("Model", "Data", "Recipe", "Search", "Run", "Output")  # that come in this order in --help, others after them


@dataclass(frozen=True, slots=True)
class FlagSpec:
    """What a flag takes besides the type and default of its field."""

    help: str
    group: str
    aliases: tuple[str, ...]
    choices: tuple[str, ...]
    at_least: float | None
    at_most: float | None
    lone_value: object  # what the bare flag means when its value may be left out (--resume)
    max_values: int | None  # for flags that take several values
    repeatable: bool  # given again, a flag of several values takes further ones instead of others


def flag(
    default: Any,
    help: str,
    *,
    group: str = "Run",
    aliases: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    at_least: float | None = None,
    at_most: float | None = None,
    lone_value: object = None,
    max_values: int | None = None,
    repeatable: bool = False,
) -> Any:
    """A dataclass field that is also a command-line flag; ``at_least`` and ``at_most`` are inclusive."""
    spec = FlagSpec(help, group, aliases, choices, at_least, at_most, lone_value, max_values, repeatable)
    return field(default=default, metadata={"flag": spec})


def parse_command_line(
    config_type: type[Config],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    refused: dict[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """The verb's settings from its command line.

    ``prog``, and ``python prog`` in the description, are shown as the user typed them (`utils.user_error.typed`).
    ``refused`` maps a flag of other programs (``--bucket``) to the sentence that says what to use instead;
    ``defaults`` maps fields to values that stand where the command line has none.

    Raises:
        UsageError: unknown flag (names the nearest valid one), value of a wrong type or out of range.
    """
    refused = refused or {}
    script = prog if prog.startswith("python ") else f"python {prog}"
    prog, description = typed(prog), description.replace(script, typed(script))
    argv = [_dashed(word) for word in argv]
    for word in argv:
        name = word.split("=", 1)[0]
        if name in refused:
            raise UsageError(f"{prog}: {name}: {refused[name]}")
    parser = _Parser(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    used = dict.fromkeys(item.metadata["flag"].group for item, _ in _flags(config_type))
    shown = [*(group for group in GROUPS if group in used), *(group for group in used if group not in GROUPS)]
    groups: dict[str, Any] = {group: parser.add_argument_group(group) for group in shown}
    for item, value_type in _flags(config_type):
        spec: FlagSpec = item.metadata["flag"]
        name = "--" + item.name.replace("_", "-")
        groups[spec.group].add_argument(name, *spec.aliases, dest=item.name, **_argument(item, value_type, spec))
    parser.set_defaults(**(defaults or {}))
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        raise UsageError(_unknown_flag_message(prog, unknown[0], list(parser._option_string_actions)))
    values = vars(known)
    for item, _ in _flags(config_type):
        _check_range(prog, item.name, values[item.name], item.metadata["flag"])
    return config_type(**values)


def as_command(config: Any, prog: str) -> str:
    """The command line that gives these settings: ``python val.py --img 320``; flags at their default are left out."""
    words: list[object] = []
    for item, _ in _flags(type(config)):
        value = getattr(config, item.name)
        if value == item.default:
            continue
        words.append("--" + item.name.replace("_", "-"))
        if value is not True:
            words += map(str, value) if isinstance(value, tuple) else [str(value)]
    return script_command(prog, *words)


def script_command(script: str, *words: object) -> str:
    """``python val.py --weights best.pt`` as a shell takes it, or ``yolov5-spd val ...`` (`utils.user_error.typed`)."""
    return shlex.join([*typed(f"python {script}").split(), *map(str, words)])


def nearest_name(name: str, valid: Sequence[str]) -> str:
    """`` (did you mean X?)`` with the valid name most like ``name``, or nothing when none is near."""
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of printing its usage page over the one line that matters."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}")


def _dashed(word: str) -> str:
    """A flag with dashes between its words: YOLOv5 spells a few with underscores."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else word


def _flags(config_type: type) -> Iterator[tuple[Field[Any], Any]]:
    hints = typing.get_type_hints(config_type)
    for item in fields(config_type):
        if "flag" in item.metadata:
            yield item, hints[item.name]


def _argument(item: Field[Any], value_type: Any, spec: FlagSpec) -> dict[str, Any]:
    """Keywords of ``add_argument`` for one field."""
    shown = "" if item.default in (None, False, "", ()) else f" (default: {_plain(item.default)})"
    argument: dict[str, Any] = {"default": item.default, "help": (spec.help + shown).replace("%", "%%")}
    word = ""
    if typing.get_origin(value_type) in (types.UnionType, typing.Union):  # X | None, bool | X, X | Literal[word]
        value_type, *others = (t for t in typing.get_args(value_type) if t not in (bool, types.NoneType))
        word = typing.get_args(others[0])[0] if others else ""
    if value_type is bool:
        return argument | {"action": "store_true"}
    if typing.get_origin(value_type) is tuple:
        action = _FurtherTuple if spec.repeatable else _Tuple
        argument |= {"action": action, "nargs": "+", "type": _reader(typing.get_args(value_type)[0])}
        return argument | ({"choices": spec.choices} if spec.choices else {"metavar": "V"})
    argument |= {"type": _reader(value_type, word), "metavar": value_type.__name__.upper()}
    if spec.choices:
        argument |= {"choices": spec.choices, "metavar": None}
    if spec.lone_value is not None:
        argument |= {"nargs": "?", "const": spec.lone_value}
    return argument


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _reader(value_type: type, word: str = "") -> Callable[[str], Any]:
    read: Callable[[str], Any] = value_type if value_type is not float else _finite_float

    def number_or_word(text: str) -> Any:
        try:
            return word if text == word else read(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {word}") from None

    return number_or_word if word else read


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


class _Tuple(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, (*self._earlier(namespace), *values))

    def _earlier(self, namespace: argparse.Namespace) -> tuple[Any, ...]:
        return ()


class _FurtherTuple(_Tuple):
    def _earlier(self, namespace: argparse.Namespace) -> tuple[Any, ...]:
        earlier: tuple[Any, ...] = getattr(namespace, self.dest)
        return earlier


def _check_range(prog: str, name: str, value: object, spec: FlagSpec) -> None:
    values = value if isinstance(value, tuple) else (value,)
    shown = f"{prog}: --{name.replace('_', '-')} {_plain(value) if isinstance(value, tuple) else value}"
    if spec.max_values is not None and len(values) > spec.max_values:
        raise UsageError(f"{shown}: takes at most {spec.max_values} values")
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if spec.at_least is not None and number < spec.at_least:
            raise UsageError(f"{shown}: must be at least {spec.at_least:g}")
        if spec.at_most is not None and number > spec.at_most:
            raise UsageError(f"{shown}: must be at most {spec.at_most:g}")


def _unknown_flag_message(prog: str, word: str, valid: list[str]) -> str:
    name = word.split("=", 1)[0]
    if not name.startswith("-"):
        return f"{prog}: unexpected argument {word!r}"
    return f"{prog}: unknown flag {name}{nearest_name(name, valid)}"

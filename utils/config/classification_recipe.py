"""Recipe of a classification run: what ``classify/train.py --hyp`` reads, each value with its unit and range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from utils.config.classify_flags import OPTIMIZERS, ClassifyTrainConfig
from utils.config.command_line import parse_command_line
from utils.config.hyperparameters import (
    as_number,
    find_hyperparameters,
    number,
    number_problem,
    read_hyp_table,
    say_defaults,
)
from utils.user_error import UserError

# Keys that are flags too: the flag wins, whose default is then the recipe's value.
FLAGS = ("batch_size", "epochs", "optimizer", "lr0", "decay", "label_smoothing")


@dataclass(frozen=True, slots=True)
class ClassificationRecipe:
    """What a recipe YAML holds. The defaults are those of ``data/hyps/hyp.classify.yaml``, which are YOLOv5's."""

    batch_size: int = number(64, 1, 65_536, "images per batch over all processes")
    epochs: int = number(10, 0, 1_000_000, "epochs")
    optimizer: str = "Adam"
    lr0: float = number(0.001, 1e-7, 10.0, "learning rate at the start")
    lrf: float = number(0.01, 0.0, 10.0, "final learning rate as a share of lr0, reached along a line")
    milestones: tuple[int, ...] = ()  # epochs from which on the learning rate is multiplied; instead of the line
    gamma: float = number(0.2, 0.0, 1.0, "what it is multiplied by at each milestone")
    warmup_epochs: float = number(0.0, 0.0, 1000.0, "epochs in which the rate rises from 0, fractions allowed")
    momentum: float = number(0.9, 0.0, 0.9999, "SGD momentum or Adam beta1")
    decay: float = number(5e-5, 0.0, 1.0, "weight decay; not of biases and norm layers")
    label_smoothing: float = number(0.1, 0.0, 0.5, "label smoothing epsilon")
    crop_area: float = number(0.08, 0.01, 1.0, "smallest part of the image's area in a crop; 1 takes no crops")
    shift: float = number(0.0, 0.0, 0.5, "shift by up to this part of the side, black beyond the border")
    fliplr: float = number(0.5, 0.0, 1.0, "probability of a left-right flip")
    flipud: float = number(0.0, 0.0, 1.0, "probability of an upside-down flip")
    hsv_h: float = number(0.0, 0.0, 1.0, "hue jitter, share of the circle, +/-")
    hsv_s: float = number(0.4, 0.0, 1.0, "saturation jitter, fraction, +/-")
    hsv_v: float = number(0.4, 0.0, 1.0, "value jitter, fraction, +/-")

    def __post_init__(self) -> None:
        for entry in fields(self):
            problem = _value_problem(entry, getattr(self, entry.name))
            if problem:
                raise UserError(problem)

    def with_flags_of(self, config: ClassifyTrainConfig) -> ClassificationRecipe:
        """The recipe that is really followed: a value that is a flag too is the flag's."""
        return replace(self, **{name: getattr(config, name) for name in FLAGS})

    def flag_defaults(self) -> dict[str, Any]:
        """What flags that the command line leaves out are."""
        return {name: getattr(self, name) for name in FLAGS}


def read_recipe(path: Path) -> ClassificationRecipe:
    """Read a recipe YAML; keys that it leaves out keep their default, which is said.

    Raises:
        UserError: naming file, key and value; for an unknown key also the nearest one that exists.
    """
    values = _values(path)
    recipe = ClassificationRecipe(**values)
    left_out = [name for name in asdict(recipe) if name not in (*values, *FLAGS, "milestones", "gamma")]
    say_defaults(path, {name: getattr(recipe, name) for name in left_out})
    return recipe


def _values(path: Path) -> dict[str, Any]:
    entries = {entry.name: entry for entry in fields(ClassificationRecipe)}
    values: dict[str, Any] = {}
    for key, value in read_hyp_table(path, list(entries)).items():
        is_text = isinstance(value, str) and key != "optimizer"  # 1e-3 without a point, see `as_number`
        values[key] = as_number(value) if is_text else tuple(value) if isinstance(value, list) else value
        if problem := _value_problem(entries[key], values[key]):
            raise UserError(f"{path}: {problem}")
    return values


def _value_problem(entry: Field[Any], value: object) -> str | None:
    if entry.name == "optimizer":
        return None if value in OPTIMIZERS else f"optimizer: {value!r} is none of {', '.join(OPTIMIZERS)}"
    if entry.name == "milestones":
        epochs = value if isinstance(value, tuple) else (None,)
        rising = all(type(each) is int and each > 0 for each in epochs) and list(epochs) == sorted(set(epochs))
        return None if rising else f"milestones: {value!r} is not a list of rising epochs"
    return number_problem(entry, value)


def parse_with_recipe(argv: Sequence[str], *, prog: str, description: str) -> ClassifyTrainConfig:
    """The settings of a command line; what the recipe of ``--hyp`` says stands in for flags that are left out.

    Raises:
        UsageError: a wrong flag or value.
        UserError: no such recipe, or a wrong one.
    """
    given = parse_command_line(ClassifyTrainConfig, argv, prog=prog, description=description)
    if given.resume:  # the settings of the run that goes on are in its checkpoint
        return given
    defaults = ClassificationRecipe(**_values(find_hyperparameters(given.hyp))).flag_defaults()
    return parse_command_line(ClassifyTrainConfig, argv, prog=prog, description=description, defaults=defaults)

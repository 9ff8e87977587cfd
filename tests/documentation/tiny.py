"""Commands of the pages at settings that take a second: the same flags, with less of everything.

A command keeps the files it names; what a user would have there is made beforehand (`workspace.py`).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.documentation.commands import DocCommand
from utils.config.classification_recipe import parse_with_recipe
from utils.config.classify_flags import REFUSED_PREDICT_FLAGS, ClassifyPredictConfig, ClassifyValConfig
from utils.config.command_line import as_command, parse_command_line
from utils.config.detect_flags import DetectConfig
from utils.config.export_flags import REFUSED_EXPORT_FLAGS, ExportConfig
from utils.config.train_flags import REFUSED_TRAIN_FLAGS, TrainConfig
from utils.config.val_flags import ValConfig

SIDE = 64  # pixels
DATA = "my.yaml"
CLASSES = "my_classes"


@dataclass(frozen=True, slots=True)
class Script:
    """A script's settings. ``tiny``: what replaces a value in any case; ``where``: only if the command gives one."""

    parse: Callable[[Sequence[str]], Any]
    tiny: Mapping[str, object]
    where: Mapping[str, object]
    data: str = DATA


def _parser(config: type[Any], prog: str, refused: dict[str, str] | None = None) -> Callable[[Sequence[str]], Any]:
    return partial(parse_command_line, config, prog=prog, description="", refused=refused)


SCRIPTS = {
    "train.py": Script(
        _parser(TrainConfig, "train.py", REFUSED_TRAIN_FLAGS),
        {"imgsz": SIDE, "epochs": 1, "batch_size": 4, "workers": 0, "noplots": True, "loggers": ("none",)},
        {"evolve": 1, "tile": SIDE},
    ),
    "val.py": Script(
        _parser(ValConfig, "val.py"),
        {"imgsz": SIDE, "batch_size": 4, "workers": 0, "study_sizes": (SIDE,)},
        {"slice": SIDE},
    ),
    "detect.py": Script(_parser(DetectConfig, "detect.py"), {"imgsz": (SIDE,)}, {"slice": SIDE}),
    "classify/train.py": Script(
        partial(parse_with_recipe, prog="classify/train.py", description=""),
        {"model": "yolov5n-spd-cls", "cutoff": 4, "weights": "", "shortcut": "strided", "stem": "full"}
        | {"imgsz": SIDE, "epochs": 1, "batch_size": 4, "workers": 0, "noplots": True, "loggers": ("none",)},
        {},
        CLASSES,
    ),
    "classify/val.py": Script(_parser(ClassifyValConfig, "classify/val.py"), {"workers": 0}, {}, CLASSES),
    "classify/predict.py": Script(
        _parser(ClassifyPredictConfig, "classify/predict.py", REFUSED_PREDICT_FLAGS), {"imgsz": SIDE}, {}
    ),
    "export.py": Script(_parser(ExportConfig, "export.py", REFUSED_EXPORT_FLAGS), {"imgsz": (SIDE,)}, {}),
}
# Arguments of modules (and rows of the benchmarks) in place of those in the page; FOLDER is one that may be written to.
MODULES: dict[str, tuple[str, ...]] = {
    "models": ("--cfg", "yolov5n-spd.yaml"),
    "utils.dataset.demo_scenes": ("--root", "FOLDER/scenes", "--train", "1", "--val", "1"),
    "utils.dataset.inspect": ("--data", DATA, "--imgsz", str(SIDE)),
    "utils.dataset.split": ("datasets/my", "--output", "FOLDER/split"),
    "utils.reporting.augmentation_images": ("FOLDER/augmentation",),
    "benchmarks coco_evaluation": ("--images", "20", "--rounds", "1"),
    "benchmarks classification_study": (
        *("--data", CLASSES, "--img", "32", "--models", "yolov5n-spd-cls", "--seeds", "0", "--epochs", "1"),
        *("--project", "FOLDER/classification-study"),
    ),
    "benchmarks.small_object_study": (
        *("--data", f"{DATA}@64", "--models", "yolov5n", "yolov5n-spd", "--seeds", "0", "--steps", "1"),
        *("--cpu-budget", "1h", "--out", "FOLDER/study"),
    ),
}


def parsed(command: DocCommand) -> Any:
    """The settings that a command of a script gives.

    Raises:
        UsageError: a flag or a value that the script does not take.
    """
    return SCRIPTS[command.script].parse(command.arguments)


def module_of(command: DocCommand) -> str:
    """The module that is called; of the benchmarks' runner with the row."""
    module = command.script.removeprefix("-m ")
    return f"{module} {' '.join(command.arguments[:1])}" if module == "benchmarks" else module


def made_tiny(command: DocCommand) -> str | None:
    """The command to run in its place; None if it belongs to a module whose small form is not known."""
    if command.script in SCRIPTS:
        return as_command(_tiny_settings(command), command.script)
    module = module_of(command)
    if module in MODULES:
        return shlex.join(["python", "-m", *module.split(), *MODULES[module]])
    return None


def _tiny_settings(command: DocCommand) -> Any:
    config, script = parsed(command), SCRIPTS[command.script]
    if getattr(config, "resume", False):  # all else is that of the run
        return replace(config, workers=0)
    known = {item.name for item in fields(config)}
    changes = {name: value for name, value in script.tiny.items() if name in known}
    changes |= {name: value for name, value in script.where.items() if getattr(config, name, None) is not None}
    if getattr(config, "data", ""):  # coco128, the demo's scenes
        changes["data"] = script.data
    if getattr(config, "cfg", "").endswith(".yaml"):  # s, m, l and x as n
        changes["cfg"] = "yolov5n" + Path(config.cfg).name[len("yolov5n") :]
    return replace(config, **changes)

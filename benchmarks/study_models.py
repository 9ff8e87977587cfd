"""The models of a study, what each costs, and a YOLOv5 that is as dear as another model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.measuring import alternate_calls
from models.fuse import fused
from models.summary import summarize
from models.yolo import DetectionModel, load_architecture
from utils.config.hyperparameters import Hyperparameters
from utils.config.train_flags import TrainConfig
from utils.runtime.atomic_files import write_text
from utils.runtime.reused_memory import reuse_freed_memory
from utils.user_error import UsageError

BASELINES = ("yolov5n", "yolov5s")
WIDE_AS = "wide-as-"
LARGE = 640  # pixels
LEAST_SCORE = 0.25  # of what is decoded, detect.py's default
WIDTH_STEP = 1 / 128  # the least step of the width multiple that changes a layer: 8 of 1024 channels


@dataclass(frozen=True, slots=True)
class Variant:
    """A model, and what of the recipe is changed for it: ``yolov5n-u+nwd=0.5+close_mosaic=5``."""

    model: str
    hyperparameters: Mapping[str, float]
    flags: Mapping[str, Any]  # of train.py: whole numbers

    @classmethod
    def parse(cls, text: str) -> Variant:
        """
        Raises:
            UsageError: a setting is neither a hyperparameter nor a flag of train.py that is a whole number.
        """
        model, *changes = text.removesuffix(".yaml").split("+")
        hyperparameters, flags = {}, {}
        for change in changes:
            key, _, value = change.partition("=")
            if not re.fullmatch(r"\d+(\.\d+)?", value):
                raise UsageError(f"--models {text}: '{change}' is not NAME=NUMBER")
            if key in {one.name for one in fields(Hyperparameters)}:
                hyperparameters[key] = float(value)
            elif key in {one.name for one in fields(TrainConfig)} and value.isdigit():
                flags[key] = int(value)
            else:
                raise UsageError(f"--models {text}: '{key}' is no hyperparameter and no flag of train.py with a number")
        return cls(model, hyperparameters, flags)


def baseline_of(model: str) -> str:
    """The YOLOv5 that a model is compared with: yolov5s for models of that size, else yolov5n."""
    return next((one for one in reversed(BASELINES) if one in model), BASELINES[0])


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What a model costs at one image size."""

    parameters: int
    gflops: float  # 2 x multiply-adds of one image
    milliseconds: float  # median of one image, CPU, fused, decoded as detect.py does, without NMS
    large_milliseconds: float  # the same of an image of LARGE x LARGE pixels


def write_wide_model(folder: Path, name: str) -> Path:
    """Write the model ``wide-as-MODEL``, a YOLOv5 of that model's size and GFLOPs as near as widths allow; the file."""
    file = folder / f"{name}.yaml"
    if not file.is_file():
        like = name.removeprefix(WIDE_AS)
        baseline = load_architecture(baseline_of(like))
        wide = replace(baseline, width_multiple=equal_cost_width(baseline_of(like), _gflops(like)))
        write_text(file, yaml.safe_dump(wide.as_dict(), sort_keys=False))
    return file


def equal_cost_width(baseline: str, gflops: float) -> float:
    """The width multiple from half to twice a YOLOv5's at which it needs nearest to ``gflops`` at 640 x 640."""
    architecture = load_architecture(baseline)
    own = round(architecture.width_multiple / WIDTH_STEP)
    widths = [WIDTH_STEP * step for step in range(own // 2, 2 * own + 1)]

    def distance(width: float) -> float:
        with torch.device("meta"):
            model = DetectionModel(replace(architecture, width_multiple=width))
        return abs(summarize(model, 640, 640).gflops - gflops)

    return min(widths, key=distance)


def _gflops(cfg: str) -> float:
    with torch.device("meta"):
        return summarize(DetectionModel(load_architecture(cfg)), 640, 640).gflops


@torch.inference_mode()
def model_costs(cfgs: Mapping[str, str], class_count: int, side: int, rounds: int) -> dict[str, ModelCost]:
    """Cost of each model for an image of ``side`` x ``side`` pixels; timed in turn, so that a slow minute hits all.

    Freed memory is kept from now on, as detect.py and val.py do.

    Args:
        cfgs: architecture file by model name.
    """
    reuse_freed_memory(torch.device("cpu"))
    models = {name: DetectionModel(load_architecture(cfg), class_count).eval() for name, cfg in cfgs.items()}
    quick = {name: fused(model).to(memory_format=torch.channels_last) for name, model in models.items()}
    own, large = (
        alternate_calls({name: partial(model.predict, images, LEAST_SCORE) for name, model in quick.items()}, rounds)
        for images in (_black(side), _black(LARGE))
    )
    counts = {name: summarize(model, side, side) for name, model in models.items()}
    return {
        name: ModelCost(one.parameters, one.gflops, 1000 * own[name], 1000 * large[name])
        for name, one in counts.items()
    }


def _black(side: int) -> torch.Tensor:
    return torch.zeros(1, 3, side, side).contiguous(memory_format=torch.channels_last)


def costs_of_variants(
    variants: Sequence[str], cfgs: Mapping[str, str], class_count: int, side: int, rounds: int
) -> dict[str, ModelCost]:
    """As `model_costs`; a change of the recipe costs nothing at inference.

    Args:
        cfgs: architecture file by model.
    """
    models = {text: Variant.parse(text).model for text in variants}
    costs = model_costs({model: cfgs[model] for model in models.values()}, class_count, side, rounds)
    return {text: costs[model] for text, model in models.items()}

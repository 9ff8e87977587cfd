"""The models of a study, what each costs, and a YOLOv5 that is as dear as its SPD form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import yaml

from benchmarks.measuring import alternate_calls
from models.fuse import fused
from models.summary import summarize
from models.yolo import DetectionModel, load_architecture
from utils.runtime.atomic_files import write_text

BASELINE, SPD = "yolov5n", "yolov5n-spd"
WIDE, LITE = "yolov5n-wide", "yolov5n-spd-lite"
FAMILIES = (BASELINE, SPD, "yolov5n-spd-released")
FURTHER = (LITE, WIDE)
WIDTH_STEP = 1 / 128  # the least step of the width multiple that changes a layer: 8 of 1024 channels


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What a model costs at one image size."""

    parameters: int
    gflops: float  # 2 x multiply-adds of one image
    milliseconds: float  # median of one image, CPU, fused, without NMS


def write_wide_model(folder: Path) -> Path:
    """Write the YOLOv5 whose width makes its GFLOPs those of the SPD model, as near as widths allow; the file."""
    file = folder / f"{WIDE}.yaml"
    if not file.is_file():
        wide = replace(load_architecture(BASELINE), width_multiple=equal_cost_width(_gflops(SPD)))
        write_text(file, yaml.safe_dump(wide.as_dict(), sort_keys=False))
    return file


def equal_cost_width(gflops: float) -> float:
    """The width multiple from 0.25 to 0.5 at which a YOLOv5n needs nearest to ``gflops`` at 640 x 640."""
    widths = [0.25 + WIDTH_STEP * step for step in range(round(0.25 / WIDTH_STEP) + 1)]
    baseline = load_architecture(BASELINE)

    def distance(width: float) -> float:
        with torch.device("meta"):
            model = DetectionModel(replace(baseline, width_multiple=width))
        return abs(summarize(model, 640, 640).gflops - gflops)

    return min(widths, key=distance)


def _gflops(cfg: str) -> float:
    with torch.device("meta"):
        return summarize(DetectionModel(load_architecture(cfg)), 640, 640).gflops


@torch.inference_mode()
def model_costs(cfgs: Mapping[str, str], class_count: int, side: int, rounds: int) -> dict[str, ModelCost]:
    """Cost of each model for an image of ``side`` x ``side`` pixels; timed in turn, so that a slow minute hits all.

    Args:
        cfgs: architecture file by model name.
    """
    images = torch.zeros(1, 3, side, side).contiguous(memory_format=torch.channels_last)
    models = {name: DetectionModel(load_architecture(cfg), class_count).eval() for name, cfg in cfgs.items()}
    quick = {name: fused(model).to(memory_format=torch.channels_last) for name, model in models.items()}
    seconds = alternate_calls({name: partial(model.predict, images) for name, model in quick.items()}, rounds)
    counts = {name: summarize(model, side, side) for name, model in models.items()}
    return {name: ModelCost(one.parameters, one.gflops, 1000 * seconds[name]) for name, one in counts.items()}

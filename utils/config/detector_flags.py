"""Flags that mean the same wherever a detector is asked: ``val.py`` and ``detect.py``."""

from __future__ import annotations

from typing import Any

from utils.config.command_line import flag
from utils.user_error import UsageError

LARGEST_TILE = 8192  # pixels


def augment() -> Any:
    return flag(False, "look at every image at three sizes, once mirrored (.pt files)", group="Detections")


def tile_size() -> Any:
    return flag(
        None,
        "look at images in overlapping tiles of so many pixels and as a whole",
        group="Detections",
        lone_value=640,
        at_least=32,
        at_most=LARGEST_TILE,
    )


def tile_overlap() -> Any:
    return flag(0.2, "overlap of neighbouring tiles, part of their side", group="Detections", at_least=0, at_most=0.9)


def tile_merge() -> Any:
    text = "join what tiles found: drop repeats and pieces (nms) or unite them (greedy)"
    return flag("nms", text, group="Detections", choices=("nms", "greedy"))


def precision() -> Any:
    choices = ("auto", "fp32", "bf16", "fp16")
    return flag("fp32", "arithmetic of a .pt file's network; bf16 for OpenVINO too", group="Run", choices=choices)


def half() -> Any:
    return flag(False, "the same as --precision fp16", group="Run")


def dnn() -> Any:
    return flag(False, "run an .onnx file in OpenCV's DNN module", group="Run")


def check_arithmetic(half: bool, precision: str) -> None:
    """UsageError where ``--half`` and ``--precision`` contradict each other."""
    if half and precision not in ("fp32", "fp16"):
        raise UsageError(f"--half --precision {precision}: contradict each other; leave one out")

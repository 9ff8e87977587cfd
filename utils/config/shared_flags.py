"""Flags that several verbs have, and limits that hold for all of them."""

from __future__ import annotations

from typing import Any

from utils.config.command_line import flag
from utils.user_error import UsageError

IMGSZ_ALIASES = ("--img", "--img-size")
# Above these a value is a slip of the finger; refused at once rather than by running out of memory hours later.
LONGEST_SIDE = 8192  # pixels
LARGEST_BATCH = 65_536
MOST_DETECTIONS = 30_000  # per image: what suppression takes


def recursive() -> Any:
    return flag(False, "read the subfolders of a folder too", group="Data")


def augment() -> Any:
    return flag(False, "detect in every image at three sizes, one of them mirrored (.pt files)", group="Detections")


def tile_size() -> Any:
    return flag(
        None,
        "detect in overlapping tiles of this many pixels and in the whole image",
        group="Detections",
        lone_value=640,
        at_least=32,
        at_most=LONGEST_SIDE,
    )


def tile_overlap() -> Any:
    return flag(
        0.2, "overlap of neighbouring tiles, fraction of their side", group="Detections", at_least=0, at_most=0.9
    )


def tile_merge() -> Any:
    text = "merge detections of tiles: drop duplicates and pieces (nms) or unite them (greedy)"
    return flag("nms", text, group="Detections", choices=("nms", "greedy"))


def device() -> Any:
    text = "cpu, 0, cuda:0, mps (Apple's Metal, unverified); '' takes the first CUDA GPU, else the CPU"
    return flag("", text, group="Run")


def precision() -> Any:
    choices = ("auto", "fp32", "bf16", "fp16")
    return flag("fp32", "arithmetic of a .pt file's network; bf16 for OpenVINO too", group="Run", choices=choices)


def half() -> Any:
    return flag(False, "the same as --precision fp16", group="Run")


def dnn() -> Any:
    return flag(False, "run an .onnx file in OpenCV's DNN module", group="Run")


def compiled() -> Any:
    text = (
        "have torch compile a .pt file's network for one size, to which every image is padded: a minute or two at the "
        "start; CUDA graphs on a GPU; needs a C or C++ compiler"
    )
    return flag(False, text, group="Run")


def check_arithmetic(half: bool, precision: str) -> None:
    """UsageError where ``--half`` and ``--precision`` contradict each other."""
    if half and precision not in ("fp32", "fp16"):
        raise UsageError(f"--half --precision {precision}: contradict each other; leave one out")


def square_or_rectangle(imgsz: tuple[int, ...]) -> tuple[int, int]:
    """``(height, width)`` of an ``--imgsz`` that names one side or both."""
    if len(imgsz) not in (1, 2):
        raise UsageError(f"--imgsz {' '.join(map(str, imgsz))}: takes one side or height and width")
    return imgsz[0], imgsz[-1]

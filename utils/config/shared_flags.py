"""Flags that several verbs have, limits that hold for all of them, and the settings of every training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utils.config.command_line import flag
from utils.user_error import UsageError

IMGSZ_ALIASES = ("--img", "--img-size")
# Above these a value is a slip of the finger; refused at once rather than by running out of memory hours later.
LONGEST_SIDE = 8192  # pixels
LARGEST_BATCH = 65_536
MOST_DETECTIONS = 30_000  # per image: what suppression takes
MOST_EPOCHS = 1_000_000
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Settings that every training run has, whatever is learned."""

    imgsz: int = flag(640, "image size, pixels", group="Data", aliases=IMGSZ_ALIASES, at_least=32, at_most=LONGEST_SIDE)
    batch_size: int = flag(
        16,
        "images per batch over all processes; -1 takes what the GPU holds",
        group="Data",
        at_least=-1,
        at_most=LARGEST_BATCH,
    )
    workers: int = flag(
        8,
        "processes that load what is learned from, threads that load what is evaluated on; 0 for none",
        group="Data",
        at_least=0,
    )

    epochs: int = flag(100, "epochs; 0 only writes the start weights", group="Recipe", at_least=0, at_most=MOST_EPOCHS)
    patience: int = flag(
        100, "epochs without a better fitness before stopping; 0 never stops", group="Recipe", at_least=0
    )
    seed: int = flag(0, "seed of every random choice", group="Recipe", at_least=0, at_most=LARGEST_SEED)
    precision: str = flag(
        "auto",
        "arithmetic: auto is fp16 on CUDA, fp32 on CPU",
        group="Recipe",
        choices=("auto", "fp32", "bf16", "fp16"),
    )

    device: str = flag("", "cpu, 0, cuda:0; '' takes the first GPU, else the CPU", group="Run")
    sync_bn: bool = flag(False, "batch norm over the images of all processes (CUDA, torchrun)", group="Run")
    local_rank: int = flag(
        -1,
        "place among this machine's processes, as older launchers pass it; torchrun needs none",
        group="Run",
        at_least=-1,
    )
    resume: bool | str = flag(
        False, "continue the newest run, or that of the given last.pt", group="Run", lone_value=True
    )
    noval: bool = flag(False, "evaluate only after the last epoch", group="Run")

    project: str = flag("runs/train", "folder of runs", group="Output")
    name: str = flag("exp", "name of this run's folder", group="Output")
    exist_ok: bool = flag(False, "use the folder even if it is there", group="Output")
    nosave: bool = flag(False, "write checkpoints only after the last epoch", group="Output")
    save_period: int = flag(
        -1, "also keep the weights of every n-th epoch, as weights/epochN.pt; below 1 none", group="Output", at_least=-1
    )
    noplots: bool = flag(False, "draw no images", group="Output")
    loggers: tuple[str, ...] | None = flag(
        None,
        "where figures go besides results.csv: tensorboard mlflow none; left out, TensorBoard if it is installed",
        group="Output",
        choices=("tensorboard", "mlflow", "none"),
    )

    @property
    def images_per_step(self) -> int:
        """Images per batch over all processes."""
        return self.batch_size


def augment() -> Any:
    return flag(False, "detect in every image at three sizes, once mirrored (.pt files)", group="Detections")


def tile_size() -> Any:
    return flag(
        None,
        "detect in overlapping tiles of so many pixels and in the whole image",
        group="Detections",
        lone_value=640,
        at_least=32,
        at_most=LONGEST_SIDE,
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


def square_or_rectangle(imgsz: tuple[int, ...]) -> tuple[int, int]:
    """``(height, width)`` of an ``--imgsz`` that names one side or both."""
    if len(imgsz) not in (1, 2):
        raise UsageError(f"--imgsz {' '.join(map(str, imgsz))}: takes one side or height and width")
    return imgsz[0], imgsz[-1]

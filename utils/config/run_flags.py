"""Flags that every training run has, whatever is learned."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config import shared_flags
from utils.config.command_line import flag
from utils.config.shared_flags import IMGSZ_ALIASES, LARGEST_BATCH, LONGEST_SIDE

MOST_EPOCHS = 1_000_000
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Settings that every training run has, whatever is learned."""

    imgsz: int = flag(640, "image size, pixels", group="Data", aliases=IMGSZ_ALIASES, at_least=32, at_most=LONGEST_SIDE)
    batch_size: int = flag(
        16,
        "images per batch over all processes; -1 takes as many as the GPU holds",
        group="Data",
        at_least=-1,
        at_most=LARGEST_BATCH,
    )
    workers: int = flag(
        8,
        "processes that load training images, threads that load validation images; 0 for none",
        group="Data",
        at_least=0,
    )

    epochs: int = flag(100, "epochs; 0 only writes the start weights", group="Recipe", at_least=0, at_most=MOST_EPOCHS)
    patience: int = flag(
        100, "stop after this many epochs without a better fitness; 0 never stops", group="Recipe", at_least=0
    )
    seed: int = flag(0, "seed of every random choice", group="Recipe", at_least=0, at_most=LARGEST_SEED)
    precision: str = flag(
        "auto",
        "arithmetic: auto is fp16 on CUDA, fp32 on a CPU",
        group="Recipe",
        choices=("auto", "fp32", "bf16", "fp16"),
    )

    device: str = shared_flags.device()
    sync_bn: bool = flag(False, "batch norm over the images of all processes (CUDA, torchrun)", group="Run")
    local_rank: int = flag(
        -1,
        "rank among this machine's processes, passed by older launchers; torchrun needs no such flag",
        group="Run",
        at_least=-1,
    )
    resume: bool | str = flag(
        False, "continue the newest run, or the run of the given last.pt", group="Run", lone_value=True
    )
    noval: bool = flag(False, "evaluate only after the last epoch", group="Run")

    project: str = flag("runs/train", "folder of runs", group="Output")
    name: str = flag("exp", "name of this run's folder", group="Output")
    exist_ok: bool = flag(False, "use the folder even if it exists", group="Output")
    nosave: bool = flag(False, "write checkpoints only after the last epoch", group="Output")
    save_period: int = flag(
        -1,
        "also keep the weights of every n-th epoch, as weights/epochN.pt; below 1 keeps none",
        group="Output",
        at_least=-1,
    )
    noplots: bool = flag(False, "draw no images", group="Output")
    loggers: tuple[str, ...] | None = flag(
        None,
        "where to log figures besides results.csv: tensorboard mlflow wandb comet clearml none; default: TensorBoard "
        "if it is installed",
        group="Output",
        choices=("tensorboard", "mlflow", "wandb", "comet", "clearml", "none"),
    )

    @property
    def fitness_is(self) -> str:
        """What the best epoch has most of, in words or as a sum."""
        return "fitness"

    @property
    def images_per_step(self) -> int:
        """Images per batch over all processes."""
        return self.batch_size

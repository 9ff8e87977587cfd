"""Settings of ``train.py``: flags with YOLOv5's names, meanings and defaults."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config.command_line import flag
from utils.config.fitness import FIGURES, YOLOV5_MIX, Fitness
from utils.config.run_flags import RunConfig
from utils.config.shared_flags import LONGEST_SIDE
from utils.runtime.console_log import counted
from utils.user_error import UsageError

QUAD = 4  # images that --quad puts into one image
SMALLEST_TILE = 32  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(RunConfig):
    """Settings of ``train.py``."""

    weights: str = flag("yolov5s.pt", "weights to start from; '' starts from random weights", group="Model")
    cfg: str = flag("", "architecture YAML; '' takes the architecture of --weights", group="Model")

    freeze: tuple[str, ...] = flag(
        ("0",),
        "layers to freeze: one number freezes that many first layers; several numbers, or names, freeze those layers",
        group="Model",
    )
    noautoanchor: bool = flag(False, "do not check and re-fit anchors", group="Model")

    data: str = flag("data/coco128.yaml", "dataset YAML", group="Data")
    tile: int | None = flag(
        None,
        "train on overlapping windows of this many pixels and validate in tiles; 0: ignore the YAML's tile",
        group="Data",
        lone_value=640,
        at_least=0,
        at_most=LONGEST_SIDE,
    )
    cache: str | None = flag(
        None,
        "keep decoded images: in memory (ram, also without a value), in one file (disk), or not (none); "
        "without the flag, training images that take up to 64 MiB are kept in memory",
        group="Data",
        choices=("ram", "disk", "none"),
        lone_value="ram",
    )
    single_cls: bool = flag(False, "train all classes as one", group="Data")
    rect: bool = flag(False, "batches of images of similar shape, padded to a rectangle only; no mosaic", group="Data")
    image_weights: bool = flag(
        False, "draw images more often the worse their classes did in the last evaluation", group="Data"
    )
    quad: bool = flag(False, "combine four images, or enlarge one, to an image of twice the size", group="Data")
    multi_scale: bool = flag(False, "vary the image size by up to half from batch to batch", group="Data")

    hyp: str = flag("data/hyps/hyp.scratch-low.yaml", "hyperparameter YAML", group="Recipe")
    close_mosaic: int = flag(
        0, "train the last N epochs without mosaic, mixup and copy-paste; 0 for none", group="Recipe", at_least=0
    )
    optimizer: str = flag("SGD", "optimizer", group="Recipe", choices=("SGD", "Adam", "AdamW"))
    cos_lr: bool = flag(False, "let the learning rate fall along a cosine, not a line", group="Recipe")
    label_smoothing: float = flag(
        0.0,
        "epsilon of label smoothing; above 0 it replaces the hyp YAML's",
        group="Recipe",
        at_least=0,
        at_most=0.5,
    )

    fitness: str = flag(
        YOLOV5_MIX,
        "what best.pt, --patience and --evolve go by: AP, AP_S, or a weighted sum such as 0.3*AP+0.7*AP_S, of "
        + ", ".join(FIGURES),
        group="Recipe",
    )

    evolve: int | None = flag(
        None, "search hyperparameters until this many trials are finished", group="Search", lone_value=300, at_least=1
    )
    evolve_population: str = flag("", "folder of hyp YAMLs to try first", group="Search")
    resume_evolve: str = flag("", "continue or join the study in this folder (or study.db)", group="Search")

    def __post_init__(self) -> None:
        if self.batch_size == 0:
            raise UsageError("--batch-size 0: must be at least 1, or -1 for what the GPU holds")
        Fitness.from_text(self.fitness)
        if self.close_mosaic > self.epochs:
            raise UsageError(f"--close-mosaic {self.close_mosaic}: more than the run's {counted(self.epochs, 'epoch')}")
        if self.evolve is None and (self.evolve_population or self.resume_evolve):
            raise UsageError("--evolve-population and --resume-evolve: belong to --evolve N")
        if self.evolve_population and self.resume_evolve:
            raise UsageError("--evolve-population: is read when a study begins; leave it out with --resume-evolve")
        if self.evolve is not None and self.resume:
            raise UsageError("--resume --evolve: to go on with a study use --resume-evolve FOLDER")
        if self.tile is not None and 0 < self.tile < SMALLEST_TILE:
            raise UsageError(f"--tile {self.tile}: must be at least {SMALLEST_TILE}, or 0 for whole images")
        if self.rect and self.image_weights:
            raise UsageError("--rect --image-weights: one fixes the order by shape, the other draws it; leave one out")
        if self.quad and self.batch_size % QUAD and self.batch_size != -1:
            raise UsageError(f"--quad --batch-size {self.batch_size}: must be a multiple of {QUAD}")

    @property
    def fitness_is(self) -> str:
        return self.fitness

    @property
    def closed_from(self) -> int | None:
        """The first epoch without mosaics, with ``--close-mosaic``."""
        return self.epochs - self.close_mosaic if self.close_mosaic else None

    @property
    def images_per_step(self) -> int:
        return self.batch_size // QUAD if self.quad else self.batch_size


# Flags of YOLOv5's train.py that belong to services, and what does the same here.
REFUSED_TRAIN_FLAGS = {
    "--bucket": "there is no upload to a cloud bucket; copy the run's folder with the bucket's own tool (gsutil cp -r)",
    "--entity": "W&B takes it from its own setting: WANDB_ENTITY=NAME python train.py --loggers wandb",
    "--upload-dataset": "data sets are not uploaded; use `wandb artifact put FOLDER`",
    "--bbox-interval": "no boxes go to W&B; every run draws them to val_batch*.jpg (without --noplots)",
    "--artifact-alias": "name the data set's YAML with --data; `wandb artifact get NAME:ALIAS` fetches an artifact",
    "--ndjson-console": "the figures of every epoch are in the run's results.csv",
    "--ndjson-file": "the figures of every epoch are in the run's results.csv",
}

"""The images of a detector's run, as every one of its processes loads them, and the sizes that they come in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from utils.config.dataset_yaml import DatasetSpec
from utils.config.hyperparameters import Hyperparameters
from utils.config.train_flags import TrainConfig
from utils.dataset.batch_loader import LoaderSettings
from utils.dataset.detection_dataset import open_part
from utils.dataset.evaluation_loader import DetectionLoader, evaluation_loader
from utils.dataset.image_cache import CacheKind, cached_dataset, image_layout
from utils.dataset.tiled_dataset import TiledDataset
from utils.dataset.training_loader import DetectionTrainingLoader, TrainingShape, training_loader
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Batch
from utils.runtime.process_ranks import ProcessRanks
from utils.user_error import UserError

FEW_BYTES = 64 * 2**20  # of decoded training images that are kept without --cache: little beside torch itself


@dataclass(frozen=True, slots=True)
class RunImages:
    """What a run learns from and what it is evaluated on."""

    training: DetectionTrainingLoader
    evaluation: DetectionLoader
    side: int  # of the images, pixels
    tile: int | None  # side of the windows that images are cut into, source pixels; None for whole images


def open_images(
    dataset: DatasetSpec, config: TrainConfig, hyp: Hyperparameters, stride: int, ranks: ProcessRanks
) -> RunImages:
    """Loaders over this process's share of the training and the validation part of a data set.

    Raises:
        UserError: a part is missing or cannot be read, or there is no object to learn from.
    """
    learn = LoaderSettings.of_run(config, ranks)
    tile = dataset.tile if config.tile is None else config.tile or None
    with ranks.first_on_machine():  # the scan is cached
        train, val = open_part(dataset, "train", title="train"), open_part(dataset, "val", title="val")
        if not len(train.index.rows):
            raise UserError(f"{dataset.file}: train: nothing to learn from: {train.why_empty()}")
        asked: CacheKind | None = "ram" if config.cache == "ram" else "disk" if config.cache == "disk" else None
        are_few = config.cache is None and image_layout(train.index.sizes, config.imgsz).total <= FEW_BYTES
        if tile is not None:  # always cached: of a file that is decoded, a window costs as much as the whole
            train = TiledDataset(cached_dataset(train, asked or "disk", title="train"), tile)
        elif asked or are_few:
            train = cached_dataset(train, asked or "ram", long_side=config.imgsz, title="train")
        if asked:
            val = cached_dataset(val, asked, title="val")  # as on disk, so that no figure changes
    shape = TrainingShape(rect=config.rect, quad=config.quad, stride=stride, closed_from=config.closed_from)
    return RunImages(
        training_loader(train, config.imgsz, hyp, config.seed, learn, shape),
        evaluation_loader(val, config.imgsz, learn.without_gradients(), stride=stride),
        side=config.imgsz,
        tile=tile,
    )


@dataclass(frozen=True, slots=True)
class MultiScale:
    """``--multi-scale``: sizes between half and one and a half of ``imgsz``, in multiples of ``stride`` pixels."""

    imgsz: int
    stride: int
    seed: int

    @property
    def longest(self) -> int:
        """The longest side, in pixels, that a batch may be scaled to."""
        return int(1.5 * self.imgsz) // self.stride * self.stride

    def __call__(self, batch: Batch, epoch: int, step: int) -> Batch:
        """The batch, float images on their device, in the size of this step of the run."""
        return batch.resized(self.frame(batch.size, epoch, step))

    def frame(self, size: FrameSize, epoch: int, step: int) -> FrameSize:
        """What a batch of frames of ``size`` is scaled to: the same for every process of a run."""
        rng = np.random.default_rng((self.seed, epoch, step))
        lowest = math.ceil(0.5 * self.imgsz / self.stride)
        longest = int(rng.integers(lowest, self.longest // self.stride + 1)) * self.stride
        scale = longest / max(size)
        return FrameSize(*(math.ceil(side * scale / self.stride - 1e-9) * self.stride for side in size))

"""The images of a run, as every one of its processes loads them."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config.dataset_yaml import DatasetSpec
from utils.config.hyperparameters import Hyperparameters
from utils.config.train_flags import TrainConfig
from utils.dataset.batch_loader import LoaderSettings
from utils.dataset.detection_dataset import open_dataset
from utils.dataset.evaluation_loader import DetectionLoader, evaluation_loader
from utils.dataset.image_cache import CacheKind, cached_dataset, image_layout
from utils.dataset.tiled_dataset import TiledDataset
from utils.dataset.training_loader import DetectionTrainingLoader, TrainingShape, training_loader
from utils.runtime.process_ranks import ProcessRanks

FEW_BYTES = 64 * 2**20  # of decoded training images that are kept without --cache: little beside torch itself


@dataclass(frozen=True, slots=True)
class Images:
    """What a run learns from and what it is judged on."""

    training: DetectionTrainingLoader
    evaluation: DetectionLoader
    side: int  # of the images, pixels
    tile: int | None  # side of the windows that images are cut into, source pixels; None for whole images


def open_images(
    dataset: DatasetSpec, config: TrainConfig, hyp: Hyperparameters, stride: int, ranks: ProcessRanks
) -> Images:
    """Loaders over this process's share of the training and the validation part of a data set."""
    learn = LoaderSettings.of_run(config, ranks)
    judge = learn.without_gradients()
    classes = dataset.names
    tile = dataset.tile if config.tile is None else config.tile or None
    with ranks.first_on_machine():  # the scan is cached
        train = open_dataset(dataset.train, classes, title="train", annotations=dataset.annotations.get("train"))
        val = open_dataset(dataset.val, classes, title="val", annotations=dataset.annotations.get("val"))
        asked: CacheKind | None = "ram" if config.cache == "ram" else "disk" if config.cache == "disk" else None
        are_few = config.cache is None and image_layout(train.index.sizes, config.imgsz).total <= FEW_BYTES
        if tile is not None:  # always cached: of a file that is decoded, a window costs as much as the whole
            train = TiledDataset(cached_dataset(train, asked or "disk", title="train"), tile)
        elif asked or are_few:
            train = cached_dataset(train, asked or "ram", long_side=config.imgsz, title="train")
        if asked:
            val = cached_dataset(val, asked, title="val")  # as on disk, so that no figure changes
    shape = TrainingShape(rect=config.rect, quad=config.quad, stride=stride)
    return Images(
        training_loader(train, config.imgsz, hyp, config.seed, learn, shape),
        evaluation_loader(val, config.imgsz, judge, stride=stride),
        side=config.imgsz,
        tile=tile,
    )

"""From a split to batches: `open_dataset`, then `training_loader` or `evaluation_loader`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from utils.config.hyperparameters import Hyperparameters
from utils.dataset.coco_annotations import fit_to_pictures, index_from_annotations, read_coco_annotations
from utils.dataset.collate import collate
from utils.dataset.detection_dataset import AugmentedPictures, DetectionDataset, LetterboxedPictures
from utils.dataset.label_cache import read_label_index
from utils.dataset.quad import QuadBatches, QuadPictures
from utils.dataset.samplers import (
    RectangularSampler,
    SortKind,
    TrainingSampler,
    evaluation_batches,
    fixed_frames,
    rectangular_frames,
)
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Batch
from utils.user_error import UserError


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """How batches are made, of either kind."""

    batch_size: int  # pictures per batch of this process
    workers: int = 0  # processes that load; never changes what is loaded
    pin_memory: bool = False  # for copies to CUDA
    rank: int = 0
    world: int = 1


class DetectionLoader:
    """An iterable of `Batch`, once through the split per iteration."""

    def __init__(
        self,
        dataset: DetectionDataset,
        batches: DataLoader[Any],
        sampler: TrainingSampler | RectangularSampler | None = None,
    ) -> None:
        self.dataset = dataset
        self._batches = batches
        self._sampler = sampler

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def set_epoch(self, epoch: int, weights: np.ndarray | None = None) -> None:
        """Choose the order and the augmentation of the iterations to come (training).

        With ``weights`` (F,) pictures are drawn in proportion to them.
        """
        if self._sampler is not None:
            self._sampler.set_epoch(epoch, weights)

    def first(self, count: int) -> Iterator[Batch]:
        """The first batches of the iteration to come, made in this process, for a look at them."""
        loader = self._batches
        for keys in itertools.islice(loader.batch_sampler or (), count):
            yield collate([loader.dataset[key] for key in keys])

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from self._batches
        except UserError as error:
            # A worker's exception arrives with the worker's traceback as its text; its last line is the message.
            message = str(error.args[0]).strip().splitlines()[-1]
            message = message.removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: ")
            # Its own traceback holds the iterator in a cycle; collected as one, the workers would not hear of the end
            # and the program would wait five seconds for them.
            error.__traceback__ = None
            raise UserError(message) from None


def open_dataset(
    sources: Sequence[Path],
    names: tuple[str, ...],
    *,
    title: str = "",
    cache_folder: Path | None = None,
    annotations: Path | None = None,
) -> DetectionDataset:
    """The data set of a split (`DatasetSpec.split`); see `read_label_index`.

    A COCO annotation file named by ``annotations`` is what COCO's figures are computed against. Where no picture has
    a label file, the labels are its objects too.
    """
    index = read_label_index(sources, names, title=title, cache_folder=cache_folder)
    if annotations is None:
        return DetectionDataset(index, names)
    content = read_coco_annotations(annotations)
    if index.unlabelled == len(index) and content.has_objects:
        index = index_from_annotations(index, content, names)
    fitted = fit_to_pictures(content, [index.paths[place] for place in range(len(index))], names)
    return DetectionDataset(index, names, annotations=fitted)


@dataclass(frozen=True, slots=True)
class TrainingShape:
    """What images a training batch is made of."""

    rect: bool = False  # rectangles that suit the batch's pictures, instead of squares
    quad: bool = False  # four pictures per image, see `QuadPictures`
    stride: int = 32  # rectangles are multiples of it


def training_loader(
    dataset: DetectionDataset,
    image_size: int,
    hyp: Hyperparameters,
    seed: int,
    settings: LoaderSettings,
    shape: TrainingShape = TrainingShape(),
) -> DetectionLoader:
    """Augmented batches, square with sides of ``image_size`` pixels unless ``shape`` says otherwise.

    Call ``set_epoch`` before each epoch.
    """
    sampler: TrainingSampler | RectangularSampler
    if shape.rect:
        sizes = dataset.index.sizes
        batches = evaluation_batches(sizes, settings.batch_size * settings.world)
        frames = rectangular_frames(sizes, batches, image_size, shape.stride, pad=0.0)
        sampler = RectangularSampler(batches, seed, rank=settings.rank, world=settings.world)
        samples = AugmentedPictures(dataset, image_size, hyp, seed, frames)
    else:
        sampler = TrainingSampler(len(dataset), settings.batch_size, seed, rank=settings.rank, world=settings.world)
        samples = AugmentedPictures(dataset, image_size, hyp, seed)
    if shape.quad:
        loader = _torch_loader(QuadPictures(samples, seed), QuadBatches(sampler), settings)
    else:
        loader = _torch_loader(samples, sampler, settings)
    return DetectionLoader(dataset, loader, sampler)


def evaluation_loader(
    dataset: DetectionDataset,
    image_size: int,
    settings: LoaderSettings,
    *,
    stride: int = 32,
    frame: FrameSize | None = None,
    sort: SortKind = "stable",
) -> DetectionLoader:
    """Letterboxed batches with their ``letterboxes``, every picture once over all ranks.

    Args:
        image_size: pictures are scaled so that their longer side has this many pixels.
        stride: rectangular frames are multiples of it.
        frame: one frame for all pictures instead of rectangular ones (models with a fixed input size).
        sort: of the pictures by shape, see `evaluation_batches`.
    """
    sizes = dataset.index.sizes
    batches = evaluation_batches(sizes, settings.batch_size, sort)
    if frame is None:
        frames = rectangular_frames(sizes, batches, image_size, stride)
    else:
        frames = fixed_frames(len(dataset), frame)
    own = [batch.tolist() for batch in batches[settings.rank :: settings.world]]
    return DetectionLoader(dataset, _torch_loader(LetterboxedPictures(dataset, image_size, frames), own, settings))


def _torch_loader(samples: Any, batch_sampler: Any, settings: LoaderSettings) -> DataLoader[Any]:
    # More processes than processors only cost memory and start-up time.
    workers = min(settings.workers, os.cpu_count() or 1)
    return DataLoader(
        samples,
        batch_sampler=batch_sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=settings.pin_memory,
        worker_init_fn=_limit_threads,
        persistent_workers=workers > 0,
    )


def _limit_threads(_: int) -> None:
    """One thread per worker process: the processes are the parallelism."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)

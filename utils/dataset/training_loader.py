"""Batches to learn from: augmented squares, rectangles or fours (``--quad``), and how often an image is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from torch.utils.data import Dataset, Sampler

from utils.config.hyperparameters import Hyperparameters
from utils.config.train_flags import QUAD
from utils.dataset.augmentation import Augmentation
from utils.dataset.batch_loader import BatchPlan, LoaderSettings
from utils.dataset.detection_dataset import DetectionDataset
from utils.dataset.evaluation_loader import collate, evaluation_batches, rectangular_frames
from utils.dataset.label_index import LabelIndex
from utils.dataset.mosaic import join_labels
from utils.dataset.training_batches import (
    RectangularSampler,
    RemainingImages,
    SampleKey,
    TrainingLoader,
    TrainingSampler,
)
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Batch, Labels, Sample

DetectionTrainingLoader = TrainingLoader[DetectionDataset, Batch]
ENLARGED = 0.5  # share of the images that show one image enlarged
_DRAW = 4  # tells this draw from those of the sample with the same epoch and position


@dataclass(frozen=True, slots=True)
class TrainingShape:
    """What images a training batch is made of."""

    rect: bool = False  # rectangles that suit the batch's images, instead of squares
    quad: bool = False  # four images per image, see `QuadImages`
    stride: int = 32  # rectangles are multiples of it
    closed_from: int | None = None  # the first epoch without mosaics, see `Hyperparameters.closed`


def training_loader(
    dataset: DetectionDataset,
    image_size: int,
    hyp: Hyperparameters,
    seed: int,
    settings: LoaderSettings,
    shape: TrainingShape = TrainingShape(),
) -> DetectionTrainingLoader:
    """Augmented batches, square with sides of ``image_size`` pixels unless ``shape`` says otherwise.

    Call ``set_epoch`` before each epoch.
    """
    sampler: TrainingSampler | RectangularSampler
    if shape.rect:
        sizes = dataset.index.sizes
        batches = evaluation_batches(sizes, settings.batch_size * settings.world)
        frames = rectangular_frames(sizes, batches, image_size, shape.stride, pad=0.0)
        sampler = RectangularSampler(batches, seed, rank=settings.rank, world=settings.world)
        samples = AugmentedImages(dataset, image_size, hyp, seed, frames, closed_from=shape.closed_from)
    else:
        sampler = TrainingSampler(len(dataset), settings.batch_size, seed, rank=settings.rank, world=settings.world)
        samples = AugmentedImages(dataset, image_size, hyp, seed, closed_from=shape.closed_from)
    if shape.quad:
        plan = BatchPlan(QuadImages(samples, seed), QuadBatches(sampler), collate)
    else:
        plan = BatchPlan(samples, sampler, collate)
    return DetectionTrainingLoader(dataset, plan, settings, sampler, samples.remaining)


class AugmentedImages(Dataset):
    """Training samples, augmented; item (epoch, position, index) is the same in every process.

    They are squares of ``side`` pixels, or fill ``frames`` (F, 2), height and width for each image. From the epoch
    ``closed_from`` on they are not made of several; the key says the epoch, so that worker processes need not be told.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        side: int,
        hyp: Hyperparameters,
        seed: int,
        frames: np.ndarray | None = None,
        closed_from: int | None = None,
    ) -> None:
        self._dataset = dataset
        self._seed = seed
        self._frames = frames
        self.remaining = RemainingImages(dataset.index.paths)
        self._closed_from = closed_from
        source = _Remaining(dataset, self.remaining)
        self._open, self._closed = (Augmentation(source, len(dataset), side, of) for of in (hyp, hyp.closed()))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: SampleKey) -> Sample:
        return self.remaining.sample(partial(self._sample, key))

    def _sample(self, key: SampleKey) -> Sample:
        epoch, position, index = key
        rng = np.random.default_rng((self._seed, epoch, position))
        frame = None if self._frames is None else FrameSize(*self._frames[index].tolist())
        is_closed = self._closed_from is not None and epoch >= self._closed_from
        image, labels = (self._closed if is_closed else self._open)(index, rng, frame)
        index = self.remaining.place(index)
        return Sample(image, labels, None, self._dataset.index.paths[index], index)


class _Remaining:
    """A data set as `mosaic.ImageSource`, with others in place of the images that are lost."""

    def __init__(self, dataset: DetectionDataset, remaining: RemainingImages) -> None:
        self._dataset = dataset
        self._remaining = remaining

    def source_size(self, index: int) -> FrameSize:
        return self._dataset.source_size(self._remaining.place(index))

    def source_image(self, index: int, scale: float = 1.0) -> np.ndarray:
        return self._remaining.read(index, lambda place: self._dataset.source_image(place, scale))

    def source_labels(self, index: int) -> Labels:
        return self._dataset.source_labels(self._remaining.place(index))


class QuadBatches(Sampler[list[tuple[SampleKey, ...]]]):
    """The batches of a training sampler in groups of four keys; what is left over of a batch stands alone."""

    def __init__(self, batches: Sampler[list[SampleKey]]) -> None:
        super().__init__()
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]  # both training samplers have a length

    def __iter__(self) -> Iterator[list[tuple[SampleKey, ...]]]:
        for batch in self._batches:
            whole = len(batch) // QUAD * QUAD
            fours = [tuple(batch[start : start + QUAD]) for start in range(0, whole, QUAD)]
            yield fours + [(key,) for key in batch[whole:]]


class QuadImages(Dataset):
    """Samples of twice the height and width: four side by side, or, in half of the cases, the first one enlarged."""

    def __init__(self, samples: AugmentedImages, seed: int) -> None:
        self._samples = samples
        self._seed = seed

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, keys: tuple[SampleKey, ...]) -> Sample:
        rng = np.random.default_rng((self._seed, keys[0].epoch, keys[0].position, _DRAW))
        if len(keys) < QUAD or rng.random() < ENLARGED:
            return enlarged(self._samples[keys[0]])
        return side_by_side([self._samples[key] for key in keys])


def enlarged(sample: Sample) -> Sample:
    """The sample at twice its height and width."""
    height, width = sample.labels.size
    image = cv2.resize(sample.image, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return replace(sample, image=image, labels=_moved(sample.labels, FrameSize(2 * height, 2 * width), gain=2))


def side_by_side(samples: Sequence[Sample]) -> Sample:
    """Four samples of one size in two rows; path and row of the data set are those of the first."""
    first, second, third, fourth = samples
    height, width = first.labels.size
    frame = FrameSize(2 * height, 2 * width)
    rows = [np.concatenate([a.image, b.image], axis=1) for a, b in ((first, second), (third, fourth))]
    parts = [
        _moved(sample.labels, frame, shift=(place % 2 * width, place // 2 * height))
        for place, sample in enumerate(samples)
    ]
    return replace(first, image=np.concatenate(rows), labels=join_labels(*parts))


def _moved(labels: Labels, frame: FrameSize, *, gain: int = 1, shift: tuple[int, int] = (0, 0)) -> Labels:
    """Labels scaled, then shifted by x and y pixels, in a frame of another size."""
    offset = np.array(shift, dtype=np.float32)
    return replace(
        labels,
        boxes=labels.boxes * np.float32(gain) + np.tile(offset, 2),
        polygons=tuple(None if polygon is None else polygon * np.float32(gain) + offset for polygon in labels.polygons),
        size=frame,
    )


def image_weights(index: LabelIndex, class_ap: np.ndarray) -> np.ndarray:
    """Weights (F,) of the images, above 0, as YOLOv5's ``--image-weights``: the sum over an image's objects of
    ``(1 - AP)^2 / objects of that class in the data set``.

    An image without objects counts as much as the least of the others, so that background stays in training.

    Args:
        index: the training split.
        class_ap: (C,) mAP50-95 of each class in the last evaluation, 0 before it; of length 1 all classes are one.
    """
    classes = index.rows[:, 0].astype(np.int64) if len(class_ap) > 1 else np.zeros(len(index.rows), dtype=np.int64)
    counts = np.bincount(classes, minlength=len(class_ap))
    importance = (1 - class_ap) ** 2 / np.maximum(counts, 1)
    image = np.repeat(np.arange(len(index)), np.diff(index.row_ends, prepend=0))
    weights = np.bincount(image, weights=importance[classes], minlength=len(index))
    known = weights[weights > 0]
    return np.where(weights > 0, weights, known.min() if len(known) else 1.0)

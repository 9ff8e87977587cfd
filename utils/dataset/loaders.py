"""From a split to batches: `open_dataset`, then `training_loader` or `evaluation_loader`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.config.hyperparameters import Hyperparameters
from utils.dataset.batch_loader import BatchLoader, BatchPlan, LoaderSettings, TrainingLoader
from utils.dataset.coco_annotations import fit_to_images, index_from_annotations, read_coco_annotations
from utils.dataset.collate import collate
from utils.dataset.detection_dataset import AugmentedImages, DetectionDataset, LetterboxedImages
from utils.dataset.label_cache import read_label_index
from utils.dataset.quad import QuadBatches, QuadImages
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

__all__ = [
    "DetectionLoader",
    "DetectionTrainingLoader",
    "LoaderSettings",
    "TrainingShape",
    "evaluation_loader",
    "open_dataset",
    "training_loader",
]


DetectionLoader = BatchLoader[DetectionDataset, Batch]
DetectionTrainingLoader = TrainingLoader[DetectionDataset, Batch]


def open_dataset(
    sources: Sequence[Path],
    names: tuple[str, ...],
    *,
    title: str = "",
    cache_folder: Path | None = None,
    annotations: Path | None = None,
) -> DetectionDataset:
    """The data set of a split (`DatasetSpec.split`); see `read_label_index`.

    A COCO annotation file named by ``annotations`` is what COCO's figures are computed against. Where no image has
    a label file, the labels are its objects too.
    """
    index = read_label_index(sources, names, title=title, cache_folder=cache_folder)
    if annotations is None:
        return DetectionDataset(index, names)
    content = read_coco_annotations(annotations)
    if index.unlabelled == len(index) and content.has_objects:
        index = index_from_annotations(index, content, names)
    fitted = fit_to_images(content, [index.paths[place] for place in range(len(index))], names)
    return DetectionDataset(index, names, annotations=fitted)


@dataclass(frozen=True, slots=True)
class TrainingShape:
    """What images a training batch is made of."""

    rect: bool = False  # rectangles that suit the batch's images, instead of squares
    quad: bool = False  # four images per image, see `QuadImages`
    stride: int = 32  # rectangles are multiples of it


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
        samples = AugmentedImages(dataset, image_size, hyp, seed, frames)
    else:
        sampler = TrainingSampler(len(dataset), settings.batch_size, seed, rank=settings.rank, world=settings.world)
        samples = AugmentedImages(dataset, image_size, hyp, seed)
    if shape.quad:
        plan = BatchPlan(QuadImages(samples, seed), QuadBatches(sampler), collate)
    else:
        plan = BatchPlan(samples, sampler, collate)
    return DetectionTrainingLoader(dataset, plan, settings, sampler)


def evaluation_loader(
    dataset: DetectionDataset,
    image_size: int,
    settings: LoaderSettings,
    *,
    stride: int = 32,
    frame: FrameSize | None = None,
    sort: SortKind = "stable",
) -> DetectionLoader:
    """Letterboxed batches with their ``letterboxes``, every image once over all ranks.

    Args:
        image_size: images are scaled so that their longer side has this many pixels.
        stride: rectangular frames are multiples of it.
        frame: one frame for all images instead of rectangular ones (models with a fixed input size).
        sort: of the images by shape, see `evaluation_batches`.
    """
    sizes = dataset.index.sizes
    batches = evaluation_batches(sizes, settings.batch_size, sort)
    if frame is None:
        frames = rectangular_frames(sizes, batches, image_size, stride)
    else:
        frames = fixed_frames(len(dataset), frame)
    own = [batch.tolist() for batch in batches[settings.rank :: settings.world]]
    samples = LetterboxedImages(dataset, image_size, frames)
    return DetectionLoader(dataset, BatchPlan(samples, own, collate), settings)

"""Batches to evaluate on: every image once, letterboxed, images of like shape together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from utils.dataset.batch_loader import BatchLoader, BatchPlan, LoaderSettings
from utils.dataset.detection_dataset import DetectionDataset
from utils.geometry.letterbox import FrameSize, LetterboxTransform, letterbox, resize_to_long_side
from utils.geometry.records import Batch, Labels, Sample

DetectionLoader = BatchLoader[DetectionDataset, Batch]
SortKind = Literal["stable", "quicksort"]


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


def evaluation_batches(sizes: np.ndarray, batch_size: int, sort: SortKind = "stable") -> list[np.ndarray]:
    """Rows of the data set per batch, images of like shape together: sorted by height / width.

    Args:
        sizes: (F, 2) height, width.
        sort: NumPy's "quicksort", which YOLOv5 uses, leaves images of equal shape in an order that depends on the
            processor; which batch such an image falls in decides its frame.
    """
    order = np.argsort(sizes[:, 0] / sizes[:, 1], kind=sort)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def rectangular_frames(
    sizes: np.ndarray, batches: list[np.ndarray], long_side: int, stride: int, pad: float = 0.5
) -> np.ndarray:
    """Network frame (F, 2) height, width for each image: the smallest one for its batch, as in YOLOv5.

    A batch takes the frame of its most extreme shape; one with both tall and wide images is square. ``pad`` is a
    margin in strides.
    """
    frames = np.zeros_like(sizes)
    for batch in batches:
        aspects = sizes[batch, 0] / sizes[batch, 1]
        height, width = 1.0, 1.0
        if aspects.max() < 1:
            height = float(aspects.max())
        elif aspects.min() > 1:
            width = float(1 / aspects.min())
        frames[batch] = [math.ceil(side * long_side / stride + pad) * stride for side in (height, width)]
    return frames


def fixed_frames(count: int, frame: FrameSize) -> np.ndarray:
    """The same network frame (count, 2) for every image (exported models with a static input)."""
    return np.tile(np.array(frame, dtype=np.int32), (count, 1))


class LetterboxedImages(Dataset):
    """Evaluation samples: image ``i`` letterboxed into ``frames[i]``, never enlarged beyond ``long_side``."""

    def __init__(self, dataset: DetectionDataset, long_side: int, frames: np.ndarray) -> None:
        self._dataset = dataset
        self._long_side = long_side
        self._frames = frames  # (F, 2) height, width of each image's network frame

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        frame = FrameSize(*self._frames[index].tolist())
        scaled = resize_to_long_side(self._dataset.source_image(index), self._long_side, smooth=True)
        source = self._dataset.source_labels(index)
        image, transform = letterbox(scaled, frame, source=source.size, enlarge=False)
        polygons = tuple(None if p is None else _polygon_to_network(p, transform) for p in source.polygons)
        labels = Labels(transform.to_network(source.boxes), source.classes, polygons, frame)
        return Sample(image, labels, transform, self._dataset.index.paths[index], index)


def _polygon_to_network(polygon: np.ndarray, transform: LetterboxTransform) -> np.ndarray:
    return transform.to_network(np.tile(polygon, 2))[:, :2]


def collate(samples: Sequence[Sample]) -> Batch:
    """A `Batch` of samples whose images have one size.

    The images keep their channels-last order in memory, so that no pixel is moved on the way to the model.
    """
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)
    counts = [len(sample.labels) for sample in samples]
    return Batch(
        images=images,
        boxes=torch.from_numpy(np.concatenate([sample.labels.boxes for sample in samples]).astype(np.float32)),
        classes=torch.from_numpy(np.concatenate([sample.labels.classes for sample in samples]).astype(np.int64)),
        # torch's own repeat would start as many threads as there are processors, in each thread that makes batches.
        image_index=torch.from_numpy(np.repeat(np.arange(len(samples)), counts)),
        letterboxes=tuple(sample.letterbox for sample in samples),
        paths=tuple(sample.path for sample in samples),
        indices=tuple(sample.index for sample in samples),
    )

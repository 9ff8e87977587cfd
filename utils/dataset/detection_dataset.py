"""A split as images with objects, and the two ways a model is fed from it: augmented or letterboxed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from utils.config.hyperparameters import Hyperparameters
from utils.dataset.augmentation import Augmentation
from utils.dataset.coco_annotations import CocoTruth, ImageAnnotations, truth_with_ignored
from utils.dataset.image_cache import CacheKind, ImageCache, cache_images, image_layout
from utils.dataset.image_files import ImageReadError, read_image
from utils.dataset.label_cache import cache_folder_of
from utils.dataset.label_index import LabelIndex
from utils.geometry.letterbox import FrameSize, LetterboxTransform, letterbox, resize_to_long_side
from utils.geometry.records import Labels, Sample


class SampleKey(NamedTuple):
    """What a training sample is a function of, besides the seed."""

    epoch: int
    position: int  # place in the epoch's order over all ranks
    image: int  # row of the data set


class DetectionDataset:
    """Images and ground truth of one split, as they are on disk.

    ``annotations``, if the data set names a COCO annotation file, is what COCO's figures are computed against.
    """

    def __init__(
        self,
        index: LabelIndex,
        names: tuple[str, ...],
        cache: ImageCache | None = None,
        annotations: ImageAnnotations | None = None,
    ) -> None:
        self.index = index
        self.names = names
        self.annotations = annotations
        self._cache = cache

    def cached(self, kind: CacheKind, *, long_side: int | None = None, title: str = "") -> DetectionDataset:
        """The same split with its images decoded once and kept; see `cache_images`."""
        folder = cache_folder_of(self.index.paths[0])
        cache = cache_images(self.index, kind, folder, long_side=long_side, title=title)
        return DetectionDataset(self.index, self.names, cache, self.annotations)

    def decoded_bytes(self, long_side: int) -> int:
        """What ``cached`` would keep with this ``long_side``."""
        return image_layout(self.index.sizes, long_side).total

    def __len__(self) -> int:
        return len(self.index)

    @property
    def coco_truth(self) -> CocoTruth | None:
        """What COCO's figures are computed against where that is more than the labels, images numbered as images."""
        return truth_with_ignored(self.index) if self.annotations is None else self.annotations.truth

    def source_size(self, index: int) -> FrameSize:
        """Size of image ``index`` on disk, pixels."""
        height, width = self.index.sizes[index].tolist()
        return FrameSize(height, width)

    def source_labels(self, index: int) -> Labels:
        """Ground truth of image ``index``, in pixels of the image on disk."""
        return self.index.labels(index)

    def source_image(self, index: int, scale: float = 1.0) -> np.ndarray:
        """Image ``index`` (H, W, 3) uint8 RGB, reduced by 2, 4 or 8 where that leaves ``scale`` of its size.

        A cached image comes as it was cached, whatever the scale.

        Raises:
            ImageReadError: it is gone, or has another size than when it was indexed.
        """
        if self._cache is not None:
            return self._cache.image(index)
        reduction = max((r for r in (2, 4, 8) if r * scale <= 1), default=1)
        path = self.index.paths[index]
        image = read_image(path, reduction)
        height, width = self.source_size(index)
        if image.shape[:2] != (math.ceil(height / reduction), math.ceil(width / reduction)):
            raise ImageReadError(f"{path}: its size is no longer {width} x {height}; the file has changed")
        return image


class AugmentedImages(Dataset):
    """Training samples, augmented; item (epoch, position, index) is the same in every process.

    They are squares of ``side`` pixels, or fill ``frames`` (F, 2), height and width for each image.
    """

    def __init__(
        self, dataset: DetectionDataset, side: int, hyp: Hyperparameters, seed: int, frames: np.ndarray | None = None
    ) -> None:
        self._dataset = dataset
        self._seed = seed
        self._frames = frames
        self._augmentation = Augmentation(dataset, len(dataset), side, hyp)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: SampleKey) -> Sample:
        epoch, position, index = key
        rng = np.random.default_rng((self._seed, epoch, position))
        frame = None if self._frames is None else FrameSize(*self._frames[index].tolist())
        image, labels = self._augmentation(index, rng, frame)
        return Sample(image, labels, None, self._dataset.index.paths[index], index)


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

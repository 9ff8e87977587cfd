"""A split as it is on disk: images, their objects, and what COCO's figures are computed against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from utils.dataset.coco_annotations import (
    CocoTruth,
    ImageAnnotations,
    fit_to_images,
    index_from_annotations,
    read_coco_annotations,
    truth_with_ignored,
    usable_annotations,
)
from utils.dataset.image_files import ImageReadError, read_image
from utils.dataset.label_cache import read_label_index
from utils.dataset.label_index import LabelIndex
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Labels


class ImageCache(Protocol):
    """Where decoded images come from."""

    def image(self, index: int) -> np.ndarray:
        """Image ``index`` (H, W, 3) uint8 RGB, not to be written to."""


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
    content, index = usable_annotations(read_coco_annotations(annotations), index)
    if index.unlabelled == len(index) and content.has_objects:
        index = index_from_annotations(index, content, names)
    fitted = fit_to_images(content, index.paths, names)
    return DetectionDataset(index, names, annotations=fitted)

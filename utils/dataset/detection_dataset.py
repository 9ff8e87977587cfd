"""A split as it is on disk: images, their objects, and what COCO's figures are computed against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from utils.config.dataset_yaml import DatasetSpec
from utils.dataset.coco_annotations import (
    CocoTruth,
    ImageAnnotations,
    annotated,
    truth_with_ignored,
)
from utils.dataset.coco_files import CocoAnnotations, read_coco_annotations
from utils.dataset.image_files import ImageReadError, read_image
from utils.dataset.image_lists import label_path
from utils.dataset.label_cache import read_label_index
from utils.dataset.label_index import LabelIndex
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Labels
from utils.runtime.console_log import counted
from utils.user_error import UserError


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

    def why_empty(self) -> str:
        """Where the objects have gone of a split that has none, for its owner."""
        index = self.index
        of_rows = [problem for problem in index.problems if not problem.whole_file]
        of_files = [problem for problem in index.problems if problem not in of_rows]
        regions = 0 if self.coco_truth is None else int(self.coco_truth.crowd.sum())
        example = "" if self.annotations else f" (for {index.paths[0]} there is no {label_path(index.paths[0])})"
        reasons = (
            (index.unlabelled, f"{index.unlabelled} without labels{example if index.unlabelled == len(self) else ''}"),
            (of_rows, f"label rows left out: {len(of_rows)}, the first {of_rows[0] if of_rows else ''}"),
            (of_files, f"files left out: {len(of_files)}, the first {of_files[0] if of_files else ''}"),
            (regions, f"regions to ignore: {regions}"),
        )
        said = "; ".join(reason for holds, reason in reasons if holds) or "every label file is empty"
        return f"{counted(len(self), 'image')} and no object: {said}"

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
    return _annotated(index, names, read_coco_annotations(annotations))


def open_part(spec: DatasetSpec, part: str, *, title: str = "") -> DetectionDataset:
    """``train``, ``val`` or ``test`` of a data set, as `open_dataset`.

    A lone name under ``annotations:`` is the file of val, and of another part where that has no label files.

    Raises:
        UserError: the part is missing, or has no label files and no image in the lone annotation file.
    """
    sources, file = spec.having(part).split(part), spec.annotations.get(part)
    index = read_label_index(sources, spec.names, title=title, root=spec.root)
    may_lack = spec.lone_annotations and part != "val"
    if file is None or (may_lack and index.unlabelled < len(index)):
        return DetectionDataset(index, spec.names)
    content = read_coco_annotations(file)
    if may_lack and not _names_any(content, index):
        if part == "train":
            raise UserError(f"{spec.file}: annotations: {file} names no image of train, and train has no labels")
        return DetectionDataset(index, spec.names)
    return _annotated(index, spec.names, content)


def _names_any(content: CocoAnnotations, index: LabelIndex) -> bool:
    listed = {PurePosixPath(name).name for name in content.image_names}
    return any(path.name in listed for path in index.paths)


def _annotated(index: LabelIndex, names: tuple[str, ...], content: CocoAnnotations) -> DetectionDataset:
    index, annotations = annotated(index, content, names)
    return DetectionDataset(index, names, annotations=annotations)

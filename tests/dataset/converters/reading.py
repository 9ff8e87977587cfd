"""What a conversion wrote, read back as training and evaluation read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.dataset.images import write_image
from utils.dataset.converters import FORMATS
from utils.dataset.converters.label_writing import PartSummary, SourceSettings, write_labels
from utils.dataset.detection_dataset import DetectionDataset, open_dataset

HEIGHT, WIDTH = 100, 200


def blank(path: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """A black image."""
    return write_image(path, np.zeros((*size, 3), np.uint8))


def converted(format_name: str, settings: SourceSettings, target: Path | None = None) -> dict[str, PartSummary]:
    """The summaries of a conversion, by part."""
    summaries = write_labels(FORMATS[format_name](settings), target, progress=False)
    return {summary.name: summary for summary in summaries}


def opened(summary: PartSummary, names: tuple[str, ...], cache: Path) -> DetectionDataset:
    """The part as a data set."""
    sources = (summary.listed,) if summary.listed else tuple(sorted(summary.places))
    return open_dataset(sources, names, cache_folder=cache, annotations=summary.annotations)


def objects(dataset: DetectionDataset, name: str) -> list[tuple[int, ...]]:
    """Class and rounded corners of each object of the image with this file name."""
    (row,) = (i for i, path in enumerate(dataset.index.paths) if path.name == name)
    labels = dataset.source_labels(row)
    return [
        (int(kind), *box) for kind, box in zip(labels.classes, labels.boxes.round().astype(int).tolist(), strict=True)
    ]

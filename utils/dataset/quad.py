"""Training images made of four samples, or of one enlarged (``--quad``): as many pixels, half of them in close-up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from torch.utils.data import Dataset, Sampler

from utils.config.run_config import QUAD
from utils.dataset.detection_dataset import AugmentedImages, SampleKey
from utils.dataset.mixup import join_labels
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Labels, Sample

ENLARGED = 0.5  # share of the images that show one image enlarged
_DRAW = 4  # tells this draw from those of the sample with the same epoch and position


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

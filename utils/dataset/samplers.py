"""The order of an epoch, a function of (seed, epoch); the batches of an evaluation, a function of the images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from utils.dataset.detection_dataset import SampleKey
from utils.geometry.letterbox import FrameSize


class TrainingSampler(Sampler[list[SampleKey]]):
    """Batches of sample keys of one rank.

    One global order is drawn per epoch; rank r of w takes its positions r, r + w, ..., so that the batches of all
    ranks together are those of a single process with ``w`` times the batch. Where ``w`` does not divide the number
    of images, the order goes on from its start.
    """

    def __init__(self, image_count: int, batch_size: int, seed: int, *, rank: int = 0, world: int = 1) -> None:
        super().__init__()
        self._image_count = image_count
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world = world
        self._epoch = 0
        self._shares: np.ndarray | None = None

    def set_epoch(self, epoch: int, weights: np.ndarray | None = None) -> None:
        """Choose the epoch; with ``weights`` (F,) images are drawn in proportion to them, with replacement."""
        self._epoch = epoch
        self._shares = None if weights is None else weights / weights.sum()

    def __len__(self) -> int:
        """Batches of this rank, the last one possibly smaller."""
        return math.ceil(self._positions / self._batch_size)

    @property
    def _positions(self) -> int:
        return math.ceil(self._image_count / self._world)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch = self._epoch
        rng = np.random.default_rng((self._seed, epoch))
        if self._shares is None:
            order = rng.permutation(self._image_count)
        else:
            order = rng.choice(self._image_count, self._image_count, p=self._shares)
        positions = range(self._rank, self._positions * self._world, self._world)
        keys = [SampleKey(epoch, position, int(order[position % len(order)])) for position in positions]
        for start in range(0, len(keys), self._batch_size):
            yield keys[start : start + self._batch_size]


class RectangularSampler(Sampler[list[SampleKey]]):
    """Fixed batches of images of like shape, in an order drawn per epoch (``--rect``).

    Args:
        batches: images of each batch over all ranks, as from `evaluation_batches`.
        seed: of the order.
    """

    def __init__(self, batches: list[np.ndarray], seed: int, *, rank: int = 0, world: int = 1) -> None:
        super().__init__()
        self._batches = batches
        self._seed = seed
        self._rank = rank
        self._world = world
        self._epoch = 0

    def set_epoch(self, epoch: int, weights: np.ndarray | None = None) -> None:
        """Choose the epoch; a fixed order cannot be weighted."""
        if weights is not None:
            raise ValueError("rectangular batches are fixed")
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order = np.random.default_rng((self._seed, self._epoch)).permutation(len(self._batches))
        position = 0
        for number in order:
            # A batch that the ranks do not divide evenly goes on from its start.
            batch = np.resize(self._batches[number], math.ceil(len(self._batches[number]) / self._world) * self._world)
            own = range(self._rank, len(batch), self._world)
            yield [SampleKey(self._epoch, position + place, int(batch[place])) for place in own]
            position += len(batch)


SortKind = Literal["stable", "quicksort"]


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

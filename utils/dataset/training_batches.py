"""The order of an epoch, a function of (seed, epoch), and the processes that make its batches, whatever is learned."""

from __future__ import annotations

import itertools
import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from utils.dataset.batch_loader import BatchLoader, BatchPlan, BatchType, DatasetType, LoaderSettings
from utils.dataset.image_files import ImageReadError
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)
MOST_LOST = 0.1  # share of the training images that a run does without
Made = TypeVar("Made")


class SampleKey(NamedTuple):
    """What a training sample is a function of, besides the seed."""

    epoch: int
    position: int  # place in the epoch's order over all ranks
    image: int  # row of the data set


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


class RemainingImages:
    """Which training images can still be read. In place of one that is lost while the run goes on stands the next.

    A sample is a function of its key and of what is on the disk, so that the number of workers still changes nothing.
    """

    def __init__(self, images: Sequence[Path] | np.ndarray) -> None:
        self._images = images  # files; an array has them all
        self._lost: set[int] = set()  # as this process met them
        self._marks = torch.zeros(len(images), dtype=torch.uint8)  # as all processes did
        self._marks.share_memory_()  # type: ignore[no-untyped-call]
        self._told = 0

    def place(self, index: int) -> int:
        """The image that is taken for ``index``."""
        while index in self._lost:
            index = (index + 1) % len(self._marks)
        return index

    def read(self, index: int, read: Callable[[int], np.ndarray]) -> np.ndarray:
        """The pixels of the image that is taken for ``index``.

        Raises:
            ImageReadError: it is lost; from now on another one is taken.
            UserError: too many are.
        """
        place = self.place(index)
        try:
            return read(place)
        except ImageReadError as error:
            self._lost.add(place)
            self._marks[place] = 1
            lost, count = int(self._marks.sum()), len(self._marks)
            if lost > MOST_LOST * count:
                raise UserError(f"{error}; {lost} of {count} training images are lost, more than a tenth") from error
            raise

    def sample(self, make: Callable[[], Made]) -> Made:
        """What ``make`` makes, begun anew as often as it meets a lost image."""
        while True:
            try:
                return make()
            except ImageReadError:
                continue  # `read` has noted it, and ends the run when it is one too many

    def tell(self, *, at_end: bool = False) -> None:
        """Warn of the first lost image, and of their number at the end of an epoch in which it grew."""
        lost, count = int(self._marks.sum()), len(self._marks)
        if lost and not self._told:
            first = self._images[int(self._marks.argmax())]
            LOGGER.warning(
                "%s: cannot be read any more (%d of %d training images so far); others stand in, up to a tenth of all",
                first, lost, count,
            )  # fmt: skip
        elif at_end and lost > self._told:
            LOGGER.warning("%d of %d training images cannot be read any more", lost, count)
        if at_end or not self._told:
            self._told = lost


class EpochOrder(Protocol):
    """What draws an order for each epoch."""

    def set_epoch(self, epoch: int, weights: np.ndarray | None = None) -> None: ...


class TrainingLoader(BatchLoader[DatasetType, BatchType]):
    """The same by worker processes, in an order that ``epochs`` draws: augmentation is largely Python's own work."""

    def __init__(
        self,
        dataset: DatasetType,
        plan: BatchPlan[BatchType],
        settings: LoaderSettings,
        epochs: EpochOrder,
        remaining: RemainingImages,
    ) -> None:
        super().__init__(dataset, plan, settings)
        self._epochs = epochs
        self._remaining = remaining
        self._batches: DataLoader[Any] = DataLoader(
            plan.samples,
            batch_sampler=plan.order,  # type: ignore[arg-type]  # of whatever keys
            num_workers=self.workers,
            collate_fn=plan.collate,
            pin_memory=settings.pin_memory,
            worker_init_fn=_limit_threads,
            persistent_workers=self.workers > 0,
        )

    def first(self, count: int) -> Iterator[BatchType]:
        """The first batches of the iteration to come, made in this process, for a look at them."""
        return map(self._plan.batch, itertools.islice(self._plan.order, count))

    def set_epoch(self, epoch: int, weights: np.ndarray | None = None) -> None:
        """Choose the order and the augmentation of the iterations to come.

        With ``weights`` (F,) images are drawn in proportion to them.
        """
        self._epochs.set_epoch(epoch, weights)

    def __iter__(self) -> Iterator[BatchType]:
        try:
            for batch in _started(self._batches):
                self._remaining.tell()
                yield batch
            self._remaining.tell(at_end=True)
        except UserError as error:
            # A worker's exception arrives with the worker's traceback as its text; its last line is the message.
            message = str(error.args[0]).strip().splitlines()[-1]
            message = message.removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: ")
            # Its own traceback holds the iterator in a cycle; collected as one, the workers would not hear of the end
            # and the program would wait five seconds for them.
            error.__traceback__ = None
            raise UserError(message) from None


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of ``loader``, with its workers started and this process's signals as they were.

    torch would have SIGCHLD raise for a lost worker wherever this process stands, be it in the write of a file, whose
    failure it then seems to be. The wait for the next batch notices the loss too, after five seconds at most.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)  # where torch sets no handler either
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, before)


def _limit_threads(_: int) -> None:
    """One thread per worker process: the processes are the parallelism."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)

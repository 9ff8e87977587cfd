"""Batches out of a data set, whatever is learned: made ahead by threads or processes, and the errors of those."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from utils.config.shared_flags import RunConfig
from utils.runtime.process_ranks import ProcessRanks
from utils.runtime.threads import one_opencv_thread, read_ahead, useful_workers
from utils.user_error import UserError

Loaded = TypeVar("Loaded")


class LoadedBatch(Protocol):
    """What a data set's samples become."""

    def pin_memory(self: Loaded) -> Loaded: ...


BatchType = TypeVar("BatchType", bound=LoadedBatch, covariant=True)
DatasetType = TypeVar("DatasetType")


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """How batches are made, of either kind."""

    batch_size: int  # images per batch of this process
    workers: int = 0  # threads or processes that load; never changes what is loaded
    pin_memory: bool = False  # for copies to CUDA
    rank: int = 0
    world: int = 1

    @classmethod
    def of_run(cls, config: RunConfig, ranks: ProcessRanks) -> LoaderSettings:
        """For this process's share of the batches that a training run learns from."""
        return cls(
            config.batch_size // ranks.world,
            workers=config.workers,
            pin_memory=ranks.device.type == "cuda",
            rank=ranks.rank,
            world=ranks.world,
        )

    def without_gradients(self) -> LoaderSettings:
        """For an evaluation, whose batches may be larger as there are no gradients to hold."""
        return replace(self, batch_size=2 * self.batch_size)


class BatchOrder(Protocol):
    """The keys of the samples of each batch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence[Any]]: ...


class EpochOrder(Protocol):
    """What draws an order for each epoch."""

    def set_epoch(self, epoch: int, weights: np.ndarray | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class BatchPlan(Generic[BatchType]):
    """What each batch is made of, and how."""

    samples: Any  # by key
    order: BatchOrder
    collate: Callable[[Any], BatchType]

    def batch(self, keys: Sequence[Any], abandoned: Callable[[], bool] = lambda: False) -> BatchType:
        """One batch, unless ``abandoned`` says between two samples that nobody waits for it any more."""
        samples = []
        for key in keys:
            if abandoned():
                raise CancelledError
            samples.append(self.samples[key])
        return self.collate(samples)


class BatchLoader(Generic[DatasetType, BatchType]):
    """An iterable of batches of ``dataset``, once through it per iteration, made ahead by threads of this process.

    For evaluation, where nearly all the work is OpenCV's, which leaves Python to others meanwhile: threads start at
    once and hand batches over as they are. Without threads (``settings.workers``) a batch is made when it is asked for.
    """

    def __init__(self, dataset: DatasetType, plan: BatchPlan[BatchType], settings: LoaderSettings) -> None:
        self.dataset = dataset
        self.workers = useful_workers(settings.workers)
        self._plan = plan
        self._pin_memory = settings.pin_memory

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._plan.order)

    def __iter__(self) -> Iterator[BatchType]:
        abandoned = threading.Event()

        def make(keys: Sequence[Any]) -> BatchType:
            batch = self._plan.batch(keys, abandoned.is_set)
            return batch.pin_memory() if self._pin_memory else batch

        with one_opencv_thread() if self.workers else nullcontext():
            yield from read_ahead(make, self._plan.order, threads=self.workers, abandoned=abandoned)


class TrainingLoader(BatchLoader[DatasetType, BatchType]):
    """The same by worker processes, in an order that ``epochs`` draws: augmentation is largely Python's own work."""

    def __init__(
        self, dataset: DatasetType, plan: BatchPlan[BatchType], settings: LoaderSettings, epochs: EpochOrder
    ) -> None:
        super().__init__(dataset, plan, settings)
        self._epochs = epochs
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
            yield from _started(self._batches)
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

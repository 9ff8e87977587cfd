"""Batches out of a data set, whatever is learned: what they are made of, and the threads that make them ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from utils.config.run_flags import RunConfig
from utils.runtime.process_ranks import ProcessRanks
from utils.runtime.threads import one_opencv_thread, read_ahead, useful_workers

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

"""Batches out of a data set, whatever is learned: worker processes, order of an epoch, errors of workers."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from utils.config.run_config import RunConfig
from utils.runtime.process_ranks import ProcessRanks
from utils.user_error import UserError

BatchType = TypeVar("BatchType", covariant=True)
DatasetType = TypeVar("DatasetType")


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """How batches are made, of either kind."""

    batch_size: int  # pictures per batch of this process
    workers: int = 0  # processes that load; never changes what is loaded
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


class EpochSampler(Protocol):
    """An order that depends on the epoch."""

    def set_epoch(self, epoch: int, weights: np.ndarray | None = None) -> None: ...


class BatchLoader(Generic[DatasetType, BatchType]):
    """An iterable of batches of ``dataset``, once through it per iteration."""

    def __init__(self, dataset: DatasetType, batches: DataLoader[Any], sampler: EpochSampler | None = None) -> None:
        self.dataset = dataset
        self._batches = batches
        self._sampler = sampler

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def set_epoch(self, epoch: int, weights: np.ndarray | None = None) -> None:
        """Choose the order and the augmentation of the iterations to come (training).

        With ``weights`` (F,) pictures are drawn in proportion to them.
        """
        if self._sampler is not None:
            self._sampler.set_epoch(epoch, weights)

    def first(self, count: int) -> Iterator[BatchType]:
        """The first batches of the iteration to come, made in this process, for a look at them."""
        loader = self._batches
        for keys in itertools.islice(loader.batch_sampler or (), count):
            yield loader.collate_fn([loader.dataset[key] for key in keys])

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


def torch_loader(
    samples: Any, batch_sampler: Any, settings: LoaderSettings, collate: Callable[[Any], Any]
) -> DataLoader[Any]:
    """Batches of ``samples`` in the order of the sampler, made by worker processes."""
    # More processes than processors only cost memory and start-up time.
    workers = min(settings.workers, os.cpu_count() or 1)
    return DataLoader(
        samples,
        batch_sampler=batch_sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=settings.pin_memory,
        worker_init_fn=_limit_threads,
        persistent_workers=workers > 0,
    )


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

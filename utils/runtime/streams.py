"""What a CUDA GPU does by itself: it takes the next batch while it works on this one, and notes how long it takes."""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import Protocol, TypeVar

import torch

LOGGER = logging.getLogger(__name__)


class Copyable(Protocol):
    """A batch as a loader makes it."""

    def copied(self: Copied, device: torch.device) -> Copied:
        """The same with its tensors on ``device``, as they are."""

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Those that ``copied`` copies."""


Copied = TypeVar("Copied", bound=Copyable)


def copied_ahead(batches: Iterable[Copied], device: torch.device) -> Iterator[tuple[Copied, Copied]]:
    """Each of the ``batches``, and the same on ``device``.

    On a CUDA GPU the next batch is taken from ``batches``, and its copy begun on a stream of its own, before this one
    is given out: it travels while the GPU works on this one. An error of ``batches`` therefore comes one batch early,
    and the GPU holds one batch more. On other devices nothing is copied, and both are the batch itself.
    """
    if device.type != "cuda" or not has_streams(device):
        for batch in batches:
            yield batch, batch
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    computing = torch.cuda.current_stream(device)
    waiting: deque[tuple[Copied, Copied]] = deque()
    for batch in batches:
        computing.wait_stream(copying)  # for the batch that waits: the next one's copy, not yet begun, is not meant
        with torch.cuda.stream(copying):
            copy = batch.copied(device)
        for tensor in copy.tensors:
            tensor.record_stream(computing)  # or its memory would be used again while the GPU still computes with it
        waiting.append((batch, copy))
        if len(waiting) > 1:
            yield waiting.popleft()
    computing.wait_stream(copying)
    yield from waiting


class StageClock:
    """Seconds spent in each stage of a loop.

    A CUDA GPU notes the time when it gets to the end of a stage, for which nobody waits. Elsewhere it is the host that
    does, after Apple's GPU has ended what it was told.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._times: list[tuple[str, float]] = []
        self._events: list[tuple[str, torch.cuda.Event]] = []
        self._by_events = device.type == "cuda" and has_streams(device)

    def start(self) -> None:
        """What has passed since the last lap is no stage's."""
        self.lap("")

    def lap(self, stage: str) -> None:
        """What passes between the start or the last lap and this moment of the device is that stage's."""
        if self._by_events:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._events.append((stage, event))
            return
        if self._device.type == "mps":
            torch.mps.synchronize()
        self._times.append((stage, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """The sum of each stage; the last lap's end is waited for."""
        found: dict[str, float] = defaultdict(float)
        if self._events:
            self._events[-1][1].synchronize()
        for (_, event), (stage, later) in pairwise(self._events):
            found[stage] += event.elapsed_time(later) / 1e3
        for (_, begin), (stage, end) in pairwise(self._times):
            found[stage] += end - begin
        return found


@cache
def has_streams(device: torch.device) -> bool:
    """Whether a CUDA GPU has streams beside the one that it computes on; one that is only pretended has none."""
    try:
        torch.Stream(device)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        LOGGER.warning("%s has no streams (%s): batches are copied between steps, times are the host's", device, reason)
        return False
    return True

"""What a CUDA GPU does beside its computation: it takes the next batch from the host while it works on this one."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
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


@cache
def has_streams(device: torch.device) -> bool:
    """Whether a CUDA GPU has streams beside the one that it computes on; one that is only pretended has none."""
    try:
        torch.Stream(device)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        LOGGER.warning("%s has no further stream (%s): batches are copied between steps", device, reason)
        return False
    return True

"""Work that is slow to wait for, done in threads a few items ahead, results in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def useful_workers(asked: int) -> int:
    """No more than there are processors: others only cost memory and start-up time."""
    return min(asked, os.cpu_count() or 1)


def read_ahead(
    read: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int = 2,
    abandoned: threading.Event | None = None,
) -> Iterator[Result]:
    """``map(read, items)`` with the next few calls running in threads; an error comes at its item's turn.

    At most two results per thread are waiting, whatever the number of items. The end, an error and an interruption
    wait for the calls that run: a ``read`` that takes long looks at ``abandoned``, which is set when nobody wants its
    result any more. Without threads each call is made when its result is asked for.
    """
    if not threads:
        yield from map(read, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read-ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            if abandoned:
                abandoned.set()
            for future in waiting:
                future.cancel()

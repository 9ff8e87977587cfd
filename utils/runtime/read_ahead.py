"""Work that is slow to wait for, done in threads a few items ahead, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item], *, threads: int = 2) -> Iterator[Result]:
    """``map(read, items)`` with the next few calls running in threads; an error comes at its item's turn.

    At most two results per thread are waiting, whatever the number of items.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max(threads, 1), thread_name_prefix="read-ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > 2 * max(threads, 1):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

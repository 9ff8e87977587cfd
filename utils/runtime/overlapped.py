"""Stages of work that run at the same time, each in its own thread, with a bounded number of items between them."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")

POLL = 0.1  # seconds between two looks at whether the other side still wants to go on


class _End:
    """Last thing in a queue."""


def never() -> bool:
    """Nobody asks to stop."""
    return False


def ahead(items: Iterable[Item], depth: int, stopped: Callable[[], bool] = never) -> Generator[Item]:
    """The same items, produced in a thread of their own that is at most ``depth`` items ahead.

    An error of ``items`` comes at its turn. The thread ends when the items do, when the caller closes this iterator,
    or soon after ``stopped`` says so.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(depth)
    left = threading.Event()

    def put(item: Item | _End) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=POLL)
                return

    def produce() -> None:
        try:
            for item in items:
                put(item)
                if left.is_set():
                    return
        finally:
            put(_End())

    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        producing = pool.submit(produce)
        try:
            while not stopped():
                try:
                    item = waiting.get(timeout=POLL)
                except queue.Empty:
                    continue
                if isinstance(item, _End):
                    return producing.result()
                yield item
        finally:
            left.set()


class Behind(Generic[Item]):
    """Calls done in a thread of their own, in order; when ``depth`` of them wait, the caller waits too.

    Leaving the ``with`` block waits for all calls. The error of a call is raised by a later ``submit`` or on leaving;
    calls that have not begun by then are dropped.
    """

    def __init__(self, call: Callable[[Item], object], depth: int) -> None:
        self._call = call
        self._depth = depth
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._waiting: deque[Future[object]] = deque()

    def __enter__(self) -> Behind[Item]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while self._waiting and error is None:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, item: Item) -> None:
        """Have the call done with ``item``, soon."""
        self._waiting.append(self._pool.submit(self._call, item))
        while len(self._waiting) > self._depth:
            self._waiting.popleft().result()

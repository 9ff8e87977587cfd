"""Work in threads: results a few items ahead, stages side by side with a bounded number of items between them."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL = 0.1  # seconds between two checks whether the other side still wants to go on
_LOCK = threading.Lock()
_holders: list[int] = []  # for each block that runs, the number that OpenCV had before the first of them


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
    wait for the calls that run: a ``read`` that takes long checks ``abandoned``, which is set when nobody wants its
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


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Where threads of ours take an image each, OpenCV's own would only be in their way.

    The number is the process's: blocks may overlap, and the last one to end puts it back.
    """
    with _LOCK:
        _holders.append(_holders[0] if _holders else cv2.getNumThreads())
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        with _LOCK:
            before = _holders.pop()
            if not _holders:
                cv2.setNumThreads(before)

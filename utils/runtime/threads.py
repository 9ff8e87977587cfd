"""Work in threads: results a few items ahead, stages side by side with a bounded number of items between them.

And how many threads there should be, as other processes want the processors too.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL = 0.1  # seconds between two checks whether the other side still wants to go on
SPIN = 3000  # turns of libgomp's waiting loop, about 0.03 ms; its own default is 300 000
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # by which users say how threads wait
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


def share_processors() -> None:
    """Have torch's threads leave a processor to others when they wait, and be no more than the process may use.

    libgomp, the OpenMP runtime of torch on Linux, reads the environment when torch is loaded: afterwards this does
    nothing. Its threads wait for each other by turning in a loop for 3 ms. Where other processes want the processors,
    the thread that is waited for does not run meanwhile, and each of the many barriers of a forward pass costs those
    milliseconds. A short spin costs nothing alone (docs/performance.md has the measurement); none at all would.

    The number of threads follows the processors' affinity by itself, but not a CPU quota: see `usable_processors`.
    What the user has set stays as it is. Child processes inherit all of it.
    """
    if "torch" in sys.modules:
        return
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN)
    processors = usable_processors()
    if processors < _bound_to():
        os.environ.setdefault("OMP_NUM_THREADS", str(processors))
        os.environ.setdefault("OPENCV_FOR_THREADS_NUM", str(processors))


def others_may_spin() -> bool:
    """Whether threads of runtimes that do not read libgomp's variables may turn in a loop while they wait.

    Only if the user says so: beside another process it costs time, and alone it gains none (docs/performance.md).
    """
    return os.environ.get("OMP_WAIT_POLICY", "").lower() == "active"


def usable_processors(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Processors that this process may keep busy: those it is bound to, or its CPU quota rounded up if that is less.

    ``cgroups`` is where Linux shows the control groups of either version, ``own`` the file that names this process's.
    """
    return max(1, math.ceil(min([_bound_to(), *_quotas(cgroups, own)])))


def _bound_to() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """CPU quotas in processors, of the process's groups and of all above them, each of which limits it."""
    with contextlib.suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            # A container may be shown its path on the host, which lies nowhere here: of its own group is then the root.
            inner = PurePosixPath(group).relative_to("/")
            for hierarchy in {controllers, "cpu"} if controllers else {""}:
                yield from (_quota(cgroups / hierarchy / folder) for folder in (inner, *inner.parents))


def _quota(group: Path) -> float:
    """``cpu.max`` of version 2 is ``max 100000`` or ``150000 100000``; version 1 has two files, and -1 for no limit."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = " ".join((group / name).read_text(encoding="utf-8") for name in names).split()
            return math.inf if quota in ("max", "-1") else int(quota) / int(period)
    return math.inf


def useful_workers(asked: int) -> int:
    """No more than there are processors to use: others only cost memory and start-up time."""
    return min(asked, usable_processors())


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
    import cv2  # large, and --help needs none

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

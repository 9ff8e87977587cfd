"""How many threads OpenCV takes of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_LOCK = threading.Lock()
_holders: list[int] = []  # for each block that runs, the number that OpenCV had before the first of them


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

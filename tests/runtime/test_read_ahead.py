"""Reading ahead in threads, and OpenCV's own threads meanwhile."""

from __future__ import annotations

import threading
import time

import cv2
import pytest

from utils.runtime.opencv_threads import one_opencv_thread
from utils.runtime.read_ahead import read_ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_order_and_an_error_at_its_turn(threads: int) -> None:
    def read(number: int) -> int:
        if number == 7:
            raise ValueError("the seventh")
        return -number

    got = []
    before = threading.active_count()
    with pytest.raises(ValueError, match="the seventh"):
        for result in read_ahead(read, range(10), threads=threads):
            got.append(result)
    assert got == [0, -1, -2, -3, -4, -5, -6]
    assert threading.active_count() == before


def test_whoever_leaves_early_waits_for_no_call_that_looks_whether_it_is_wanted() -> None:
    abandoned = threading.Event()

    def read(number: int) -> int:
        if number and not abandoned.wait(timeout=60):
            raise TimeoutError
        return number

    start = time.monotonic()
    results = read_ahead(read, range(10), threads=2, abandoned=abandoned)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]  # a generator, as an interruption finds it
    assert abandoned.is_set() and time.monotonic() - start < 30


def test_opencv_has_its_threads_back_when_the_last_block_ends() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        first, second = one_opencv_thread(), one_opencv_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert cv2.getNumThreads() == 1
        second.__exit__(None, None, None)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)

"""Work in threads: order, errors, bounds and ends, and OpenCV's own threads meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import cv2
import pytest

from utils.runtime.threads import Behind, ahead, one_opencv_thread, read_ahead


def test_items_come_in_order_and_the_thread_ends() -> None:
    before = threading.active_count()
    assert list(ahead(range(50), 3)) == list(range(50))
    assert threading.active_count() == before


def test_the_producer_is_no_further_ahead_than_allowed() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    for seen, number in enumerate(ahead(items(), 2)):
        assert number == seen
        assert len(made) <= seen + 1 + 2 + 1  # taken, waiting, in the hand of the producer


def test_an_error_comes_at_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the third")

    got = []
    with pytest.raises(ValueError, match="the third"):
        for number in ahead(items(), 5):
            got.append(number)
    assert got == [1, 2]


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    numbers = ahead(iter(int, 1), 2)  # endless zeros
    assert next(numbers) == 0
    numbers.close()
    assert threading.active_count() == before


def test_a_request_to_stop_ends_the_items() -> None:
    stop = threading.Event()
    got = []
    for number in ahead(iter(int, 1), 2, stop.is_set):
        got.append(number)
        if len(got) == 5:
            stop.set()
    assert len(got) == 5


def test_calls_are_done_in_order_and_all_of_them() -> None:
    done: list[int] = []
    with Behind(done.append, 3) as behind:
        for number in range(40):
            behind.submit(number)
    assert done == list(range(40))


def test_the_caller_waits_when_enough_calls_wait() -> None:
    gate, begun = threading.Event(), threading.Event()
    submitted: list[int] = []

    def call(number: int) -> None:
        begun.set()
        assert gate.wait(10)

    def submit_all(behind: Behind[int]) -> None:
        for number in range(6):
            behind.submit(number)
            submitted.append(number)

    with Behind(call, 2) as behind:
        caller = threading.Thread(target=submit_all, args=(behind,))
        caller.start()
        assert begun.wait(10)
        caller.join(0.3)
        assert caller.is_alive() and submitted == [0, 1]  # the third submit waits for the first call
        gate.set()
        caller.join(10)
    assert submitted == list(range(6))


def test_the_error_of_a_call_reaches_the_caller() -> None:
    def call(number: int) -> None:
        if number == 2:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Behind(call, 1) as behind:
        for number in range(100):
            behind.submit(number)
    with pytest.raises(OSError, match="disk full"), Behind(call, 5) as behind:
        behind.submit(2)  # noticed on leaving
    with pytest.raises(KeyError), Behind(call, 5):
        raise KeyError("the caller's own error is not replaced")


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


@pytest.fixture
def three_threads() -> Iterator[None]:
    """So many of OpenCV's own."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    yield
    cv2.setNumThreads(before)


@pytest.mark.usefixtures("three_threads")
def test_opencv_has_one_thread_inside_and_as_many_as_before_afterwards() -> None:
    with pytest.raises(ZeroDivisionError), one_opencv_thread():
        assert cv2.getNumThreads() == 1
        raise ZeroDivisionError
    assert cv2.getNumThreads() == 3


@pytest.mark.usefixtures("three_threads")
def test_the_last_of_overlapping_blocks_gives_opencv_its_threads_back() -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(one_opencv_thread())
    second.enter_context(one_opencv_thread())
    first.close()  # as blocks of two threads end, not one within the other
    assert cv2.getNumThreads() == 1
    third = ExitStack()
    third.enter_context(one_opencv_thread())
    second.close()
    assert cv2.getNumThreads() == 1
    third.close()
    assert cv2.getNumThreads() == 3

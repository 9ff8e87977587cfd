"""OpenCV's number of threads inside and after overlapping blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import cv2
import pytest

from utils.runtime.threads import one_opencv_thread


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    yield
    cv2.setNumThreads(before)


def test_one_thread_inside_and_as_many_as_before_afterwards() -> None:
    with pytest.raises(ZeroDivisionError), one_opencv_thread():
        assert cv2.getNumThreads() == 1
        raise ZeroDivisionError
    assert cv2.getNumThreads() == 3


def test_the_last_of_overlapping_blocks_puts_it_back() -> None:
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

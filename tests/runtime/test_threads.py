"""Work in threads: order, errors, bounds and ends, and OpenCV's own threads meanwhile.

How many there are, and how they wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import pytest

from tests.shared_data import REPOSITORY
from utils.runtime import threads as module
from utils.runtime.threads import (
    SPIN,
    WAITING,
    Behind,
    ahead,
    one_opencv_thread,
    read_ahead,
    share_processors,
    usable_processors,
)


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


QUOTAS = {  # files below the control groups' folder and /proc/self/cgroup, and the processors of 8 that they leave
    "none": ({}, "0::/\n", 8),
    "2, unlimited": ({"job/cpu.max": "max 100000\n"}, "0::/job\n", 8),
    "2, two": ({"job/cpu.max": "200000 100000\n"}, "0::/job\n", 2),
    "2, one and a half": ({"cpu.max": "150000 100000\n"}, "0::/\n", 2),
    "2, a tenth": ({"cpu.max": "10000 100000\n"}, "0::/\n", 1),
    "2, more than there are": ({"cpu.max": "1600000 100000\n"}, "0::/\n", 8),
    "2, above its own": ({"job/cpu.max": "300000 100000\n", "job/one/cpu.max": "max 100000\n"}, "0::/job/one\n", 3),
    "2, a path on the host": ({"cpu.max": "200000 100000\n"}, "0::/system.slice/docker-1\n", 2),
    "2, a path outside": ({"cpu.max": "200000 100000\n"}, "0::/../other\n", 2),
    "1, unlimited": ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/\n", 8),
    "1, two and a half": (
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "125000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "50000\n"},
        "4:memory:/a\n3:cpu,cpuacct:/a\n0::/\n",
        3,
    ),
    "1, another controller's": (
        {"cpuset/cpu.cfs_quota_us": "100000\n", "cpuset/cpu.cfs_period_us": "100000\n"},
        "3:cpuset:/\n",
        8,
    ),
    "an empty file": ({"cpu.max": ""}, "0::/\n", 8),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_processors_that_a_quota_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    files, own, expected = QUOTAS[case]
    for name, text in {**{f"groups/{name}": text for name, text in files.items()}, "own": own}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_processors(tmp_path / "groups", tmp_path / "own") == expected


def test_processors_where_there_are_no_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert usable_processors(tmp_path, tmp_path / "none") == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_processors(tmp_path, tmp_path / "none") == 3


SET_HERE = {"GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"}


@pytest.mark.parametrize(
    ("given", "processors", "expected"),
    [
        ({}, 8, {"GOMP_SPINCOUNT": str(SPIN)}),
        ({}, 3, {"GOMP_SPINCOUNT": str(SPIN), "OMP_NUM_THREADS": "3", "OPENCV_FOR_THREADS_NUM": "3"}),
        ({"GOMP_SPINCOUNT": "7"}, 8, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, 8, {}),
        ({"KMP_BLOCKTIME": "0"}, 8, {}),
        (
            {"OMP_NUM_THREADS": "6", "KMP_BLOCKTIME": "0"},
            3,
            {"OMP_NUM_THREADS": "6", "OPENCV_FOR_THREADS_NUM": "3"},
        ),
    ],
)
def test_what_is_set_for_torch(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], processors: int, expected: dict[str, str]
) -> None:
    monkeypatch.setattr(os, "environ", dict(given))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(module, "usable_processors", lambda: processors)
    share_processors()
    assert os.environ == given, "torch is loaded here"
    monkeypatch.delitem(sys.modules, "torch")
    share_processors()
    assert {name: value for name, value in os.environ.items() if name in SET_HERE} == expected


def test_the_runtime_of_torch_reads_what_is_set() -> None:
    """In a process of its own, which says what libgomp found in the environment when it was loaded."""
    code = (
        "import sys; from utils.runtime.console_log import run_verb; assert 'torch' not in sys.modules;"
        " run_verb(lambda: __import__('torch'))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("another OpenMP runtime than libgomp")
    assert f"GOMP_SPINCOUNT = '{SPIN}'" in said

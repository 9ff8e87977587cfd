"""The largest batch by the line through what was measured."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.exporting.small_model import small_model
from utils.training import batch_size
from utils.training.batch_size import TRIED, fitting_batch_size, largest_batch, measured_bytes
from utils.user_error import UserError

GPU = torch.device("cuda", 0)


def test_on_the_line_through_all_measurements() -> None:
    # 100 bytes and 50 for each image: 18 images take 1000.
    measured = {count: 100 + 50 * count for count in TRIED}
    assert largest_batch(measured, 1001) == 18
    assert largest_batch(measured, 999) == 17


@given(
    first=st.integers(0, 10**9),
    each=st.integers(10**4, 10**9),
    tried=st.integers(2, len(TRIED)),
    fitting=st.integers(0, 5000),
)
def test_any_line_is_found_and_its_batch_fits(first: int, each: int, tried: int, fitting: int) -> None:
    measured = {count: first + each * count for count in TRIED[:tried]}
    budget = first + each * fitting + each // 2
    assert largest_batch(measured, budget) == fitting


def test_with_one_measurement_memory_is_proportional() -> None:
    assert largest_batch({1: 300}, 1000) == 3
    assert largest_batch({4: 300}, 1000) == 13  # 75 bytes each


@pytest.mark.parametrize(
    ("measured", "budget", "expected"),
    [
        ({}, 1000, 0),
        ({1: 300}, 299, 0),
        ({1: 300, 2: 500}, 99, 0),  # less than what no image at all would take
        ({1: 300, 2: 300, 4: 300}, 10**6, 4),  # no growth says nothing about more
        ({1: 400, 2: 300}, 10**6, 2),
    ],
)
def test_where_no_line_helps(measured: dict[int, int], budget: int, expected: int) -> None:
    assert largest_batch(measured, budget) == expected


def test_it_measures_up_to_what_does_not_fit() -> None:
    asked: list[int] = []

    def step_bytes(count: int) -> int:
        asked.append(count)
        if count > 4:
            raise torch.OutOfMemoryError
        return 10 * count

    assert measured_bytes(step_bytes) == {1: 10, 2: 20, 4: 40}
    assert asked == [1, 2, 4, 8]


@pytest.mark.parametrize(("multiple_of", "expected"), [(1, 14), (4, 12), (14, 14)])
def test_four_fifths_of_the_free_memory_in_multiples(
    monkeypatch: pytest.MonkeyPatch, multiple_of: int, expected: int
) -> None:
    # 808 of 1010 bytes; 14 images take 100 + 14 x 50 = 800.
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1010, 5000))
    monkeypatch.setattr(batch_size, "placed", lambda model, device: model)
    monkeypatch.setattr(batch_size, "_step_bytes", lambda model, imgsz, count, precision: 100 + 50 * count)
    model = small_model()
    assert fitting_batch_size(model, 640, GPU, torch.float16, multiple_of=multiple_of) == expected
    with pytest.raises(UserError, match=r"--batch-size -1: .* too little at --imgsz 640"):
        fitting_batch_size(model, 640, GPU, torch.float16, multiple_of=15)


def test_the_cpu_takes_sixteen() -> None:
    assert fitting_batch_size(small_model(), 640, torch.device("cpu"), torch.float32) == 16

"""The batch that a GPU's memory holds, from measurements made by hand: no GPU is asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from models.yolo import DetectionModel, find_architecture, read_architecture
from utils.config.train_flags import TrainConfig
from utils.runtime.process_ranks import ProcessRanks
from utils.training import batch_size
from utils.training.batch_size import TRIED, fitting_batch_size, kept_bytes, largest_batch, measured_bytes
from utils.training.optimizer import build_optimizer
from utils.user_error import UserError
from utils.verbs import train as train_verb

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
GIB = 2**30
StepBytes = Callable[[nn.Module, int, int, torch.dtype], int]


def test_the_line_through_the_measurements_meets_the_budget() -> None:
    measured = {1: 110, 2: 120, 4: 140, 8: 180}  # 100 bytes for the model, 10 for each image
    assert largest_batch(measured, 301) == 20
    assert largest_batch(measured, 309) == 20  # a batch has whole images
    assert largest_batch(measured, 311) == 21
    assert largest_batch(measured, 109) == 0  # not even one image beside the model
    assert largest_batch(measured, 50) == 0


def test_the_line_is_that_of_least_squares() -> None:
    # Through (1, 12), (2, 18), (3, 30): slope 9, 20 at the mean of 2 images, so 2 for no image.
    assert largest_batch({1: 12, 2: 18, 3: 30}, 2 + 3 * 9 + 1) == 3
    assert largest_batch({1: 12, 2: 18, 3: 30}, 2 + 11 * 9 + 1) == 11
    assert largest_batch({1: 12, 2: 18, 3: 30}, 2 + 11 * 9 - 1) == 10


@given(
    first=st.integers(0, 10**9),
    each=st.integers(10**4, 10**9),
    tried=st.integers(2, len(TRIED)),
    images=st.integers(0, 5000),
    rest=st.floats(0, 1, exclude_max=True),
)
@example(first=10**9, each=10**9 - 1, tried=5, images=5000, rest=0.0)  # a budget that is met exactly
def test_any_line_is_found_and_its_batch_fits(first: int, each: int, tried: int, images: int, rest: float) -> None:
    measured = {count: first + each * count for count in TRIED[:tried]}
    budget = first + each * images + int(rest * each)
    assert largest_batch(measured, budget) == images


def test_a_single_measurement_is_taken_as_proportional() -> None:
    assert largest_batch({1: 40}, 100) == 2
    assert largest_batch({4: 40}, 100) == 10


def test_without_a_measurement_nothing_fits() -> None:
    assert largest_batch({}, 1000) == 0


def test_memory_that_does_not_grow_allows_what_was_tried() -> None:
    assert largest_batch({1: 50, 2: 50, 4: 50}, 1000) == 4
    assert largest_batch({1: 60, 2: 50}, 1000) == 2


def test_measuring_ends_with_the_first_batch_that_does_not_fit() -> None:
    asked: list[int] = []

    def step(count: int) -> int:
        asked.append(count)
        if count > 4:
            raise torch.OutOfMemoryError
        return 7 * count

    assert measured_bytes(step) == {1: 7, 2: 14, 4: 28}
    assert asked == [1, 2, 4, 8]


@pytest.fixture
def gpu_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, StepBytes], None]:
    """Makes a GPU of so much free memory, in which a step takes what the function says."""

    def make(free: int, step_bytes: StepBytes) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
        monkeypatch.setattr(batch_size, "placed", lambda model, device: model)
        monkeypatch.setattr(batch_size, "_step_bytes", step_bytes)

    return make


def fitting(imgsz: int, multiple_of: int = 1) -> int:
    model = nn.Identity()
    return fitting_batch_size(model, imgsz, GPU, torch.float16, multiple_of=multiple_of)  # type: ignore[arg-type]


def test_a_batch_fills_most_of_the_free_memory(gpu_of: Callable[[int, StepBytes], None]) -> None:
    # 1 GiB for the model and an eighth for each image: (0.8 * 10.1 - 1) * 8 = 56.6.
    gpu_of(101 * GIB // 10, lambda model, imgsz, count, precision: GIB + count * GIB // 8)
    assert fitting(640) == 56
    assert fitting(640, multiple_of=10) == 50


def test_measured_at_the_runs_size_and_arithmetic(gpu_of: Callable[[int, StepBytes], None]) -> None:
    def quadratic(model: nn.Module, imgsz: int, count: int, precision: torch.dtype) -> int:
        assert precision == torch.float16
        return count * imgsz**2 * 1024

    gpu_of(10 * GIB, quadratic)
    assert fitting(640) == 20  # 8 GiB / (640 * 640 KiB) = 20.48
    assert fitting(320) == 81  # and four times that


def test_what_a_run_keeps_beside_the_step_is_left_free(gpu_of: Callable[[int, StepBytes], None]) -> None:
    gpu_of(10 * GIB, lambda model, imgsz, count, precision: count * GIB)
    model = nn.Identity()
    sizes = [fitting_batch_size(model, 640, GPU, torch.float16, kept=kept * GIB) for kept in (0, 3)]  # type: ignore[arg-type]
    assert sizes == [8, 5]


@pytest.mark.parametrize(("optimizer", "states"), [("SGD", 1), ("Adam", 2), ("AdamW", 2), ("RMSProp", 2)])
def test_kept_are_the_weights_their_average_and_what_the_optimizer_adds(optimizer: str, states: int) -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    model[0].weight.requires_grad_(False)
    trained, weights = 4 * (5 + 5 + 5), 4 * (15 + 5 + 5 + 5 + 5 + 5) + 8  # the count of batches is an int64
    assert kept_bytes(model, optimizer) == 2 * weights + states * trained  # type: ignore[arg-type]
    built = build_optimizer(model, optimizer, lr=0.1, momentum=0.9, decay=0.0)
    model(torch.zeros(4, 3)).sum().backward()
    built.step()
    made = [value for state in built.state.values() for value in state.values() if torch.is_tensor(value)]
    assert sum(value.nbytes for value in made if value.dim()) == states * trained


@pytest.mark.parametrize(("multi_scale", "longest"), [(False, 96), (True, 128)])
def test_train_measures_the_largest_frame_it_will_make(
    monkeypatch: pytest.MonkeyPatch, multi_scale: bool, longest: int
) -> None:
    asked: list[tuple[int, int, int]] = []

    def fitting(model: nn.Module, imgsz: int, device: torch.device, precision: torch.dtype, **more: int) -> int:
        asked.append((imgsz, more["kept"], more["multiple_of"]))
        return 7

    monkeypatch.setattr(train_verb, "fitting_batch_size", fitting)
    model = DetectionModel(read_architecture(find_architecture("yolov5n.yaml")))
    config = TrainConfig(imgsz=96, batch_size=-1, multi_scale=multi_scale, optimizer="AdamW")
    fitted = train_verb.fitting_config(config, model, ProcessRanks(CPU))
    assert (fitted.imgsz, fitted.batch_size) == (96, 7)
    assert asked == [(longest, kept_bytes(model, "AdamW"), 1)]


def test_less_than_the_multiple_is_refused(gpu_of: Callable[[int, StepBytes], None]) -> None:
    gpu_of(GIB, lambda model, imgsz, count, precision: count * GIB // 4)
    assert fitting(1280) == 3
    with pytest.raises(UserError, match=r"^--batch-size -1: 1\.0 GiB of free memory are too little at --imgsz 1280$"):
        fitting(1280, multiple_of=4)


def test_the_cpu_takes_16_without_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(batch_size, "measured_bytes")
    assert fitting_batch_size(nn.Identity(), 640, CPU, torch.float32) == 16  # type: ignore[arg-type]

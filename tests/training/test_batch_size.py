"""The batch that a GPU's memory holds, from measurements made by hand: no GPU is asked."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from models.yolo import DetectionModel, find_architecture, read_architecture
from utils.config.hyperparameters import Hyperparameters
from utils.config.train_flags import TrainConfig
from utils.geometry.records import Batch
from utils.runtime.process_ranks import ProcessRanks
from utils.training.batch_size import (
    OBJECTS,
    TRIED,
    MeasuredStep,
    black_images,
    fitting_batch_size,
    kept_bytes,
    largest_batch,
    measured_bytes,
)
from utils.training.optimizer import build_optimizer
from utils.user_error import UserError
from utils.verbs import train as train_verb

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
GIB = 2**30


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
def gpu_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes a GPU of so much free memory."""
    return lambda free: monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))


def test_a_batch_fills_most_of_the_free_memory(gpu_of: Callable[[int], None]) -> None:
    def step_bytes(count: int) -> int:  # 1 GiB for the model and an eighth for each image
        return GIB + count * GIB // 8

    gpu_of(101 * GIB // 10)  # (0.8 * 10.1 - 1) * 8 = 56.6
    assert fitting_batch_size(step_bytes, 640, GPU) == 56
    assert fitting_batch_size(step_bytes, 640, GPU, multiple_of=10) == 50


def test_what_a_run_keeps_beside_the_step_is_left_free(gpu_of: Callable[[int], None]) -> None:
    gpu_of(10 * GIB)
    assert [fitting_batch_size(lambda count: count * GIB, 640, GPU, kept=kept * GIB) for kept in (0, 3)] == [8, 5]


def test_images_have_objects_side_by_side() -> None:
    batch = black_images(3, 64)
    assert batch.images.shape == (3, 3, 64, 64) and len(batch.boxes) == 3 * OBJECTS == 96
    assert batch.boxes[[0, 7, 8, 32]].tolist() == [[0, 0, 8, 8], [56, 0, 64, 8], [0, 8, 8, 16], [0, 0, 8, 8]]
    assert batch.image_index.bincount().tolist() == [OBJECTS] * 3


@pytest.mark.parametrize("cfg", ["yolov5n.yaml", "yolov5n-u.yaml"])
def test_measured_is_a_whole_step_that_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, cfg: str) -> None:
    model = DetectionModel(read_architecture(find_architecture(cfg)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss = train_verb.loss_of(model, Hyperparameters(), 64)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5)
    asked: list[tuple[int, float]] = []
    copies: list[weakref.ref[torch.Tensor]] = []

    def copied(batch: Batch, device: torch.device) -> Batch:
        copy = replace(batch, images=batch.images.clone())
        copies.append(weakref.ref(copy.images))
        return copy

    monkeypatch.setattr(Batch, "copied", copied)

    def peak(device: torch.device) -> int:
        assert [copy() is not None for copy in copies] == [True, True], "this batch and the next are held meanwhile"
        gradients = [value.grad for value in model.parameters() if value.grad is not None]
        asked.append((len(gradients), float(sum(each.abs().sum() for each in gradients))))
        return 12

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peak)
    assert MeasuredStep(model, loss, 64, CPU, torch.float32).bytes(2) == 12 - 5
    ((count, gradient),) = asked
    assert count == len(list(model.parameters())) and gradient > 0
    assert all(value.grad is None for value in model.parameters()) and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


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

    def fitting(step_bytes: Callable[[int], int], imgsz: int, device: torch.device, **more: int) -> int:
        asked.append((imgsz, more["kept"], more["multiple_of"]))
        return 7

    monkeypatch.setattr(train_verb, "fitting_batch_size", fitting)
    model = DetectionModel(read_architecture(find_architecture("yolov5n.yaml")))
    config = TrainConfig(imgsz=96, batch_size=-1, multi_scale=multi_scale, optimizer="AdamW")
    fitted = train_verb.fitting_config(config, Hyperparameters(), model, ProcessRanks(CPU))
    assert (fitted.imgsz, fitted.batch_size) == (96, 7)
    assert asked == [(longest, kept_bytes(model, "AdamW"), 1)]


def test_less_than_the_multiple_is_refused(gpu_of: Callable[[int], None]) -> None:
    def step_bytes(count: int) -> int:
        return count * GIB // 4

    gpu_of(GIB)
    assert fitting_batch_size(step_bytes, 1280, GPU) == 3
    with pytest.raises(UserError, match=r"^--batch-size -1: 1\.0 GiB of free memory are too little at --imgsz 1280$"):
        fitting_batch_size(step_bytes, 1280, GPU, multiple_of=4)


def test_the_cpu_takes_16_without_measuring() -> None:
    assert fitting_batch_size(lambda count: 1 // 0, 640, CPU) == 16

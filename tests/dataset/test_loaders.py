"""Order, batches and workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.dataset.images import small_dataset
from utils.config.hyperparameters import Hyperparameters
from utils.dataset.batch_loader import LoaderSettings
from utils.dataset.detection_dataset import DetectionDataset
from utils.dataset.evaluation_loader import collate, evaluation_batches, evaluation_loader, rectangular_frames
from utils.dataset.training_batches import TrainingSampler
from utils.dataset.training_loader import DetectionTrainingLoader, TrainingShape, training_loader
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Batch, Labels, Sample
from utils.user_error import UserError


def _equal(first: Batch, second: Batch) -> bool:
    tensors = ("images", "boxes", "classes", "image_index")
    return first.indices == second.indices and all(
        torch.equal(getattr(first, name), getattr(second, name)) for name in tensors
    )


def test_an_epoch_is_a_permutation_and_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[tuple[int, ...]]:
        sampler = TrainingSampler(10, 4, seed)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert len(sampler) == 3
        return [tuple(key) for batch in batches for key in batch]

    first = order(0, 0)
    assert sorted(key[2] for key in first) == list(range(10))
    assert [key[1] for key in first] == list(range(10))
    assert first == order(0, 0)
    assert [key[2] for key in first] != [key[2] for key in order(0, 1)]
    assert [key[2] for key in first] != [key[2] for key in order(1, 0)]
    assert {key[0] for key in order(0, 7)} == {7}


def test_ranks_share_one_global_order() -> None:
    whole = list(TrainingSampler(8, 4, 3))
    halves = [list(TrainingSampler(8, 2, 3, rank=rank, world=2)) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert sorted(halves[0][step] + halves[1][step]) == sorted(batch)


def test_ranks_have_equally_many_when_the_number_does_not_divide() -> None:
    parts = [[key for batch in TrainingSampler(7, 2, 3, rank=rank, world=3) for key in batch] for rank in range(3)]
    assert [len(part) for part in parts] == [3, 3, 3]
    keys = [key for part in parts for key in part]
    assert sorted(key.position for key in keys) == list(range(9))
    assert {key.image for key in keys} == set(range(7))


def test_rectangular_frames_by_hand() -> None:
    sizes = np.array([[480, 640], [640, 480], [300, 600], [600, 600]], dtype=np.int32)
    batches = evaluation_batches(sizes, 1)
    assert [batch.tolist() for batch in batches] == [[2], [0], [3], [1]]  # h / w: 0.5, 0.75, 1, 1.33
    # 0.75 * 640 / 32 + 0.5 = 15.5 -> 16 strides; 1 * 640 / 32 + 0.5 = 20.5 -> 21.
    frames = rectangular_frames(sizes, batches, 640, 32)
    assert frames.tolist() == [[512, 672], [672, 512], [352, 672], [672, 672]]
    # Pairs: 0.5 with 0.75 takes the taller; 1 with 1.33 has to be square.
    frames = rectangular_frames(sizes, evaluation_batches(sizes, 2), 640, 32)
    assert frames.tolist() == [[512, 672], [672, 672], [512, 672], [672, 672]]


def test_collate_counts_objects_and_keeps_channels_last() -> None:
    def sample(index: int, count: int) -> Sample:
        image = np.full((4, 6, 3), index, np.uint8)
        labels = Labels(
            np.ones((count, 4), np.float32) * index, np.full(count, index), (None,) * count, FrameSize(4, 6)
        )
        return Sample(image, labels, None, Path(f"{index}.png"), index)

    batch = collate([sample(5, 2), sample(6, 0), sample(7, 1)])
    assert batch.images.shape == (3, 3, 4, 6)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.image_index.tolist() == [0, 0, 2]
    assert batch.classes.tolist() == [5, 5, 7]
    assert batch.boxes.dtype == torch.float32
    assert batch.indices == (5, 6, 7)
    assert batch.images[:, 0, 0, 0].tolist() == [5, 6, 7]


def test_no_more_workers_than_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    dataset = small_dataset(tmp_path, count=2)
    for asked, given in ((8, 3), (2, 2), (0, 0)):
        loader = evaluation_loader(dataset, 64, LoaderSettings(2, workers=asked))
        assert loader.workers == given


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path, count=7, outlines=True)
    hyp = Hyperparameters(mixup=0.5, copy_paste=0.5, degrees=10, mosaic=0.8)
    alone = training_loader(dataset, 64, hyp, 5, LoaderSettings(3))
    for workers in (1, 2):
        loader = training_loader(dataset, 64, hyp, 5, LoaderSettings(3, workers=workers))
        for epoch in (0, 1, 1):
            alone.set_epoch(epoch)
            loader.set_epoch(epoch)
            pairs = list(zip(alone, loader, strict=True))
            assert len(pairs) == 3
            assert all(_equal(first, second) for first, second in pairs)
        evaluated = evaluation_loader(dataset, 64, LoaderSettings(3, workers=workers))
        pairs = list(zip(evaluation_loader(dataset, 64, LoaderSettings(3)), evaluated, strict=True))
        assert all(_equal(first, second) for first, second in pairs)
        assert all(first.letterboxes == second.letterboxes for first, second in pairs)


def test_epochs_differ_and_repeat(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    loader = training_loader(dataset, 64, Hyperparameters(), 0, LoaderSettings(6))
    images = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        images.append(next(iter(loader)).images)
    assert not torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


CLOSING = Hyperparameters(mixup=0.5, copy_paste=0.5, paste_small=0.5, degrees=10, mosaic=0.8)


def _epochs(dataset: DetectionDataset, hyp: Hyperparameters, workers: int, shape: TrainingShape) -> list[list[Batch]]:
    """The batches of three epochs of one loader."""
    loader = training_loader(dataset, 64, hyp, 5, LoaderSettings(3, workers), shape)
    made = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        made.append(list(loader))
    return made


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])  # that live through all epochs
@pytest.mark.parametrize("shape", [TrainingShape(), TrainingShape(quad=True), TrainingShape(rect=True)])
def test_from_an_epoch_on_mosaics_are_closed_and_no_epoch_before_it_changes(
    tmp_path: Path, shape: TrainingShape, workers: int
) -> None:
    dataset = small_dataset(tmp_path, count=7, outlines=True)
    with_mosaics = _epochs(dataset, CLOSING, 0, shape)
    without = _epochs(dataset, replace(CLOSING, mosaic=0.0, mixup=0.0, copy_paste=0.0, paste_small=0.0), 0, shape)
    made = _epochs(dataset, CLOSING, workers, replace(shape, closed_from=1))
    for found, expected in zip(made, (with_mosaics[0], *without[1:]), strict=True):
        assert all(_equal(first, second) for first, second in zip(found, expected, strict=True))
    assert not _equal(made[1][0], with_mosaics[1][0])


def test_evaluation_leads_back_to_the_files_pixels(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    loader = evaluation_loader(dataset, 64, LoaderSettings(4))
    assert len(loader) == 2
    seen: list[int] = []
    for batch in loader:
        assert max(batch.size) % 32 == 0
        for place, index in enumerate(batch.indices):
            letterbox = batch.letterboxes[place]
            assert letterbox is not None
            back = letterbox.to_source(batch.boxes[batch.image_index == place])
            np.testing.assert_allclose(back.numpy(), dataset.source_labels(index).boxes, atol=1e-3)
            assert batch.paths[place] == dataset.index.paths[index]
        seen += batch.indices
    assert sorted(seen) == list(range(6))
    aspects = [size.height / size.width for size in map(dataset.source_size, seen)]
    assert all(a <= b for a, b in pairwise(aspects))


def test_a_fixed_frame_and_ranks(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    parts = [
        list(evaluation_loader(dataset, 64, LoaderSettings(1, rank=rank, world=2), frame=FrameSize(64, 96)))
        for rank in (0, 1)
    ]
    assert all(batch.size == (64, 96) for part in parts for batch in part)
    assert sorted(batch.indices[0] for part in parts for batch in part) == list(range(6))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_gone_is_one_line(tmp_path: Path, workers: int) -> None:
    loader = evaluation_loader(_set_with_an_image_gone(tmp_path), 64, LoaderSettings(2, workers=workers))
    with pytest.raises(UserError, match=rf"^{tmp_path / 'images' / '3.png'}: cannot be read: No such file"):
        list(loader)


@pytest.mark.slow
def test_a_worker_process_that_misses_an_image_says_so_in_one_line(tmp_path: Path) -> None:
    dataset = _set_with_an_image_gone(tmp_path)
    message = _refusal(training_loader(dataset, 64, Hyperparameters(mosaic=0), 0, LoaderSettings(2, workers=1)))
    assert message.startswith(f"{tmp_path / 'images' / '3.png'}: cannot be read: No such file")
    assert "\n" not in message


def _set_with_an_image_gone(folder: Path) -> DetectionDataset:
    dataset = small_dataset(folder)
    (folder / "images" / "3.png").unlink()
    return dataset


def _refusal(loader: DetectionTrainingLoader) -> str:
    try:  # pytest.raises would keep the loader, and so its workers, in the traceback that it keeps
        list(loader)
    except UserError as error:
        return str(error)
    return ""


def test_an_image_that_changed_size_is_named(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    (tmp_path / "images" / "0.png").write_bytes((tmp_path / "images" / "1.png").read_bytes())
    with pytest.raises(UserError, match=r"0\.png: its size is no longer"):
        dataset.source_image(0)


@pytest.mark.slow
def test_a_killed_worker_is_told_where_a_batch_is_awaited_and_nowhere_else(tmp_path: Path) -> None:
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    before = set(children.read_text(encoding="utf-8").split())  # of other tests, such as multiprocessing's tracker
    dataset = small_dataset(tmp_path, 4)
    batches = iter(training_loader(dataset, 64, Hyperparameters(), 0, LoaderSettings(1, workers=1)))
    next(batches)
    (worker,) = set(children.read_text(encoding="utf-8").split()) - before
    os.kill(int(worker), signal.SIGKILL)
    for _ in range(50):  # in the middle of other work, such as the write of a checkpoint
        time.sleep(0.01)
    with pytest.raises(RuntimeError, match=rf"DataLoader worker \(pid\(s\) {worker}\)"):
        list(batches)


def test_a_batch_that_nobody_waits_for_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small_dataset(tmp_path, 6)
    loader = evaluation_loader(dataset, 64, LoaderSettings(3, workers=1))
    read, may_go_on = [], threading.Event()
    source_image = dataset.source_image

    def slow(index: int, scale: float = 1.0) -> np.ndarray:
        read.append(index)
        if len(read) == 5:  # the second image of the second batch
            may_go_on.wait(timeout=60)
        return source_image(index, scale)

    monkeypatch.setattr(dataset, "source_image", slow)
    batches = iter(loader)
    next(batches)
    threading.Timer(0.3, may_go_on.set).start()
    batches.close()  # type: ignore[attr-defined]  # a generator, as an interruption finds it
    assert len(read) <= 5

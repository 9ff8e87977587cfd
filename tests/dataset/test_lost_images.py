"""Training images that are deleted or spoilt while a run goes on."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.small_classes import write_small_classes
from tests.small_dataset import NAMES, write_small_dataset
from utils.config.classification_recipe import ClassificationRecipe
from utils.config.hyperparameters import Hyperparameters
from utils.dataset.batch_loader import LoaderSettings
from utils.dataset.classification_dataset import open_part
from utils.dataset.classification_loaders import ClassificationTrainingLoader, classification_training_loader
from utils.dataset.detection_dataset import DetectionDataset, open_dataset
from utils.dataset.training_batches import SampleKey
from utils.dataset.training_loader import DetectionTrainingLoader, TrainingShape, training_loader
from utils.user_error import UserError

AREA = "Faults in training"
TENTH = "error: “PATH: ...; 2 of 10 training images are lost, more than a tenth”"
IMAGES = 10


def detector(folder: Path, workers: int = 0, *, quad: bool = False, mosaic: float = 0.5) -> DetectionTrainingLoader:
    write_small_dataset(folder, train=IMAGES, val=1)
    split = open_dataset([folder / "images" / "train"], NAMES)
    shape = TrainingShape(quad=quad)
    return training_loader(split, 64, Hyperparameters(mosaic=mosaic, mixup=0.5), 0, LoaderSettings(4, workers), shape)


def classifier(folder: Path) -> ClassificationTrainingLoader:
    write_small_classes(folder, train=4, evaluated=1)
    return classification_training_loader(
        open_part(str(folder), "train"), 32, ClassificationRecipe(), 0, LoaderSettings(4)
    )


def lose(loader: DetectionTrainingLoader | ClassificationTrainingLoader, *places: int) -> list[Path]:
    """The first is removed, the others are cut short."""
    dataset = loader.dataset
    paths = dataset.index.paths if isinstance(dataset, DetectionDataset) else dataset.images
    files = [Path(paths[place]) for place in places]
    files[0].unlink()
    for file in files[1:]:
        file.write_bytes(file.read_bytes()[:50])
    return files


@pytest.mark.case(AREA, "a training image deleted in a run", "named once with their number; others stand in")
@pytest.mark.parametrize("quad", [False, True])
def test_a_lost_image_is_named_and_another_stands_in(
    quad: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loader = detector(tmp_path, quad=quad)
    (gone,) = lose(loader, 9)
    for epoch in range(2):
        loader.set_epoch(epoch)
        paths = [path for batch in loader for path in batch.paths]
        assert gone not in paths and len(paths) == (4 if quad else IMAGES)
    (line,) = caplog.messages
    assert line == (
        f"{gone}: cannot be read any more (1 of 10 training images so far); others stand in, up to a tenth of all"
    )


def test_a_sample_shows_the_next_image_with_its_own_labels(tmp_path: Path) -> None:
    samples = detector(tmp_path, mosaic=0)._plan.samples
    whole = samples[SampleKey(0, 1, 0)]
    samples.remaining._lost.add(IMAGES - 1)
    stands_in = samples[SampleKey(0, 1, IMAGES - 1)]
    assert stands_in.path == whole.path and stands_in.index == whole.index == 0
    np.testing.assert_array_equal(whole.labels.boxes, stands_in.labels.boxes)
    np.testing.assert_array_equal(whole.image, stands_in.image)


def test_the_number_of_workers_still_changes_nothing(tmp_path: Path) -> None:
    loaders = [detector(tmp_path / str(workers), workers) for workers in (0, 2)]
    epochs = []
    for loader in loaders:
        lose(loader, 4)
        loader.set_epoch(0)
        epochs.append(list(loader))
    for one, other in zip(*epochs, strict=True):
        assert one.indices == other.indices
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.boxes, other.boxes)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.case(AREA, "more than a tenth of the training images deleted in a run", TENTH)
def test_more_than_a_tenth(workers: int, tmp_path: Path) -> None:
    loader = detector(tmp_path, workers)
    lost = lose(loader, 3, 7)
    loader.set_epoch(0)
    with pytest.raises(UserError, match="2 of 10 training images are lost, more than a tenth") as caught:
        list(loader)
    assert str(caught.value).startswith((f"{lost[0]}: cannot be read: No such file", f"{lost[1]}: not an image"))


@pytest.mark.case(AREA, "a classifier's training image deleted in a run", "the same")
def test_a_classifier(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader = classifier(tmp_path)
    loader.set_epoch(0)
    before = [batch.indices for batch in loader]
    (gone,) = lose(loader, 11)
    loader.set_epoch(0)
    after = [
        (index, kind) for batch in loader for index, kind in zip(batch.indices, batch.classes.tolist(), strict=True)
    ]
    assert [0 if index == 11 else index for batch in before for index in batch] == [index for index, _ in after]
    assert all(kind == index // 4 for index, kind in after)  # the label of the image that is shown
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"{gone}: cannot be read any more (1 of 12 training images so far); others stand in, up to a tenth of all"
    ]
    lose(loader, 2)
    loader.set_epoch(1)
    with pytest.raises(UserError, match="2 of 12 training images are lost, more than a tenth"):
        list(loader)

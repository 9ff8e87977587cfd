"""Classification batches: images changed at random to learn from, middle squares to evaluate on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from utils.config.classification_recipe import ClassificationRecipe
from utils.dataset.batch_loader import BatchLoader, BatchPlan, LoaderSettings
from utils.dataset.classification_dataset import ClassificationDataset
from utils.dataset.image_changes import draw_jitter, jitter_color
from utils.dataset.training_batches import RemainingImages, SampleKey, TrainingLoader, TrainingSampler
from utils.geometry.letterbox import middle_square, resized_to_square
from utils.geometry.records import ClassificationBatch

ClassificationLoader = BatchLoader[ClassificationDataset, ClassificationBatch]
ClassificationTrainingLoader = TrainingLoader[ClassificationDataset, ClassificationBatch]
CROP_ASPECT = (3 / 4, 4 / 3)  # width / height


def classification_training_loader(
    dataset: ClassificationDataset, side: int, recipe: ClassificationRecipe, seed: int, settings: LoaderSettings
) -> ClassificationTrainingLoader:
    """Augmented batches; call ``set_epoch`` before each epoch."""
    sampler = TrainingSampler(len(dataset), settings.batch_size, seed, rank=settings.rank, world=settings.world)
    samples = AugmentedImages(dataset, side, recipe, seed)
    plan = BatchPlan(samples, sampler, collate)
    return ClassificationTrainingLoader(dataset, plan, settings, sampler, samples.remaining)


def classification_evaluation_loader(
    dataset: ClassificationDataset, side: int, settings: LoaderSettings
) -> ClassificationLoader:
    """Middle squares, every image once over all ranks."""
    size = settings.batch_size
    batches = [list(range(start, min(start + size, len(dataset)))) for start in range(0, len(dataset), size)]
    samples = CentredImages(dataset, side)
    own = batches[settings.rank :: settings.world]
    return ClassificationLoader(dataset, BatchPlan(samples, own, collate), settings)


@dataclass(frozen=True, slots=True)
class ClassifiedImage:
    """An image as the network's batch takes it."""

    image: np.ndarray  # (S, S, 3) uint8 RGB
    label: int
    index: int  # row of the data set


class AugmentedImages(Dataset):
    """Training samples; item (epoch, position, index) is the same in every process."""

    def __init__(self, dataset: ClassificationDataset, side: int, recipe: ClassificationRecipe, seed: int) -> None:
        self.dataset, self.side, self.recipe, self.seed = dataset, side, recipe, seed
        self.remaining = RemainingImages(dataset.images)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey) -> ClassifiedImage:
        epoch, position, index = key
        rng = np.random.default_rng((self.seed, epoch, position))
        whole = self.remaining.sample(lambda: self.remaining.read(index, self.dataset.image))
        index = self.remaining.place(index)
        return ClassifiedImage(augmented(whole, self.side, self.recipe, rng), int(self.dataset.classes[index]), index)


class CentredImages(Dataset):
    """Evaluation samples: the middle square of image ``index``."""

    def __init__(self, dataset: ClassificationDataset, side: int) -> None:
        self.dataset, self.side = dataset, side

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> ClassifiedImage:
        image = middle_square(self.dataset.image(index), self.side)
        return ClassifiedImage(image, int(self.dataset.classes[index]), index)


def collate(samples: Sequence[ClassifiedImage]) -> ClassificationBatch:
    """A batch of samples of one size, channels last in memory."""
    return ClassificationBatch(
        images=torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2),
        classes=torch.tensor([sample.label for sample in samples], dtype=torch.int64),
        indices=tuple(sample.index for sample in samples),
    )


def augmented(image: np.ndarray, side: int, recipe: ClassificationRecipe, rng: np.random.Generator) -> np.ndarray:
    """A square of ``side`` pixels out of ``image`` (H, W, 3) uint8 RGB, changed as the recipe says.

    The generator is drawn from equally often whatever the image, so that samples do not depend on each other.
    """
    area, aspect, across, down = rng.random(4)
    if recipe.crop_area < 1:
        image = resized_to_square(
            random_crop(image, recipe.crop_area + (1 - recipe.crop_area) * area, aspect, (across, down)), side
        )
    else:
        image = middle_square(image, side)
    shifts = np.rint(rng.uniform(-1, 1, 2) * recipe.shift * side).astype(int)
    image = shifted(image, int(shifts[0]), int(shifts[1]))
    flips = rng.random(2) < (recipe.flipud, recipe.fliplr)
    image = image[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
    gains = draw_jitter(rng, recipe.hsv_h, recipe.hsv_s, recipe.hsv_v)
    return np.ascontiguousarray(jitter_color(np.ascontiguousarray(image), gains))


def random_crop(image: np.ndarray, area: float, aspect: float, place: tuple[float, float]) -> np.ndarray:
    """A rectangle of about ``area`` of the image, 3:4 to 4:3 as ``aspect`` goes from 0 to 1, at ``place`` 0-1."""
    height, width = image.shape[:2]
    ratio = CROP_ASPECT[0] * (CROP_ASPECT[1] / CROP_ASPECT[0]) ** aspect
    wide = min(max(round((height * width * area * ratio) ** 0.5), 1), width)
    high = min(max(round((height * width * area / ratio) ** 0.5), 1), height)
    left, top = round(place[0] * (width - wide)), round(place[1] * (height - high))
    return image[top : top + high, left : left + wide]


def shifted(image: np.ndarray, right: int, down: int) -> np.ndarray:
    """The image moved by whole pixels, black where nothing was."""
    if not (right or down):
        return image
    out = np.zeros_like(image)
    height, width = image.shape[:2]
    to_y, to_x = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
    from_y, from_x = slice(max(-down, 0), height + min(-down, 0)), slice(max(-right, 0), width + min(-right, 0))
    out[to_y, to_x] = image[from_y, from_x]
    return out

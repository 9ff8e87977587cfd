"""From a part of a classification data set to batches."""

from __future__ import annotations

from utils.config.classification_recipe import ClassificationRecipe
from utils.dataset.batch_loader import BatchLoader, BatchPlan, LoaderSettings, TrainingLoader
from utils.dataset.classification_dataset import ClassificationDataset
from utils.dataset.classification_samples import AugmentedImages, CentredImages, collate
from utils.dataset.samplers import TrainingSampler
from utils.geometry.records import ClassificationBatch

ClassificationLoader = BatchLoader[ClassificationDataset, ClassificationBatch]
ClassificationTrainingLoader = TrainingLoader[ClassificationDataset, ClassificationBatch]


def classification_training_loader(
    dataset: ClassificationDataset, side: int, recipe: ClassificationRecipe, seed: int, settings: LoaderSettings
) -> ClassificationTrainingLoader:
    """Augmented batches; call ``set_epoch`` before each epoch."""
    sampler = TrainingSampler(len(dataset), settings.batch_size, seed, rank=settings.rank, world=settings.world)
    samples = AugmentedImages(dataset, side, recipe, seed)
    return ClassificationTrainingLoader(dataset, BatchPlan(samples, sampler, collate), settings, sampler)


def classification_evaluation_loader(
    dataset: ClassificationDataset, side: int, settings: LoaderSettings
) -> ClassificationLoader:
    """Middle squares, every image once over all ranks."""
    size = settings.batch_size
    batches = [list(range(start, min(start + size, len(dataset)))) for start in range(0, len(dataset), size)]
    samples = CentredImages(dataset, side)
    own = batches[settings.rank :: settings.world]
    return ClassificationLoader(dataset, BatchPlan(samples, own, collate), settings)

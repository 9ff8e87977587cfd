"""The one evaluation of a detector, for training and validation alike."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from utils.dataset.coco_annotations import CocoTruth
from utils.dataset.label_files import plain_name
from utils.dataset.label_index import LabelIndex
from utils.evaluation.coco_average_precision import AreaRange
from utils.evaluation.evaluation_report import (
    EvaluatedImage,
    EvaluationReport,
    RunFigures,
    SpeedFigures,
    report_on,
)
from utils.evaluation.yolov5_rounding import halved_padding
from utils.geometry.records import Batch, Detections, HeadMaps, Labels, Predictions
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.runtime.console_log import with_progress
from utils.runtime.device import autocast, sent
from utils.runtime.process_ranks import ALONE, ProcessRanks
from utils.runtime.streams import StageClock, copied_ahead
from utils.runtime.threads import read_ahead
from utils.user_error import UserError

__all__ = ["EvaluationObserver", "EvaluationReport", "EvaluationSettings", "evaluate"]

LOGGER = logging.getLogger(__name__)
VALIDATION_NMS = NmsSettings(conf_thres=0.001, iou_thres=0.6, max_det=300, multi_label=True)


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How to evaluate."""

    nms: NmsSettings = VALIDATION_NMS
    single_cls: bool = False  # all classes, found and true, count as one
    precision: torch.dtype = torch.float32  # that the forward pass is cast to; what was opened has one of its own
    areas: tuple[AreaRange, ...] = ()  # ranges of object size to give figures for, besides COCO's
    halved_padding: bool = False  # boxes go back as in YOLOv5's own validation (see yolov5_rounding)
    progress: bool = True  # show a bar

    @property
    def suppression(self) -> NmsSettings:
        return replace(self.nms, agnostic=True) if self.single_cls else self.nms


def class_names(names: Sequence[str], *, single_cls: bool) -> tuple[str, ...]:
    """The names that figures are given for: with ``--single-cls`` there is one class, ``item``."""
    return ("item",) if single_cls else tuple(names)


def drawn_names(names: Sequence[str], *, single_cls: bool) -> tuple[str, ...]:
    """A name for every class id in ``names``, for images; with ``--single-cls`` all are the same."""
    return class_names(names, single_cls=True) * len(names) if single_cls else tuple(names)


def warn_of_other_names(file: str, own: Sequence[str], data: Path, names: Sequence[str]) -> None:
    """Say so where a model has as many classes as a data set but calls them differently: they meet by number.

    A model whose classes have no names, or one made with ``--single-cls``, has none that could differ.
    """
    nameless = tuple(own) in (class_names(own, single_cls=True), tuple(map(str, range(len(own)))))
    other = [i for i, (a, b) in enumerate(zip(own, names, strict=False)) if plain_name(a) != plain_name(b)]
    if other and len(own) == len(names) and not nameless:
        LOGGER.warning(
            "%s: class %d is %r, but in %s it is %r; %d of %d names differ, and classes are compared by number",
            *(file, other[0], own[other[0]], data, names[other[0]], len(other), len(names)),
        )


class NamedClasses(Protocol):
    """What knows the names of its classes."""

    @property
    def names(self) -> tuple[str, ...]: ...


class Detector(NamedClasses, Protocol):
    """Anything that finds objects: a model, an exported file."""

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions: ...


@runtime_checkable
class RawDetector(Protocol):
    """A detector whose raw maps can be had, for the loss."""

    def __call__(self, images: torch.Tensor) -> HeadMaps: ...

    def decode(self, maps: HeadMaps, least_score: float = 0.0) -> Predictions: ...


class DetectionLossFunction(Protocol):
    """Loss of raw maps against a batch's labels, in scalar parts."""

    @property
    def part_names(self) -> tuple[str, ...]: ...

    def __call__(self, maps: HeadMaps, batch: Batch) -> tuple[torch.Tensor, ...]: ...


class LabelledImages(Protocol):
    """The data set behind a loader."""

    @property
    def coco_truth(self) -> CocoTruth | None: ...

    def source_labels(self, index: int) -> Labels: ...


class EvaluationLoader(Protocol):
    """Batches with letterboxes, and the data set they come from."""

    @property
    def dataset(self) -> LabelledImages: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...


class ImagePredictor(NamedClasses, Protocol):
    """Whole images in, detections in their pixels out."""

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]: ...


class WholeImages(LabelledImages, Protocol):
    """A data set whose images can be read as they are on disk."""

    @property
    def index(self) -> LabelIndex: ...

    def __len__(self) -> int: ...

    def source_image(self, index: int) -> np.ndarray: ...


class EvaluationObserver:
    """Sees what is found while it is found: for label files, COCO results, images. The default does nothing."""

    def on_batch(self, number: int, batch: Batch, predictions: Predictions, detections: Sequence[Detections]) -> None:
        """Batch ``number`` (from 0) as it was loaded, its predictions and detections, all in network pixels.

        The batch (images uint8) and the detections are on the CPU, the predictions on the detector's device.
        """

    def on_image(self, index: int, path: Path, detections: Detections, labels: Labels) -> None:
        """Image ``index`` of the data set, its detections (on the CPU) and its labels, in source pixels."""


def evaluate(
    detector: Detector,
    loader: EvaluationLoader,
    settings: EvaluationSettings,
    device: torch.device,
    loss: DetectionLossFunction | None = None,
    observers: Sequence[EvaluationObserver] = (),
    ranks: ProcessRanks = ALONE,
) -> EvaluationReport:
    """Evaluate a detector on every image of a loader; a module is in eval mode meanwhile.

    Args:
        detector: gives decoded predictions; with ``loss`` a :class:`RawDetector` too.
        loader: batches (uint8) with letterboxes.
        settings: thresholds and arithmetic.
        device: where the detector is.
        loss: measured on the way when given.
        observers: called for each batch and each image of this process.
        ranks: with several processes the loader of each gives its part; the report of all is made in every one.

    Raises:
        UserError: a label's class that the detector does not have; no image.
    """
    tally, clock = _Tally(loader.dataset, detector, settings, observers), StageClock(device)
    losses: list[torch.Tensor] = []  # one (parts,) for each batch, read at the end: every reading stops a GPU
    with _evaluation_mode(detector), torch.no_grad():
        shown = settings.progress and ranks.is_writer
        batches = with_progress(copied_ahead(loader, device), len(loader), "batch", "evaluating", shown=shown)
        for number, (batch, copy) in enumerate(batches):
            clock.start()
            placed = copy.on(device)
            clock.lap("preprocess")
            predictions, maps = _forward(detector, placed.images, settings, raw=loss is not None)
            inferred = partial(clock.lap, "inference")
            found = non_max_suppression(predictions, settings.suppression, batch.size, inferred)
            clock.lap("nms")
            if loss is not None and maps is not None:
                losses.append(torch.stack(loss(maps, placed)))
            for observer in observers:
                observer.on_batch(number, batch, predictions, found)
            for place, detections in enumerate(found):
                path, letterbox = batch.paths[place], batch.letterboxes[place]
                if letterbox is None:
                    raise ValueError(f"{path}: evaluation needs the letterbox of every image")
                way_back = halved_padding(letterbox) if settings.halved_padding else letterbox
                tally.add(batch.indices[place], path, detections.cpu().to_source(way_back))
    speed = _per_image(clock, len(tally.images))
    images = images_of_all(tally.images, loader.dataset, settings.single_cls, ranks)
    mean_loss = None
    if loss is not None:
        rows = torch.stack(losses).cpu() if losses else torch.zeros(0, len(loss.part_names))
        mean_loss = dict(zip(loss.part_names, ranks.all_rows(rows.double()).mean(dim=0).tolist(), strict=True))
    return report_on(images, tally.names, tally.annotated_truth(), settings.areas, RunFigures(mean_loss, speed))


def evaluate_predictor(
    predictor: ImagePredictor,
    dataset: WholeImages,
    settings: EvaluationSettings,
    observers: Sequence[EvaluationObserver] = (),
    ranks: ProcessRanks = ALONE,
    readers: int = 2,
) -> EvaluationReport:
    """Evaluate what takes whole images, such as a sliced detector; it suppresses by itself.

    Args:
        predictor: called with one image (H, W, 3) uint8 RGB at a time; detections in its pixels.
        dataset: images with their labels.
        settings: of these ``areas``, ``single_cls`` and ``progress`` count.
        observers: called for each image of this process.
        ranks: with several processes each evaluates its part; the report of all is made in every one.
        readers: threads that read images ahead.

    Raises:
        UserError: a label's class that the detector does not have; no image.
    """
    tally = _Tally(dataset, predictor, settings, observers)
    clock = StageClock(torch.device("cpu"))  # where its results are, which a GPU has been waited for
    own = range(ranks.rank, len(dataset), ranks.world)
    images = read_ahead(dataset.source_image, own, threads=readers)
    shown = settings.progress and ranks.is_writer
    progress = with_progress(images, len(own), "image", "evaluating", shown=shown)
    for index, image in zip(own, progress, strict=True):
        clock.start()
        (detections,) = predictor([image])
        clock.lap("inference")
        tally.add(index, dataset.index.paths[index], detections.cpu())
    speed = _per_image(clock, len(tally.images))
    evaluated = images_of_all(tally.images, dataset, settings.single_cls, ranks)
    return report_on(evaluated, tally.names, tally.annotated_truth(), settings.areas, RunFigures(None, speed))


def _forward(
    detector: Detector, images: torch.Tensor, settings: EvaluationSettings, *, raw: bool
) -> tuple[Predictions, HeadMaps | None]:
    """Predictions that suppression may keep, and the raw maps if wanted."""
    least = settings.suppression.conf_thres
    with autocast(images.device, settings.precision):
        if not raw:
            return detector.predict(images, least), None
        if not isinstance(detector, RawDetector):
            raise TypeError(f"{type(detector).__name__} gives no raw maps to measure a loss on")
        maps = detector(images)
        return detector.decode(maps, least), maps


@contextmanager
def _evaluation_mode(detector: object) -> Iterator[None]:
    if not isinstance(detector, torch.nn.Module) or not detector.training:
        yield
        return
    detector.eval()
    try:
        yield
    finally:
        detector.train()


def _per_image(clock: StageClock, images: int) -> SpeedFigures:
    """Milliseconds of the stages. What suppression asks a GPU first is counted as the network's, whose answer it is."""
    seconds = clock.seconds()
    return SpeedFigures(*(1000 * seconds.get(stage, 0.0) / max(images, 1) for stage in SpeedFigures._fields))


class _Tally:
    """The images seen so far."""

    def __init__(
        self,
        dataset: LabelledImages,
        detector: NamedClasses,
        settings: EvaluationSettings,
        observers: Sequence[EvaluationObserver],
    ) -> None:
        self.dataset = dataset
        self.names = class_names(detector.names, single_cls=settings.single_cls)
        self.single_cls = settings.single_cls
        self.observers = observers
        self.images: list[EvaluatedImage] = []

    def add(self, index: int, path: Path, detections: Detections) -> None:
        """Detections of image ``index``, in source pixels."""
        labels = true_labels(self.dataset, index, self.single_cls)
        if len(labels) and labels.classes.max() >= len(self.names):
            raise UserError(
                f"{path}: its labels name class {labels.classes.max()}, "
                f"but the model has {len(self.names)} classes (0 to {len(self.names) - 1})"
            )
        if self.single_cls:
            detections = replace(detections, classes=torch.zeros_like(detections.classes))
        self.images.append(EvaluatedImage(index, labels, detections))
        for observer in self.observers:
            observer.on_image(index, path, detections, labels)

    def annotated_truth(self) -> CocoTruth | None:
        """The ground truth of COCO's figures, where the data set has more than labels."""
        truth = self.dataset.coco_truth
        return truth.as_one_class() if self.single_cls and truth is not None else truth


def true_labels(dataset: LabelledImages, index: int, single_cls: bool) -> Labels:
    """Labels of an image; with ``single_cls`` all of class 0."""
    labels = dataset.source_labels(index)
    return replace(labels, classes=np.zeros_like(labels.classes)) if single_cls else labels


def images_of_all(
    images: Sequence[EvaluatedImage], dataset: LabelledImages, single_cls: bool, ranks: ProcessRanks
) -> list[EvaluatedImage]:
    """The images of every process. Detections travel; labels are read from the data set, which all have."""
    if ranks.world == 1:
        return list(images)
    indices = ranks.all_rows(torch.tensor([[image.index] for image in images], dtype=torch.int64).reshape(-1, 1))
    own = [_rows(image) for image in images]
    rows = ranks.all_rows(torch.cat(own) if own else torch.zeros((0, 7), dtype=torch.float64))
    order = torch.argsort(rows[:, 0], stable=True)  # an image's detections keep their order, best first
    rows = rows[order]
    bounds = torch.searchsorted(rows[:, 0].contiguous(), torch.unique(indices).double()).tolist() + [len(rows)]
    return [
        _image(index, rows[start:stop], dataset, single_cls)
        for index, start, stop in zip(torch.unique(indices).tolist(), bounds[:-1], bounds[1:], strict=True)
    ]


def _rows(image: EvaluatedImage) -> torch.Tensor:
    """Detections as (N, 7) float64: index, box, score, class."""
    found = image.detections
    index = torch.full((len(found), 1), image.index, dtype=torch.float64)
    return torch.cat((index, found.boxes.double(), found.scores[:, None].double(), found.classes[:, None].double()), 1)


def _image(index: int, rows: torch.Tensor, dataset: LabelledImages, single_cls: bool) -> EvaluatedImage:
    labels = true_labels(dataset, index, single_cls)
    boxes, scores, classes = rows[:, 1:5].float(), rows[:, 5].float(), rows[:, 6].long()
    return EvaluatedImage(index, labels, Detections(boxes, scores, classes, labels.size))


def labels_and_detections(batch: Batch, predictions: Predictions, settings: NmsSettings) -> list[Detections]:
    """The true objects of each image and what was found where none of them is, in network pixels.

    Labels enter suppression in front of the predictions (B, K), as boxes that are certain of their class. They are laid
    out where the batch is, on the CPU, and are sent to the predictions' device.
    """
    images, _, class_count = predictions.class_probs.shape
    most = int(torch.bincount(batch.image_index, minlength=images).max()) if len(batch.classes) else 0
    boxes, objectness = torch.zeros(images, most, 4), torch.zeros(images, most)
    class_probs = torch.zeros(images, most, class_count)
    for place in range(images):
        own = batch.image_index == place
        count = int(own.sum())
        boxes[place, :count] = batch.boxes[own]
        objectness[place, :count] = 1
        class_probs[place, torch.arange(count), batch.classes[own]] = 1
    pairs = zip((boxes, objectness, class_probs), predictions, strict=True)
    known = Predictions(*(torch.cat((sent(added, found.device), found), dim=1) for added, found in pairs))
    return non_max_suppression(known, settings, batch.size)

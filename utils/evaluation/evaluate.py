"""The one evaluation of a detector, for training and validation alike."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from tqdm import tqdm

from utils.evaluation.average_precision import precision_recall
from utils.evaluation.coco_average_precision import (
    coco_figures,
    findings_from_detections,
    truth_from_labels,
)
from utils.evaluation.confusion_matrix import ConfusionMatrix
from utils.evaluation.evaluated_pictures import EvaluatedPicture, LabelledPictures, pictures_of_all, true_labels
from utils.evaluation.evaluation_report import ClassReport, EvaluationReport, LossFigures, SpeedFigures
from utils.evaluation.match_detections import match_detections
from utils.evaluation.yolov5_rounding import halved_padding
from utils.geometry.records import Batch, Detections, HeadMaps, Labels, LossParts, Predictions
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.runtime.device import autocast
from utils.runtime.process_ranks import ALONE, ProcessRanks
from utils.user_error import UserError

__all__ = ["EvaluationObserver", "EvaluationReport", "EvaluationSettings", "evaluate"]

VALIDATION_NMS = NmsSettings(conf_thres=0.001, iou_thres=0.6, max_det=300, multi_label=True)


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How to evaluate."""

    nms: NmsSettings = VALIDATION_NMS
    single_cls: bool = False  # all classes, found and true, count as one
    precision: torch.dtype = torch.float32  # arithmetic of the forward pass
    halved_padding: bool = False  # boxes go back as in YOLOv5's own validation (see yolov5_rounding)
    progress: bool = True  # show a bar


class Detector(Protocol):
    """Anything that finds objects: a model, an exported file."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def predict(self, images: torch.Tensor) -> Predictions: ...


@runtime_checkable
class RawDetector(Protocol):
    """A detector whose raw maps can be had, for the loss."""

    def __call__(self, images: torch.Tensor) -> HeadMaps: ...

    def decode(self, maps: HeadMaps) -> Predictions: ...


class DetectionLossFunction(Protocol):
    """Loss of raw maps against a batch's labels."""

    def __call__(self, maps: HeadMaps, batch: Batch) -> LossParts: ...


class EvaluationLoader(Protocol):
    """Batches with letterboxes, and the data set they come from."""

    @property
    def dataset(self) -> LabelledPictures: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...


class EvaluationObserver:
    """Sees what is found while it is found: for label files, COCO results, pictures. The default does nothing."""

    def on_batch(self, number: int, batch: Batch, detections: Sequence[Detections]) -> None:
        """Batch ``number`` (from 0) on its device and its detections, both in network pixels."""

    def on_picture(self, index: int, path: Path, detections: Detections, labels: Labels) -> None:
        """Picture ``index`` of the data set, its detections (on the CPU) and its labels, in source pixels."""


def evaluate(
    detector: Detector,
    loader: EvaluationLoader,
    settings: EvaluationSettings,
    device: torch.device,
    loss: DetectionLossFunction | None = None,
    observers: Sequence[EvaluationObserver] = (),
    ranks: ProcessRanks = ALONE,
) -> EvaluationReport:
    """Evaluate a detector on every picture of a loader; a module is in eval mode meanwhile.

    Args:
        detector: gives decoded predictions; with ``loss`` a :class:`RawDetector` too.
        loader: batches (uint8) with letterboxes.
        settings: thresholds and arithmetic.
        device: where the detector is.
        loss: measured on the way when given.
        observers: called for each batch and each picture of this process.
        ranks: with several processes the loader of each gives its part; the report of all is made in every one.

    Raises:
        UserError: a label's class that the detector does not have; no picture.
    """
    names = ("item",) if settings.single_cls else detector.names
    nms = replace(settings.nms, agnostic=True) if settings.single_cls else settings.nms
    tally, clock, losses = _Tally(names), _Clock(device), []
    with _evaluation_mode(detector), torch.no_grad():
        shown = settings.progress and ranks.is_writer
        bar = tqdm(loader, desc="evaluating", unit="batch", disable=not shown, leave=False)
        for number, batch in enumerate(bar):
            with clock.stage("preprocess"):
                batch = batch.on(device)
            with clock.stage("inference"):
                predictions, maps = _forward(detector, batch.images, settings, raw=loss is not None)
            if loss is not None and maps is not None:
                losses.append([float(part) for part in loss(maps, batch)])
            with clock.stage("nms"):
                found = non_max_suppression(predictions, nms, batch.size)
            if settings.single_cls:
                found = [replace(one, classes=torch.zeros_like(one.classes)) for one in found]
            for observer in observers:
                observer.on_batch(number, batch, found)
            for place, detections in enumerate(found):
                index, path, letterbox = batch.indices[place], batch.paths[place], batch.letterboxes[place]
                if letterbox is None:
                    raise ValueError(f"{path}: evaluation needs the letterbox of every picture")
                labels = true_labels(loader.dataset, index, settings.single_cls)
                way_back = halved_padding(letterbox) if settings.halved_padding else letterbox
                detections = detections.cpu().to_source(way_back)
                tally.add(EvaluatedPicture(index, labels, detections), path)
                for observer in observers:
                    observer.on_picture(index, path, detections, labels)
    speed = clock.per_picture(max(len(tally.pictures), 1))
    tally.pictures = pictures_of_all(tally.pictures, loader.dataset, settings.single_cls, ranks)
    if not tally.pictures:
        raise UserError("nothing to evaluate: the split has no pictures")
    mean_loss = None
    if loss is not None:
        rows = ranks.all_rows(torch.tensor(losses, dtype=torch.float64).reshape(-1, len(LossFigures._fields)))
        mean_loss = LossFigures(*rows.mean(dim=0).tolist())
    return tally.report(mean_loss, speed)


def _forward(
    detector: Detector, images: torch.Tensor, settings: EvaluationSettings, *, raw: bool
) -> tuple[Predictions, HeadMaps | None]:
    """Predictions, and the raw maps if wanted."""
    with autocast(images.device, settings.precision):
        if not raw:
            return detector.predict(images), None
        if not isinstance(detector, RawDetector):
            raise TypeError(f"{type(detector).__name__} gives no raw maps to measure a loss on")
        maps = detector(images)
        return detector.decode(maps), maps


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


class _Clock:
    """Time spent per stage; waits for the device, so that work is charged to the stage that ordered it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = {"preprocess": 0.0, "inference": 0.0, "nms": 0.0}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start

    def per_picture(self, pictures: int) -> SpeedFigures:
        return SpeedFigures(**{name: 1000 * seconds / pictures for name, seconds in self.seconds.items()})


class _Tally:
    """The pictures seen so far."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.pictures: list[EvaluatedPicture] = []

    def add(self, picture: EvaluatedPicture, path: Path) -> None:
        labels = picture.labels
        if len(labels) and labels.classes.max() >= len(self.names):
            raise UserError(
                f"{path}: its labels name class {labels.classes.max()}, "
                f"but the model has {len(self.names)} classes (0 to {len(self.names) - 1})"
            )
        self.pictures.append(picture)

    def report(self, loss: LossFigures | None, speed_ms: SpeedFigures) -> EvaluationReport:
        # Detections of equal score rank by picture: in the data set's order, whatever the batches were.
        pictures = sorted(self.pictures, key=lambda picture: picture.index)
        truth = [picture.labels for picture in pictures]
        found = [picture.detections for picture in pictures]
        findings = findings_from_detections(found)
        curves = precision_recall(
            np.concatenate([match_detections(own, labels) for own, labels in zip(found, truth, strict=True)]),
            findings.scores,
            findings.classes,
            np.concatenate([labels.classes for labels in truth]),
        )
        coco = coco_figures(truth_from_labels(truth), findings)
        confusion = ConfusionMatrix(len(self.names))
        for picture in pictures:
            confusion.add(picture.detections, picture.labels)
        pictures_with = np.zeros(len(self.names), dtype=np.int64)
        for labels in truth:
            pictures_with[np.unique(labels.classes)] += 1
        per_class = tuple(
            ClassReport(
                name=self.names[index],
                index=index,
                images=int(pictures_with[index]),
                objects=int(curves.objects[row]),
                precision=float(curves.precision[row]),
                recall=float(curves.recall[row]),
                map50=float(curves.ap[row, 0]),
                map50_95=float(curves.ap[row].mean()),
                coco=coco.per_class[index],
            )
            for row, index in enumerate(curves.classes.tolist())
        )
        return EvaluationReport(
            precision=_mean(curves.precision),
            recall=_mean(curves.recall),
            map50=_mean(curves.ap[:, 0]),
            map50_95=_mean(curves.ap),
            coco=coco.summary,
            per_class=per_class,
            images=len(pictures),
            objects=int(curves.objects.sum()),
            loss=loss,
            speed_ms=speed_ms,
            names=self.names,
            curves=curves,
            confusion=confusion.counts,
        )


def _mean(figures: np.ndarray) -> float:
    """Mean over classes; 0 where no class has ground truth, as YOLOv5 prints it."""
    return float(figures.mean()) if figures.size else 0.0

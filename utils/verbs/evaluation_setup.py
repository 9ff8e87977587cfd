"""What every evaluation begins with: the part of the data set, the detector, and the call that brings them together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from utils.config.dataset_yaml import DatasetSpec
from utils.config.val_flags import ValConfig
from utils.config.weights_by_name import find_weights
from utils.dataset.batch_loader import LoaderSettings
from utils.dataset.dataset_download import available_dataset
from utils.dataset.detection_dataset import DetectionDataset, open_dataset
from utils.dataset.evaluation_loader import DetectionLoader, SortKind, evaluation_loader
from utils.evaluation.coco_average_precision import parse_area_ranges
from utils.evaluation.evaluate import (
    Detector,
    EvaluationObserver,
    EvaluationReport,
    EvaluationSettings,
    evaluate,
    evaluate_predictor,
)
from utils.evaluation.yolov5_rounding import HalfPrecisionDetector
from utils.geometry.letterbox import FrameSize, multiple_of_stride
from utils.inference.detector_choice import refuse_torch_flags
from utils.inference.ensemble import Ensemble
from utils.inference.model_backends import DetectionBackend, GraphBackend, TorchBackend, load_backend
from utils.inference.nms import NmsSettings
from utils.inference.predictor import Predictor, PredictorSettings
from utils.inference.slicing import SlicedPredictor, SliceSettings
from utils.inference.test_time_augmentation import AugmentedBackend
from utils.runtime.device import requested_precision, select_device
from utils.runtime.failures import explained_failures
from utils.runtime.reused_memory import reuse_freed_memory
from utils.runtime.threads import useful_workers
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvaluationSetup:
    """One part of a data set, and how detectors are judged on it."""

    config: ValConfig
    device: torch.device
    dataset: DatasetSpec
    part: str  # train, val or test
    images: DetectionDataset
    settings: EvaluationSettings

    @classmethod
    def of(cls, config: ValConfig) -> EvaluationSetup:
        """Open what ``config`` names.

        Raises:
            UserError: a file is missing or damaged, the data set has no such part, arithmetic that the device lacks.
        """
        device = select_device(config.device)
        reuse_freed_memory(device)
        settings = EvaluationSettings(
            nms=NmsSettings(config.conf_thres, config.iou_thres, config.max_det, multi_label=True),
            single_cls=config.single_cls,
            precision=requested_precision(config.precision, config.half, device),
            areas=parse_area_ranges(config.area_ranges or ()),
            halved_padding=config.as_yolov5,
        )
        dataset = available_dataset(config.data)
        part = config.task if config.task in ("train", "test") else "val"
        sources = dataset.split(part)
        if not sources:
            raise UserError(f"{dataset.file}: --task {config.task}: the data set has no '{part}:' part")
        annotations = dataset.annotations.get(part)
        images = open_dataset(sources, dataset.names, title=part, annotations=annotations)
        return cls(config, device, dataset, part, images, settings)

    def on(self, images: DetectionDataset) -> EvaluationSetup:
        """The same on other images of the part."""
        return replace(self, images=images)

    @property
    def shown_names(self) -> tuple[str, ...]:
        """Class names for images; with ``--single-cls`` there is only one class."""
        return ("item",) * self.dataset.class_count if self.config.single_cls else self.dataset.names

    def detector(self, weights: Sequence[str]) -> DetectionBackend:
        """The detector in a file, or the ensemble of those in several.

        Raises:
            UserError: no such file, or one of other classes than the data set's.
            UsageError: a flag that does not go with the kind of file.
        """
        backends = [self._backend(find_weights(name)) for name in weights]
        return backends[0] if len(backends) == 1 else Ensemble(backends, weights)

    def _backend(self, file: Path) -> DetectionBackend:
        config = self.config
        backend = load_backend(
            file,
            self.device,
            fallback_names=lambda: self.dataset.names,
            dnn=config.dnn,
            precision=self.settings.precision,
        )
        if not config.single_cls and len(backend.names) != self.dataset.class_count:
            raise UserError(
                f"{file}: has {len(backend.names)} classes, but {self.dataset.file} names {self.dataset.class_count}; "
                "they must be of the same data set"
            )
        if isinstance(backend, GraphBackend) and backend.suppresses:
            LOGGER.warning(
                "%s suppresses by itself: the figures are of what its --conf-thres, --iou-thres and --topk leave", file
            )
        if not isinstance(backend, TorchBackend):
            refuse_torch_flags(config, file, {"--as-yolov5": config.as_yolov5})
            return backend
        return AugmentedBackend(backend) if config.augment else backend

    def judge(
        self, backend: DetectionBackend, observers: Sequence[EvaluationObserver] = (), imgsz: int | None = None
    ) -> EvaluationReport:
        """Evaluate on every image; ``imgsz`` in place of the settings' own."""
        config = self.config
        side = self._side(backend, imgsz or config.imgsz)
        with explained_failures(config.batch_size, side):
            size = config.slice
            if size is None and not (config.save_hybrid or config.as_yolov5):
                size = self.dataset.tile  # what is learned in tiles is judged in tiles
            if size is not None:
                tiles = SliceSettings(size, config.slice_overlap, config.slice_merge)
                settings = PredictorSettings(self.settings.suppression, FrameSize(side, side), self.settings.precision)
                sliced = SlicedPredictor(Predictor(backend, settings, self.device), tiles, config.batch_size)
                readers = useful_workers(config.workers)
                return evaluate_predictor(sliced, self.images, self.settings, self.device, observers, readers=readers)
            detector: Detector = backend
            if config.as_yolov5 and isinstance(backend, TorchBackend):
                detector = HalfPrecisionDetector(backend.model)
            loader = self._loader(backend, side)
            return evaluate(detector, loader, self.settings, self.device, observers=observers)

    def _side(self, backend: DetectionBackend, imgsz: int) -> int:
        if backend.frame is not None:
            if imgsz != max(backend.frame):
                LOGGER.warning("--imgsz %d: the file takes images of %dx%d px only", imgsz, *backend.frame)
            return max(backend.frame)
        side = multiple_of_stride(imgsz, backend.stride)
        if side != imgsz:
            LOGGER.warning("--imgsz %d is not a multiple of the stride %d: taking %d", imgsz, backend.stride, side)
        return side

    def _loader(self, backend: DetectionBackend, side: int) -> DetectionLoader:
        """Batches in frames that the model takes."""
        settings = LoaderSettings(self.config.batch_size, self.config.workers, pin_memory=self.device.type == "cuda")
        sort: SortKind = "quicksort" if self.config.as_yolov5 else "stable"
        frame = backend.frame or (FrameSize(side, side) if self.config.square else None)
        return evaluation_loader(self.images, side, settings, stride=backend.stride, frame=frame, sort=sort)

"""``val.py``'s work: a detector evaluated on one part of a data set, its figures printed and written to a folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from utils.config.command_line import as_command, script_command
from utils.config.dataset_yaml import DatasetSpec
from utils.config.val_flags import ValConfig
from utils.dataset.available_dataset import available_dataset
from utils.dataset.batch_loader import LoaderSettings
from utils.dataset.coco_annotations import NO_CLASS
from utils.dataset.detection_dataset import DetectionDataset, open_part
from utils.dataset.evaluation_loader import DetectionLoader, SortKind, evaluation_loader
from utils.evaluation.coco_average_precision import parse_area_ranges
from utils.evaluation.error_analysis import advice, analyse_errors
from utils.evaluation.evaluate import (
    VALIDATION_NMS,
    Detector,
    EvaluationObserver,
    EvaluationReport,
    EvaluationSettings,
    drawn_names,
    evaluate,
    evaluate_predictor,
    labels_and_detections,
    warn_of_other_names,
)
from utils.evaluation.yolov5_rounding import HalfPrecisionDetector
from utils.geometry.letterbox import FrameSize
from utils.inference.detector import OpenedDetector
from utils.inference.model_files import GraphBackend, open_detector
from utils.inference.nms import NmsSettings
from utils.inference.slicing import SliceSettings
from utils.inference.torch_backend import FixedBatch, TorchBackend
from utils.reporting.coco_submission import (
    BestDetections,
    check_results,
    submission_name,
    valid_categories,
    write_zip,
)
from utils.reporting.evaluation_files import (
    BatchImages,
    CocoResults,
    HybridLabelFiles,
    LabelFiles,
    SampleImages,
    format_table,
    speed_line,
    write_evaluation_plots,
    write_metrics,
)
from utils.reporting.html_report import ReportSource, write_report
from utils.reporting.missed_objects import write_missed_objects
from utils.reporting.output_names import OutputNames
from utils.reporting.run_directory import new_run_directory, write_problems
from utils.runtime.console_log import counted, say_next
from utils.runtime.device import describe_device, measured_convolutions, requested_precision, select_device
from utils.runtime.failures import explained_failures
from utils.runtime.reused_memory import reuse_freed_memory
from utils.runtime.threads import useful_workers
from utils.user_error import UsageError, UserError

LOGGER = logging.getLogger(__name__)


def run_evaluation(config: ValConfig) -> None:
    """Evaluate as ``config`` says; figures go to the console and, with images, to a new run folder.

    A part of which nothing is known but an image-info file gives results for COCO's server instead.

    Raises:
        UserError: anything missing or wrong in the files that the settings name, a model of other classes.
    """
    setup = EvaluationSetup.of(config)
    if setup.is_submission:
        run_submission(setup)
    else:
        evaluate_once(setup)


def evaluate_once(setup: EvaluationSetup) -> EvaluationReport:
    """One detector, or one ensemble, on one part of a data set."""
    config = setup.config
    detector = setup.detector(config.weights)
    folder = new_run_directory(
        config.project,
        config.name,
        exist_ok=config.exist_ok,
        set_aside=("labels", "*_predictions.json", "problems.txt"),
    )
    weights = " ".join(config.weights)
    LOGGER.info(
        "evaluating %s on the %s part of %s, %s", weights, setup.part, setup.dataset.file, describe_device(setup.device)
    )
    LOGGER.info("%s: %s", setup.part, setup.images.index.summary())
    write_problems(folder, setup.images.index.problems)
    if not len(setup.images.index.rows):
        LOGGER.warning("%s: nothing to evaluate on: %s", setup.part, setup.images.why_empty())

    written = config.save_json or config.save_txt or config.save_hybrid
    outputs = OutputNames(dict.fromkeys(setup.images.index.paths, False) if written else {})
    observers = _writers(setup, folder, setup.drawn_names(detector), outputs)
    results = CocoResults(setup.images.annotations, outputs.image_id) if config.save_json else None
    report = setup.evaluate(detector, [*observers, results] if results else observers)

    LOGGER.info("%s\n%s", format_table(report, verbose=config.verbose), speed_line(report))
    analysis = analyse_errors(report.coco_figures)
    for sentence in advice(analysis) if analysis else []:
        LOGGER.info("- %s", sentence)
    further = analysis.as_dict() if analysis else None
    write_metrics(folder / "metrics.json", report, weights, asdict(config), further)
    write_evaluation_plots(folder, report, analysis)
    if analysis:
        write_missed_objects(folder / "missed_objects.jpg", setup.images, report, analysis)
    if results:
        results.write(folder / f"{Path(config.weights[0]).stem}_predictions.json")
    source = ReportSource(as_command(config, "val.py"), weights, f"{setup.part} part of {setup.dataset.file.name}")
    write_report(folder / "report.html", source, report, analysis)
    LOGGER.info("report with images: %s", folder / "report.html")
    LOGGER.info("results in %s", folder)
    if report.thresholds.best_f1 is not None:
        words = ("--weights", *config.weights, "--img", config.imgsz, "--conf", f"{report.thresholds.best_f1:.3f}")
        slices = () if config.slice is None else ("--slice", config.slice)
        say_next(script_command("detect.py", *words, *slices, "--source", "IMAGES"))
    return report


def _writers(
    setup: EvaluationSetup, folder: Path, names: Sequence[str], outputs: OutputNames
) -> list[EvaluationObserver]:
    """What writes images and label files while the evaluation runs."""
    config = setup.config
    writers: list[EvaluationObserver] = [SampleImages(folder, setup.images, names)]
    if config.slice is None:
        writers.append(BatchImages(folder, names))
    if config.save_hybrid:
        find = partial(labels_and_detections, settings=setup.settings.suppression)
        writers.append(HybridLabelFiles(folder / "labels", outputs.of, find, with_scores=config.save_conf))
    elif config.save_txt:
        writers.append(LabelFiles(folder / "labels", outputs.of, with_scores=config.save_conf))
    return writers


def run_submission(setup: EvaluationSetup) -> Path:
    """Detect on the images that the image-info file lists; the path of the zip for the server.

    Raises:
        UserError: a class that the file has no category for, or results that the server would refuse.
    """
    config, annotations = setup.config, setup.images.annotations
    assert annotations is not None
    nameless = [
        name for name, number in zip(setup.dataset.names, annotations.category_ids, strict=True) if number == NO_CLASS
    ]
    if nameless:
        raise UserError(f"{annotations.file}: has no category for the class {nameless[0]!r}")
    places = annotations.listed().tolist()
    listed = DetectionDataset(setup.images.index.unlabelled_part(places), setup.images.names)
    ids = [annotations.image_ids[place] for place in places]
    detector = setup.detector(config.weights)
    folder = new_run_directory(config.project, config.name, exist_ok=config.exist_ok)
    LOGGER.info(
        "%s has no labels: writing results for the %d of %d images that %s lists",
        setup.part,
        len(places),
        len(setup.images),
        annotations.file.name,
    )
    results = BestDetections(ids, annotations)
    replace(setup, images=listed).evaluate(detector, [results])
    check_results(results.entries, frozenset(ids), valid_categories(annotations))
    part = annotations.file.stem.removeprefix("image_info_")
    path = folder / f"detections_{part}_{submission_name(config)}_results.zip"
    write_zip(path, results.entries)
    found, seen = counted(len(results.entries), "detection"), counted(len(places), "image")
    LOGGER.info("%s on %s; results in %s", found, seen, path)
    return path


@dataclass(frozen=True, slots=True)
class EvaluationSetup:
    """One part of a data set, and how detectors are evaluated on it."""

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
        if config.conf_thres > VALIDATION_NMS.conf_thres and config.task != "speed":
            LOGGER.warning(
                "--conf-thres %g: what scores less is not counted, so mAP is lower than at the default %g",
                config.conf_thres,
                VALIDATION_NMS.conf_thres,
            )
        device = select_device(config.device)
        reuse_freed_memory(device)
        if not config.as_yolov5:
            requested_precision(config.precision, config.half, device)  # refused before images are looked at
        settings = EvaluationSettings(
            nms=NmsSettings(config.conf_thres, config.iou_thres, config.max_det, multi_label=True),
            single_cls=config.single_cls,
            areas=parse_area_ranges(config.area_ranges or ()),
            halved_padding=config.as_yolov5,
        )
        dataset = available_dataset(config.data)
        part = config.task if config.task in ("train", "test") else "val"
        if not dataset.split(part):
            raise UserError(f"{dataset.file}: --task {config.task}: the data set has no '{part}:' part")
        return cls(config, device, dataset, part, open_part(dataset, part, title=part), settings)

    @property
    def is_submission(self) -> bool:
        """Whether there is nothing to evaluate against but an image-info file."""
        annotations = self.images.annotations
        unlabelled = self.images.index.unlabelled == len(self.images)
        return annotations is not None and unlabelled and not annotations.has_objects

    @property
    def tiles(self) -> SliceSettings | None:
        """How images are cut; None for whole ones. What is learned in tiles is evaluated in tiles."""
        config = self.config
        size = config.slice
        if size is None and not (config.save_hybrid or config.as_yolov5):
            size = self.dataset.tile
        return None if size is None else SliceSettings(size, config.slice_overlap, config.slice_merge)

    def drawn_names(self, detector: OpenedDetector) -> tuple[str, ...]:
        """A name for every class id of the labels and of the detector."""
        most = max(self.dataset.names, detector.names, key=len)  # as many, unless classes count as one
        return drawn_names(most, single_cls=self.config.single_cls)

    def detector(self, weights: Sequence[str]) -> OpenedDetector:
        """The detector in a file, or the ensemble of those in several.

        Raises:
            UserError: no such file, or one of other classes than the data set's.
            UsageError: a flag that does not go with the kind of file.
        """
        config = self.config
        only_torch = {"--as-yolov5": config.as_yolov5}
        # As YOLOv5 in half precision is a detector of its own, which needs no such arithmetic of the device.
        flags = replace(config, half=False, precision="fp32") if config.as_yolov5 else config
        most = config.batch_size if self.tiles else min(config.batch_size, len(self.images)) or 1
        fixed = FixedBatch(most, FrameSize(config.imgsz, config.imgsz)) if config.compile else None
        detector = open_detector(weights, flags, self.device, lambda: self.dataset.names, only_torch, fixed)
        backend = detector.backend
        if config.half_as_yolov5 and not isinstance(backend, TorchBackend):
            raise UsageError("--as-yolov5 --half: rounds one .pt file, not an ensemble, and goes not with --augment")
        if config.half_as_yolov5 and isinstance(backend, TorchBackend) and not backend.model.anchors.numel():
            raise UsageError(f"--as-yolov5 --half: {weights[0]} has no anchors, and YOLOv5 none without")
        if not config.single_cls and len(detector.names) != self.dataset.class_count:
            raise UserError(
                f"{weights[0]}: has {counted(len(detector.names), 'class')}, but {self.dataset.file} names "
                f"{self.dataset.class_count}; they must be of the same data set"
            )
        if not config.single_cls:
            warn_of_other_names(weights[0], detector.names, self.dataset.file, self.dataset.names)
        for part in detector.parts:
            if isinstance(part, GraphBackend) and part.suppresses:
                LOGGER.warning(
                    "%s suppresses by itself: the figures are of what its --conf-thres, --iou-thres and --topk leave",
                    part.path,
                )
        return detector

    def evaluate(
        self, detector: OpenedDetector, observers: Sequence[EvaluationObserver] = (), imgsz: int | None = None
    ) -> EvaluationReport:
        """The figures on every image; ``imgsz`` in place of the settings' own."""
        config, tiles = self.config, self.tiles
        side = imgsz or config.imgsz
        frame = detector.frame(FrameSize(side, side))
        sizes_repeat = tiles is not None or self._whole_frame(detector)
        with (
            explained_failures(config.batch_size, max(frame)),
            measured_convolutions(self.device, sizes_repeat=sizes_repeat),
        ):
            if tiles is not None:
                predictor = detector.predictor(self.settings.suppression, frame, tiles, config.batch_size)
                readers = useful_workers(config.workers)
                return evaluate_predictor(predictor, self.images, self.settings, observers, readers=readers)
            backend: Detector = detector.backend
            if config.half_as_yolov5 and isinstance(backend, TorchBackend):
                backend = HalfPrecisionDetector(backend.model)
            return evaluate(backend, self._loader(detector, frame), self.settings, self.device, observers=observers)

    def _whole_frame(self, detector: OpenedDetector) -> bool:
        """Whether every image is padded to the whole frame, instead of to what its batch needs."""
        return self.config.square or detector.backend.frame is not None

    def _loader(self, detector: OpenedDetector, frame: FrameSize) -> DetectionLoader:
        """Batches in frames that the detector takes."""
        config = self.config
        settings = LoaderSettings(config.batch_size, config.workers, pin_memory=self.device.type == "cuda")
        sort: SortKind = "quicksort" if config.as_yolov5 else "stable"
        whole = frame if self._whole_frame(detector) else None
        stride = detector.backend.stride
        return evaluation_loader(self.images, max(frame), settings, stride=stride, frame=whole, sort=sort)

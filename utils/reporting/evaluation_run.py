"""``val.py``'s work: a model file evaluated on one split, its figures printed and written to a run folder."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import torch

from utils.config.dataset_yaml import DatasetSpec, find_dataset_yaml, read_dataset_yaml
from utils.config.run_config import ValConfig
from utils.config.weights_by_name import find_weights
from utils.dataset.loaders import DetectionLoader, LoaderSettings, evaluation_loader, open_dataset
from utils.dataset.samplers import SortKind
from utils.evaluation.evaluate import Detector, EvaluationReport, EvaluationSettings, evaluate
from utils.evaluation.yolov5_rounding import HalfPrecisionDetector
from utils.geometry.letterbox import multiple_of_stride
from utils.inference.model_backends import DetectionBackend, TorchBackend, load_backend
from utils.inference.nms import NmsSettings
from utils.reporting.dataset_problems import report_problems
from utils.reporting.evaluation_observers import BatchPictures, CocoResults, LabelFiles, write_evaluation_plots
from utils.reporting.metrics_file import format_table, speed_line, write_metrics
from utils.reporting.run_directory import new_run_directory
from utils.runtime.device import describe_device, select_device
from utils.runtime.failures import explained_failures
from utils.user_error import UsageError, UserError

LOGGER = logging.getLogger(__name__)


def run_evaluation(config: ValConfig) -> EvaluationReport:
    """Evaluate as ``config`` says; figures go to the console and, with pictures, to the run's folder.

    Raises:
        UserError: anything missing or wrong in the files that the settings name, a model of other classes.
    """
    device = select_device(config.device)
    dataset = read_dataset_yaml(find_dataset_yaml(config.data))
    weights = find_weights(config.weights)
    backend = load_backend(weights, device, fallback_names=lambda: dataset.names, dnn=config.dnn)
    if not config.single_cls and len(backend.names) != dataset.class_count:
        raise UserError(
            f"{weights}: has {len(backend.names)} classes, but {dataset.file} names {dataset.class_count}; "
            "they must be of the same data set"
        )
    if (config.half or config.as_yolov5) and not isinstance(backend, TorchBackend):
        flag = "--half" if config.half else "--as-yolov5"
        raise UsageError(f"{flag} --weights {weights}: only for .pt files; an exported file has its own arithmetic")
    loader = split_loader(config, dataset, backend)
    settings = EvaluationSettings(
        nms=NmsSettings(config.conf_thres, config.iou_thres, config.max_det, multi_label=True),
        single_cls=config.single_cls,
        precision=torch.float16 if config.half else torch.float32,
        halved_padding=config.as_yolov5,
    )
    detector: Detector = backend
    if config.as_yolov5 and isinstance(backend, TorchBackend):
        detector = HalfPrecisionDetector(backend.model)
    folder = new_run_directory(config.project, config.name, exist_ok=config.exist_ok)
    LOGGER.info("evaluating %s on the %s part of %s, %s", weights, config.task, dataset.file, describe_device(device))

    report_problems(folder, {config.task: loader.dataset.index})
    names = ("item",) * dataset.class_count if config.single_cls else backend.names
    results = CocoResults()
    observers = [BatchPictures(folder, names), results]
    if config.save_txt:
        observers.append(LabelFiles(folder / "labels", with_scores=config.save_conf))
    with explained_failures(config.batch_size, config.imgsz):
        report = evaluate(detector, loader, settings, device, observers=observers)

    LOGGER.info("%s\n%s", format_table(report, verbose=config.verbose), speed_line(report))
    write_metrics(folder / "metrics.json", report, weights, asdict(config))
    write_evaluation_plots(folder, report)
    if config.save_json:
        results.write(folder / f"{weights.stem}_predictions.json")
    LOGGER.info("results in %s", folder)
    return report


def split_loader(config: ValConfig, dataset: DatasetSpec, backend: DetectionBackend) -> DetectionLoader:
    """Batches of the part of the data set that ``--task`` names, in frames that the model takes."""
    sources: dict[str, tuple[Path, ...]] = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    if not sources[config.task]:
        raise UserError(f"{dataset.file}: --task {config.task}: the data set has no '{config.task}:' part")
    pictures = open_dataset(sources[config.task], dataset.names, title=config.task)
    imgsz = multiple_of_stride(config.imgsz, backend.stride)
    if imgsz != config.imgsz:
        LOGGER.warning("--imgsz %d is not a multiple of the stride %d: taking %d", config.imgsz, backend.stride, imgsz)
    if backend.frame is not None:
        imgsz = max(backend.frame)
    settings = LoaderSettings(config.batch_size, workers=config.workers)
    sort: SortKind = "quicksort" if config.as_yolov5 else "stable"
    return evaluation_loader(pictures, imgsz, settings, stride=backend.stride, frame=backend.frame, sort=sort)

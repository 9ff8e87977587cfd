"""``detect.py``'s work: a source of pictures through the detector, what was found written to a run folder."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from utils.config.dataset_yaml import find_dataset_yaml, read_dataset_yaml
from utils.config.run_config import DetectConfig, square_or_rectangle
from utils.config.weights_by_name import find_weights
from utils.geometry.letterbox import FrameSize, multiple_of_stride
from utils.inference.frame_sources import FrameSource, open_source
from utils.inference.model_backends import DetectionBackend, load_backend
from utils.inference.nms import NmsSettings
from utils.inference.predictor import Predictor, PredictorSettings
from utils.reporting.box_drawing import DrawingStyle
from utils.reporting.detection_output import DetectionOutput, OutputChoice
from utils.reporting.run_directory import new_run_directory
from utils.runtime.device import describe_device, select_device
from utils.runtime.failures import explained_failures
from utils.user_error import UsageError, UserError

LOGGER = logging.getLogger(__name__)

NAMED_CLASSES = 8  # in the last lines of the log, the most frequent ones


@dataclass(frozen=True, slots=True)
class DetectionSummary:
    """What a run found."""

    folder: Path
    frames: int
    objects: tuple[tuple[str, int], ...]  # class name and count, most frequent first
    skipped: tuple[str, ...]  # one line for each unreadable file
    milliseconds: float  # per frame: letterbox, network, suppression


def run_detection(config: DetectConfig) -> DetectionSummary:
    """Detect as ``config`` says; files go to a new run folder, which the last line of the log names.

    Raises:
        UserError: nothing to read in the source, unreadable weights, or class ids that the model does not have.
    """
    device = select_device(config.device)
    source = open_source(config.source, config.vid_stride)
    backend = load_backend(
        find_weights(config.weights), device, fallback_names=lambda: _names_of_data(config.data), dnn=config.dnn
    )
    _check_classes(config.classes, backend)
    nms = NmsSettings(
        config.conf_thres, config.iou_thres, config.max_det, agnostic=config.agnostic_nms, classes=config.classes
    )
    predictor = Predictor(backend, PredictorSettings(nms, _network_size(config.imgsz, backend)), device)
    folder = new_run_directory(config.project, config.name, exist_ok=config.exist_ok)
    LOGGER.info("detecting with %s on %s", config.weights, describe_device(device))
    choice = OutputChoice(
        pictures=not config.nosave,
        label_files=config.save_txt,
        scores_in_label_files=config.save_conf,
        crops=config.save_crop,
        style=DrawingStyle(line_width=config.line_thickness, names=not config.hide_labels, scores=not config.hide_conf),
    )
    with explained_failures(1, max(config.imgsz)), DetectionOutput(folder, predictor, choice) as output:
        summary = _detect_all(source, predictor, output, folder)
    if not summary.frames:
        raise UserError(f"{config.source}: none of {len(source.files)} files could be read")
    _log_summary(summary)
    return summary


def _detect_all(source: FrameSource, predictor: Predictor, output: DetectionOutput, folder: Path) -> DetectionSummary:
    found: Counter[str] = Counter()
    frames, seconds = 0, 0.0
    for frame in tqdm(
        source, total=source.expected_frames(), unit="frame", desc="detecting", disable=None, leave=False
    ):
        start = time.perf_counter()
        (detections,) = predictor([frame.image])
        seconds += time.perf_counter() - start
        frames += 1
        found.update(predictor.names[kind] for kind in detections.classes.tolist())
        output.write(frame, detections)
    return DetectionSummary(
        folder=folder,
        frames=frames,
        objects=tuple(found.most_common()),
        skipped=tuple(source.skipped),
        milliseconds=1e3 * seconds / max(frames, 1),
    )


def _log_summary(summary: DetectionSummary) -> None:
    named = [f"{count} {name}" for name, count in summary.objects[:NAMED_CLASSES]]
    rest = len(summary.objects) - len(named)
    objects = ", ".join([*named, f"objects of {rest} other classes"] if rest else named) or "no objects"
    LOGGER.info("%d frames, %.1f ms per frame: %s", summary.frames, summary.milliseconds, objects)
    if summary.skipped:
        LOGGER.warning("%d files or frames could not be read", len(summary.skipped))
    LOGGER.info("results in %s", summary.folder)


def _network_size(imgsz: tuple[int, ...], backend: DetectionBackend) -> FrameSize:
    """``--imgsz`` as multiples of the stride; a file of fixed size keeps its own and says so if it differs."""
    asked = FrameSize(*square_or_rectangle(imgsz))
    if backend.frame is not None:
        if asked != backend.frame:
            LOGGER.warning("the model file takes %dx%d px (height x width) only: --imgsz is not used", *backend.frame)
        return backend.frame
    size = FrameSize(*(multiple_of_stride(side, backend.stride) for side in asked))
    if size != asked:
        LOGGER.warning("--imgsz: taking %dx%d px, multiples of the stride %d", *size, backend.stride)
    return size


def _names_of_data(data: str) -> tuple[str, ...]:
    return read_dataset_yaml(find_dataset_yaml(data), check_files=False).names


def _check_classes(classes: tuple[int, ...] | None, backend: DetectionBackend) -> None:
    wrong = [kind for kind in classes or () if backend.names and kind >= len(backend.names)]
    if wrong:
        raise UsageError(f"--classes {wrong[0]}: the model has classes 0 to {len(backend.names) - 1}")

"""``classify/predict.py``'s work: images and what they show, most likely first, written to a folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.config.classify_flags import ClassifyPredictConfig
from utils.inference.classifier_backends import classify_images, open_classifier
from utils.inference.frame_sources import open_source
from utils.inference.frames import Frame
from utils.reporting.detection_files import write_image
from utils.reporting.output_names import OutputNames
from utils.reporting.run_directory import new_run_directory
from utils.runtime.atomic_files import write_text
from utils.runtime.console_log import Progress, counted
from utils.runtime.device import describe_device, measured_convolutions, select_device
from utils.runtime.failures import explained_failures
from utils.runtime.stop_signals import Stopped, stop_requests
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)
SMALLEST_SHOWN = 160  # pixels: smaller images are enlarged before text is written on them
LIKELIEST = 5  # classes that are named, as by YOLOv5


@dataclass(frozen=True, slots=True)
class PredictionSummary:
    """What a run said."""

    folder: Path
    best: tuple[tuple[Path, str, float], ...]  # file, likeliest class and its probability
    skipped: tuple[str, ...]  # one line for each unreadable file


def run_prediction(config: ClassifyPredictConfig) -> PredictionSummary:
    """Classify as ``config`` says; a line for each image, files in a new run folder.

    Raises:
        UserError: nothing to read in the source, or unreadable weights.
        Stopped: a signal ended the run; what was said until then is in the folder.
    """
    device = select_device(config.device)
    best: list[tuple[Path, str, float]] = []
    seconds = 0.0
    with (
        closing(open_source(config.source, config.vid_stride, recursive=config.recursive)) as source,
        stop_requests() as stop,
    ):
        backend, side = open_classifier(config, device)
        names = OutputNames(source.known)
        folder = new_run_directory(config.project, config.name, exist_ok=config.exist_ok, set_aside=("labels",))
        LOGGER.info("classifying with %s at %d px on %s", config.weights, side, describe_device(device))
        with (
            explained_failures(1, side),
            measured_convolutions(device, sizes_repeat=True),
            Progress(source.expected_frames(), "image", "classifying") as progress,
        ):
            for (frame,) in source.groups(1, lambda: stop.signal_number is not None):
                start = time.perf_counter()
                (prediction,) = classify_images(backend, [frame.image], side, device)
                seconds += time.perf_counter() - start
                likely = [(backend.names[index], share) for index, share in prediction.best(LIKELIEST)]
                LOGGER.info("%s: %s", frame.title, ", ".join(f"{name} {share:.2f}" for name, share in likely))
                best.append((frame.path, *likely[0]))
                _write(folder, names, frame, likely, config)
                progress.advance(1)
                if stop.signal_number is not None:
                    raise Stopped(
                        stop.signal_number, f"stopped after {counted(len(best), 'image')}; results in {folder}"
                    )
    if not best:
        raise UserError(f"{config.source}: none of {len(source.skipped)} files could be read")
    LOGGER.info("%s, %.1f ms per image", counted(len(best), "image"), 1e3 * seconds / len(best))
    LOGGER.info("results in %s", folder)
    return PredictionSummary(folder, tuple(best), tuple(source.skipped))


def _write(
    folder: Path, names: OutputNames, frame: Frame, likely: Sequence[tuple[str, float]], config: ClassifyPredictConfig
) -> None:
    if config.save_txt:
        (folder / "labels").mkdir(exist_ok=True)
        lines = [f"{share:.2f} {name}" for name, share in likely]
        write_text(folder / "labels" / f"{names.of(frame.path, frame.number)}.txt", "\n".join(lines) + "\n")
    if not config.nosave:
        write_image(folder / names.image_file(frame.path, frame.number), labelled(frame.image, likely))


def labelled(image: np.ndarray, likely: Sequence[tuple[str, float]]) -> np.ndarray:
    """A copy of the image (H, W, 3) uint8 RGB, small ones enlarged, with the likeliest classes in its corner."""
    factor = max(1, -(-SMALLEST_SHOWN // min(image.shape[:2])))
    shown = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    scale = max(min(shown.shape[:2]) / 600, 0.4)
    for number, (name, share) in enumerate(likely):
        text, place = f"{share:.2f} {name}", (6, round((number + 1) * 32 * scale))
        cv2.putText(shown, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(shown, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return shown

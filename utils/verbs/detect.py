"""``detect.py``'s work: a source of images through the detector, what was found written to a run folder.

Reading and fitting images, the network, and drawing and writing run at the same time in three threads, with a few
groups of images between them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from models.weights import best_thresholds, checkpoint_fields, load_model, stored_thresholds
from utils.config.dataset_file import class_names, dataset_content, find_dataset_yaml
from utils.config.detect_flags import DetectConfig
from utils.config.shared_flags import square_or_rectangle
from utils.config.weights_by_name import find_weights
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Detections
from utils.inference.counting import read_boundaries
from utils.inference.detector import OpenedDetector
from utils.inference.frame_sources import open_source
from utils.inference.frames import Frame, FrameSource
from utils.inference.model_files import open_detector
from utils.inference.nms import NmsSettings
from utils.inference.predictor import ImagePredictor, Prepared
from utils.inference.slicing import SlicedPredictor, SliceSettings
from utils.inference.torch_backend import FixedBatch
from utils.inference.tracking import Tracking, check_tracker
from utils.reporting.detection_output import FILES_OF_ONE_RUN, DetectionOutput, FoundInFrame, annotated_image
from utils.reporting.feature_maps import recorded_maps, write_maps
from utils.reporting.image_window import ImageWindow
from utils.reporting.run_directory import new_run_directory
from utils.reporting.tracking_files import count_lines
from utils.runtime.atomic_files import atomic_file
from utils.runtime.console_log import Progress, counted
from utils.runtime.device import describe_device, measured_convolutions, select_device
from utils.runtime.failures import explained_failures
from utils.runtime.reused_memory import reuse_freed_memory
from utils.runtime.stop_signals import Stopped, StopRequest, stop_requests
from utils.runtime.threads import Behind, ahead
from utils.user_error import UsageError, UserError

LOGGER = logging.getLogger(__name__)

NAMED_CLASSES = 8  # in the last lines of the log, the most frequent ones
GROUPS_AHEAD = 2  # groups of images that wait for the network


@dataclass(frozen=True, slots=True)
class DetectionSummary:
    """What a run found."""

    folder: Path
    frames: int
    unit: str  # what these are: image, or frame where videos or streams are among them
    objects: tuple[tuple[str, int], ...]  # class name and count, most frequent first
    skipped: tuple[str, ...]  # one line for each unreadable file or frame
    milliseconds: float  # per frame: network and suppression


def run_detection(config: DetectConfig) -> DetectionSummary:
    """Detect as ``config`` says; files go to a new run folder, which the last line of the log names.

    Raises:
        UserError: nothing to read in the source, unreadable weights, or class ids that the model does not have.
        Stopped: a signal ended a run over files; what was found until then is in the folder.
    """
    boundaries = read_boundaries(config.count_line, config.count_zone)
    if config.follows:
        check_tracker()
    device = select_device(config.device)
    reuse_freed_memory(device)
    with contextlib.closing(open_source(config.source, config.vid_stride, recursive=config.recursive)) as source:
        asked = FrameSize(*square_or_rectangle(config.imgsz))
        fixed = FixedBatch(config.batch_size, asked) if config.compile else None
        detector = open_detector(
            config.weights, config, device, lambda: _names_of_data(config.data), compiled_for=fixed
        )
        _check_flags(config, detector)
        nms = _suppression(config, detector.names)
        tracking = Tracking(nms, boundaries) if config.follows else None
        frame = detector.frame(asked)
        predictor = detector.predictor(
            tracking.candidates if tracking else nms, frame, _tiles(config), config.batch_size
        )
        folder = new_run_directory(config.project, config.name, exist_ok=config.exist_ok, set_aside=FILES_OF_ONE_RUN)
        LOGGER.info("detecting with %s on %s", " ".join(config.weights), describe_device(device))
        with (
            explained_failures(config.batch_size, max(config.imgsz)),
            measured_convolutions(device, sizes_repeat=config.slice is not None or all(source.known.values())),
            DetectionOutput(folder, config, source.known) as output,
            _stop_requests() as stop,
        ):
            run = _Run(config, source, predictor, tracking, output, stop)
            if config.visualize:
                run.special = _recording(detector, run)
            elif isinstance(predictor, SlicedPredictor):
                run.special = _counting_tiles(predictor, run)
            run.go()
        summary = run.summary()
    if not summary.frames and stop.signal_number is None:
        count = len(summary.skipped)
        raise UserError(f"{config.source}: {f'none of {count} files could be read' if count else 'names nothing'}")
    _log_summary(summary, count_lines(tracking.counts, detector.names) if tracking else [])
    if stop.signal_number is not None and not source.live:
        raise Stopped(stop.signal_number, f"stopped after {counted(summary.frames, summary.unit)}")
    if config.update:
        for name in config.weights:
            _strip_weights(find_weights(name))
    return summary


Detect = Callable[[list[tuple[Frame, Any]]], list[Detections]]


@dataclass
class _Run:
    """Frames on their way through the three threads, and what is counted on the way."""

    config: DetectConfig
    source: FrameSource
    predictor: ImagePredictor[Any]
    tracking: Tracking | None
    output: DetectionOutput
    stop: StopRequest
    special: Detect | None = None  # in place of the plain call of the predictor
    window: ImageWindow | None = None
    progress: Progress | None = None
    frames: int = 0
    seconds: float = 0.0
    found: Counter[str] = field(default_factory=Counter)
    unit: str = field(init=False)  # what the user would call what the source gives

    def __post_init__(self) -> None:
        self.unit = "frame" if self.source.live or any(self.source.known.values()) else "image"

    def go(self) -> None:
        """Detect in all frames of the source, or until the user stops it."""
        size = 1 if self.config.visualize else self.config.batch_size
        groups = _prepared(self.source, self.predictor, size, self._stopped)
        if not self.source.live:  # a live source reads in its own threads; frames that wait here would grow old
            groups = ahead(groups, GROUPS_AHEAD, self._stopped)
        self.window = ImageWindow() if self.config.view_img else None
        with (
            contextlib.closing(groups),
            Behind(self.output.write, GROUPS_AHEAD * size) as writer,
            Progress(self.source.expected_frames(), self.unit, "detecting") as self.progress,
        ):
            for group in groups:
                for item in self._detect(group):
                    self._show(item)
                    writer.submit(item)
                self.progress.advance(len(group))
                if self._stopped():
                    break
        if self.window is not None:
            self.window.close()

    def summary(self) -> DetectionSummary:
        return DetectionSummary(
            folder=self.output.folder,
            frames=self.frames,
            unit=self.unit,
            objects=tuple(self.found.most_common()),
            skipped=tuple(self.source.skipped),
            milliseconds=1e3 * self.seconds / max(self.frames, 1),
        )

    def _detect(self, group: list[tuple[Frame, Any]]) -> list[FoundInFrame]:
        start = time.perf_counter()
        found = self.special(group) if self.special else self.predictor.detect([image for _, image in group])
        seconds = time.perf_counter() - start
        self.seconds += seconds
        items = [self._followed(frame, detections) for (frame, _), detections in zip(group, found, strict=True)]
        for item in items:
            self.frames += 1
            own = Counter(self.predictor.names[kind] for kind in item.detections.classes.tolist())
            self.found.update(own)
            if self.config.verbose:
                objects, milliseconds = _objects(own.most_common()), 1e3 * seconds / len(group)
                LOGGER.info("%s: %s: %s, %.1f ms", self._place(), item.frame.title, objects, milliseconds)
        return items

    def _followed(self, frame: Frame, detections: Detections) -> FoundInFrame:
        """What the output takes: what was found, or, where objects are followed, which of them are where."""
        if self.tracking is None:
            return FoundInFrame(frame, detections, self.predictor.names)
        tracked = self.tracking.follow(frame, detections)
        return FoundInFrame(frame, tracked.detections, self.predictor.names, tracked)

    def _place(self) -> str:
        """``image 3 of 128``."""
        assert self.progress is not None
        total = self.progress.total
        return f"{self.unit} {self.frames}{f' of {total}' if total else ''}"

    def _show(self, item: FoundInFrame) -> None:
        if self.window is not None:
            self.window.show(item.frame.path.name, annotated_image(item, self.config))

    def _stopped(self) -> bool:
        return self.stop.signal_number is not None or (self.window is not None and self.window.closed)


def _prepared(
    source: FrameSource, predictor: ImagePredictor[Prepared], size: int, stopped: Callable[[], bool]
) -> Generator[list[tuple[Frame, Prepared]]]:
    for group in source.groups(size, stopped):
        yield [(frame, predictor.prepare(frame.image)) for frame in group]


def _tiles(config: DetectConfig) -> SliceSettings | None:
    """How images are cut; None for whole ones."""
    return None if config.slice is None else SliceSettings(config.slice, config.slice_overlap, config.slice_merge)


def _recording(detector: OpenedDetector, run: _Run) -> Detect:
    """Detection that writes the feature maps of each image to ``<its name>_features``."""
    (network,) = detector.torch_backends

    def detect(group: list[tuple[Frame, Any]]) -> list[Detections]:
        with recorded_maps(network.model) as maps:
            found = run.predictor.detect([image for _, image in group])
        for frame, _ in group:
            write_maps(run.output.folder / f"{run.output.names.of(frame.path, frame.number)}_features", maps)
        return found

    return detect


def _counting_tiles(predictor: SlicedPredictor, run: _Run) -> Detect:
    """Detection that shows beside the bar how many tiles are done: a large image may take minutes."""

    def tell(done: int, total: int) -> None:
        if run.progress is not None:
            run.progress.advance(0, note=f"{done} of {total} tiles")

    return lambda group: predictor.detect([image for _, image in group], tell)


@contextlib.contextmanager
def _stop_requests() -> Iterator[StopRequest]:
    """Signals as requests; outside the main thread, where Python takes no handlers, they are not caught."""
    if threading.current_thread() is threading.main_thread():
        with stop_requests() as request:
            yield request
    else:
        yield StopRequest()


def _log_summary(summary: DetectionSummary, counts: Sequence[str]) -> None:
    count, unit = counted(summary.frames, summary.unit), summary.unit
    LOGGER.info("%s, %.1f ms per %s: %s", count, summary.milliseconds, unit, _objects(summary.objects))
    if summary.skipped:
        number = len(summary.skipped)
        some = f"{number} {'files or frames' if number > 1 else 'file or frame'}"
        LOGGER.warning("%s could not be read", counted(number, unit) if unit == "image" else some)
    for line in counts:
        LOGGER.info("%s", line)
    LOGGER.info("results in %s", summary.folder)


def _objects(counts: Sequence[tuple[str, int]]) -> str:
    """``4 car, 1 boat``; of many classes the most frequent ones."""
    named = [f"{count} {name}" for name, count in counts[:NAMED_CLASSES]]
    rest = len(counts) - len(named)
    return ", ".join([*named, f"objects of {rest} other classes"] if rest else named) or "no objects"


def _names_of_data(data: str) -> tuple[str, ...]:
    file = find_dataset_yaml(data)
    return class_names(file, dataset_content(file))


def _suppression(config: DetectConfig, names: tuple[str, ...]) -> NmsSettings:
    """Which detections are shown and written."""
    thresholds = _best_thresholds(config, names) if config.conf_thres == "auto" else ()
    return NmsSettings(
        min(thresholds) if config.conf_thres == "auto" else config.conf_thres,
        config.iou_thres,
        config.max_det,
        agnostic=config.agnostic_nms,
        classes=config.classes,
        class_thres=thresholds,
    )


def _best_thresholds(config: DetectConfig, names: tuple[str, ...]) -> tuple[float, ...]:
    """Those of the one file, said in the log."""
    if len(config.weights) > 1:
        raise UsageError(f"--conf auto --weights {' '.join(config.weights)}: takes the thresholds of one file")
    thresholds = best_thresholds(find_weights(config.weights[0]))
    named = [f"{name} {own:.3f}" for name, own in zip(names, thresholds, strict=True)]
    shown = [f"{thresholds[0]:.3f}"] if len(set(thresholds)) == 1 else named
    LOGGER.info("--conf auto: %s", ", ".join(shown))
    return thresholds


def _check_flags(config: DetectConfig, detector: OpenedDetector) -> None:
    wrong = [kind for kind in config.classes or () if detector.names and kind >= len(detector.names)]
    if wrong:
        raise UsageError(f"--classes {wrong[0]}: the model has classes 0 to {len(detector.names) - 1}")
    networks = detector.torch_backends
    if config.visualize and not networks:
        raise UsageError(f"--visualize --weights {config.weights[0]}: only .pt files show their layers")
    if config.update and len(networks) != len(config.weights):
        raise UsageError(f"--update --weights {' '.join(config.weights)}: only .pt files can be written anew")


def _strip_weights(path: Path) -> None:
    """Replace the file by this program's checkpoint of its model: the averaged weights, no optimizer, no records.

    Raises:
        UserError: no readable detector; the file stays as it was.
        OSError: it cannot be written; the file stays as it was.
    """
    before = path.stat().st_size
    content = checkpoint_fields(load_model(path)) | stored_thresholds(path)
    with atomic_file(path) as file:
        torch.save(content, file)
    after = path.stat().st_size
    LOGGER.info("%s: written anew, weights only: %.1f MB, was %.1f MB", path, after / 1e6, before / 1e6)

"""Detections of a run written beside each other: annotated images and videos, label files, crops, tables."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from utils.config.detect_flags import DetectConfig
from utils.geometry.records import Detections
from utils.inference.frames import Frame
from utils.reporting.box_drawing import DrawingStyle, draw_detections
from utils.reporting.detection_files import write_crops, write_image, write_label_file
from utils.reporting.detection_tables import CocoDataset, CocoResultsTable, CsvTable
from utils.reporting.video_output import VideoOutput
from utils.user_error import UserError

WRITABLE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class FoundInFrame:
    """A frame, what was found in it, and what the classes are called."""

    frame: Frame
    detections: Detections  # in pixels of the frame
    names: Sequence[str]


def drawing_style(config: DetectConfig) -> DrawingStyle:
    """How ``config`` wants boxes drawn."""
    return DrawingStyle(config.line_thickness, names=not config.hide_labels, scores=not config.hide_conf)


class DetectionOutput:
    """The files of one run folder; what is open is finished at the end of the ``with`` block."""

    def __init__(self, folder: Path, config: DetectConfig) -> None:
        self.folder = folder
        self.config = config
        self._style = drawing_style(config)
        self._stems: dict[Path, str] = {}
        self._naming = threading.Lock()
        self._videos: dict[Path, VideoOutput] = {}
        self._last_video: Path | None = None
        self._written_videos: set[Path] = set()
        self._csv = CsvTable(folder / "predictions.csv") if config.save_csv else None
        self._results = CocoResultsTable(folder / "predictions.json") if config.save_json else None
        self._dataset = CocoDataset(folder / "coco.json") if config.save_coco else None

    def __enter__(self) -> DetectionOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for output in (*self._videos.values(), self._csv, self._results, self._dataset):
            if output is not None:
                output.close()

    def write(self, found: FoundInFrame) -> None:
        """Write the detections of one frame.

        Raises:
            UserError: a file cannot be written.
        """
        frame, detections = found.frame, found.detections
        stem = self.stem(frame.path)
        numbered = stem if frame.video is None else f"{stem}_{frame.index}"
        try:
            if self.config.save_txt:
                self._write_labels(numbered, detections)
            if self.config.save_crop:
                write_crops(self.folder / "crops", frame.image, detections, found.names, stem)
            if self._csv:
                self._csv.write(frame, detections, found.names)
            if self._results:
                self._results.write(numbered, detections)
            if self._dataset:
                self._dataset.write(frame, detections, found.names)
            if not self.config.nosave:
                self._write_annotated(frame, draw_detections(frame.image, detections, found.names, self._style), stem)
        except OSError as error:
            raise UserError(f"{error.filename or self.folder}: cannot be written: {error.strerror or error}") from error

    def stem(self, path: Path) -> str:
        """The name of the source's files, its own stem unless another source of this run has it already."""
        with self._naming:
            if path not in self._stems:
                taken = set(self._stems.values())
                stem, number = path.stem, 2
                while stem in taken:
                    stem, number = f"{path.stem}{number}", number + 1
                self._stems[path] = stem
            return self._stems[path]

    def _write_labels(self, name: str, detections: Detections) -> None:
        (self.folder / "labels").mkdir(exist_ok=True)
        write_label_file(
            self.folder / "labels" / f"{name}.txt",
            detections,
            with_scores=self.config.save_conf,
            corners=self.config.save_format == 1,
        )

    def _write_annotated(self, frame: Frame, image: np.ndarray, stem: str) -> None:
        if frame.video is not None:
            self._video(frame, stem).write(image, frame.seconds)
            return
        suffix = frame.path.suffix if frame.path.suffix.lower() in WRITABLE_SUFFIXES else ".jpg"
        write_image(self.folder / f"{stem}{suffix}", image)

    def _video(self, frame: Frame, stem: str) -> VideoOutput:
        """The open video that takes the frame; a source whose size changes goes on in a further file."""
        last, self._last_video = self._last_video, frame.path
        if frame.seconds is None and last is not None and last != frame.path and last in self._videos:
            self._videos.pop(last).close()  # files come one after the other
        current = self._videos.get(frame.path)
        if current is not None and current.size == frame.image.shape[:2]:
            return current
        if current is not None:
            self._videos.pop(frame.path).close()
        video = VideoOutput(self._free_video_path(stem), frame, self.config.vid_stride)
        self._videos[frame.path] = video
        return video

    def _free_video_path(self, stem: str) -> Path:
        path, number = self.folder / f"{stem}.mp4", 2
        while path in self._written_videos:
            path, number = self.folder / f"{stem}_part{number}.mp4", number + 1
        self._written_videos.add(path)
        return path

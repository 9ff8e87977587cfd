"""Detections of a run written beside each other: annotated pictures and videos, label files, crops."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from utils.geometry.records import Detections
from utils.inference.frame_sources import Frame, VideoFacts
from utils.inference.predictor import Predictor
from utils.reporting.box_drawing import DrawingStyle, draw_detections
from utils.reporting.detection_files import write_crops, write_label_file, write_picture
from utils.user_error import UserError

WRITABLE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
USUAL_FRAME_RATE = 30.0  # frames per second, for a video whose header has none


@dataclass(frozen=True, slots=True)
class OutputChoice:
    """What is written for each frame."""

    pictures: bool  # annotated pictures and videos
    label_files: bool  # YOLO rows in labels/
    scores_in_label_files: bool
    crops: bool  # a picture of each object in crops/<class>/
    style: DrawingStyle


class DetectionOutput:
    """The files of one run folder; closes the video that is being written at the end of the ``with`` block."""

    def __init__(self, folder: Path, predictor: Predictor, choice: OutputChoice) -> None:
        self.folder = folder
        self.predictor = predictor  # asked for names late: some model files tell their classes at the first picture
        self.choice = choice
        self._stems: dict[Path, str] = {}
        self._video: cv2.VideoWriter | None = None
        self._video_source: Path | None = None

    def __enter__(self) -> DetectionOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_video()

    def write(self, frame: Frame, detections: Detections) -> None:
        """Write the detections of one frame, boxes in its pixels.

        Raises:
            UserError: a file cannot be written.
        """
        stem = self._stem(frame.path)
        numbered = stem if frame.video is None else f"{stem}_{frame.index}"
        try:
            if self.choice.label_files:
                (self.folder / "labels").mkdir(exist_ok=True)
                path = self.folder / "labels" / f"{numbered}.txt"
                write_label_file(path, detections, with_scores=self.choice.scores_in_label_files)
            if self.choice.crops:
                write_crops(self.folder / "crops", frame.image, detections, self.predictor.names, stem)
            if self.choice.pictures:
                image = draw_detections(frame.image, detections, self.predictor.names, self.choice.style)
                self._write_annotated(frame, image, stem)
        except OSError as error:
            raise UserError(f"{error.filename or self.folder}: cannot be written: {error.strerror or error}") from error

    def _write_annotated(self, frame: Frame, image: np.ndarray, stem: str) -> None:
        if frame.video is not None:
            self._write_video_frame(frame.path, frame.video, image, stem)
            return
        suffix = frame.path.suffix if frame.path.suffix.lower() in WRITABLE_SUFFIXES else ".jpg"
        write_picture(self.folder / f"{stem}{suffix}", image)

    def _write_video_frame(self, source: Path, video: VideoFacts, image: np.ndarray, stem: str) -> None:
        if self._video is None or self._video_source != source:
            self._close_video()
            path = self.folder / f"{stem}.mp4"
            rate = video.frames_per_second if video.frames_per_second > 0 else USUAL_FRAME_RATE
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._video = cv2.VideoWriter(str(path), codec, rate, (image.shape[1], image.shape[0]))
            self._video_source = source
            if not self._video.isOpened():
                raise UserError(f"{path}: this OpenCV cannot write MP4 video")
        self._video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def _close_video(self) -> None:
        if self._video is not None:
            self._video.release()
            self._video = None

    def _stem(self, path: Path) -> str:
        """The name of the source's files, its own stem unless another source of this run has it already."""
        if path not in self._stems:
            taken = set(self._stems.values())
            stem, number = path.stem, 2
            while stem in taken:
                stem, number = f"{path.stem}{number}", number + 1
            self._stems[path] = stem
        return self._stems[path]

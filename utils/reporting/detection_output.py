"""Detections of a run written beside each other: annotated images and videos, label files, crops, tables.

The tables (CSV, COCO results, a COCO data set) are written as detections come.
"""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from utils.config.detect_flags import DetectConfig
from utils.geometry.records import Detections
from utils.inference.frames import Frame
from utils.inference.tracking import TrackedFrame
from utils.reporting.box_drawing import DrawingStyle, draw_detections
from utils.reporting.detection_files import CropFiles, coco_results, write_image, write_label_file
from utils.reporting.output_names import OutputNames, PartFiles
from utils.reporting.tracking_files import CountFiles, MotFiles, draw_tracks
from utils.user_error import UserError

if TYPE_CHECKING:
    from utils.reporting.video_output import VideoOutput

# What tells of a run's detections, and would pass for a later run's that finds other ones or none.
FILES_OF_ONE_RUN = (
    *("labels", "predictions.csv", "predictions.json", "coco.json"),
    *("mot", "crossings.csv", "counts.csv", "*_counts.png"),
)
CSV_COLUMNS = ("Image Name", "Prediction", "Confidence")  # YOLOv5's
ID_COLUMNS = ("Frame", "Track ID")


@dataclass(frozen=True, slots=True)
class FoundInFrame:
    """A frame, what was found in it, and what the classes are called."""

    frame: Frame
    detections: Detections  # in pixels of the frame
    names: Sequence[str]
    tracked: TrackedFrame | None = None  # where objects are followed; ``detections`` are its


def drawing_style(config: DetectConfig, frame: Frame) -> DrawingStyle:
    """How ``config`` wants the boxes of a frame drawn."""
    tags = "none" if config.hide_labels else config.tags
    return DrawingStyle(config.line_thickness, tags, scores=not config.hide_conf, steady=frame.video is not None)


def annotated_image(found: FoundInFrame, config: DetectConfig) -> np.ndarray:
    """A copy of the frame's image with all that ``config`` wants drawn on it."""
    image = found.frame.image if found.tracked is None else draw_tracks(found.frame.image, found.tracked)
    return draw_detections(image, found.detections, found.names, drawing_style(config, found.frame))


class DetectionOutput:
    """The files of one run folder; what is open is finished at the end of the ``with`` block."""

    def __init__(self, folder: Path, config: DetectConfig, known: Mapping[Path, bool]) -> None:
        """``known``: the sources known beforehand, and whether each is a video."""
        self.folder = folder
        self.config = config
        self.names = OutputNames(known)
        self._crops = CropFiles(folder / "crops")
        self._videos: dict[Path, VideoOutput] = {}
        self._last_video: Path | None = None
        self._video_files = PartFiles(folder, ".mp4")
        self._csv = CsvTable(folder / "predictions.csv", with_ids=config.follows) if config.save_csv else None
        self._results = CocoResultsTable(folder / "predictions.json") if config.save_json else None
        self._dataset = CocoDataset(folder / "coco.json") if config.save_coco else None
        self._mot = MotFiles(folder / "mot", self.names) if config.save_mot else None
        self._counts = CountFiles(folder, self.names) if config.counts else None

    def __enter__(self) -> DetectionOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as closing:  # one that cannot be finished keeps none of the others from it
            for output in (*self._videos.values(), self._csv, self._results, self._dataset, self._counts):
                if output is not None:
                    closing.callback(output.close)

    def write(self, found: FoundInFrame) -> None:
        """Write the detections of one frame.

        Raises:
            UserError: a file cannot be written.
        """
        frame, detections = found.frame, found.detections
        name, title = self.names.of(frame.path, frame.number), self.names.title(frame.path)
        try:
            if self.config.save_txt:
                self._write_labels(name, detections)
            if self.config.save_crop:
                self._crops.write(frame.image, detections, found.names, self.names.stem(frame.path))
            if self._csv:
                self._csv.write(title, detections, found.names, frame.number)
            if self._results:
                self._results.write(self.names.image_id(frame.path, frame.number), detections)
            if self._dataset:
                self._dataset.write(title, frame.number, detections, found.names)
            if self._mot and found.tracked:
                self._mot.write(found.tracked)
            if self._counts and found.tracked:
                self._counts.write(found.tracked, found.names)
            if not self.config.nosave:
                self._write_annotated(frame, annotated_image(found, self.config))
        except OSError as error:
            raise UserError(f"{error.filename or self.folder}: cannot be written: {error.strerror or error}") from error

    def _write_labels(self, name: str, detections: Detections) -> None:
        (self.folder / "labels").mkdir(exist_ok=True)
        write_label_file(
            self.folder / "labels" / f"{name}.txt",
            detections,
            with_scores=self.config.save_conf,
            corners=self.config.save_format == 1,
        )

    def _write_annotated(self, frame: Frame, image: np.ndarray) -> None:
        if frame.video is None:
            write_image(self.folder / self.names.image_file(frame.path), image)
        else:
            self._video(frame).write(image, frame)

    def _video(self, frame: Frame) -> VideoOutput:
        """The open video that takes the frame; a source of a new size, or begun anew, goes on in a further file."""
        last, self._last_video = self._last_video, frame.path
        if frame.seconds is None and last is not None and last != frame.path and last in self._videos:
            self._videos.pop(last).close()  # files come one after the other
        current = self._videos.get(frame.path)
        if current is not None and current.goes_on_with(frame):
            return current
        if current is not None:
            self._videos.pop(frame.path).close()
        try:
            from utils.reporting.video_output import VideoOutput  # images need no PyAV
        except ModuleNotFoundError as error:
            raise UserError(f"{frame.path}: annotated video needs PyAV (pip install av), or --nosave") from error
        video = VideoOutput(self._video_files.free(self.names.stem(frame.path)), frame, self.config.vid_stride)
        self._videos[frame.path] = video
        return video


class JsonArray:
    """A JSON array that grows in a file beside its place and is moved there when it is finished."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unfinished = path.with_name(path.name + ".part")
        self._file = self._unfinished.open("w", encoding="utf-8")
        self._file.write("[")
        self._empty = True

    def append(self, entry: dict[str, object]) -> None:
        self._file.write(("" if self._empty else ",") + json.dumps(entry, separators=(",", ":")))
        self._empty = False

    def close(self) -> None:
        self._file.write("]")
        self._file.close()
        self._unfinished.replace(self.path)


class CsvTable:
    """``predictions.csv``: one row per detection, with YOLOv5's columns, then the frame and id of followed objects."""

    def __init__(self, path: Path, *, with_ids: bool = False) -> None:
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(CSV_COLUMNS + (ID_COLUMNS if with_ids else ()))

    def write(self, title: str, detections: Detections, names: Sequence[str], number: int | None = None) -> None:
        """``title``: what the image or video is called; ``number``: of the frame of a video."""
        ids = [()] * len(detections) if detections.ids is None else [(number, own) for own in detections.ids.tolist()]
        for kind, score, own in zip(detections.classes.tolist(), detections.scores.tolist(), ids, strict=True):
            self._rows.writerow((title, names[kind], f"{score:.2f}", *own))

    def close(self) -> None:
        self._file.close()


class CocoResultsTable:
    """``predictions.json``: COCO results, category ids being class ids."""

    def __init__(self, path: Path) -> None:
        self._entries = JsonArray(path)

    def write(self, image_id: int | str, detections: Detections) -> None:
        for entry in coco_results(detections, image_id):
            self._entries.append(entry)

    def close(self) -> None:
        self._entries.close()


class CocoDataset:
    """``coco.json``: images, detections as annotations with their ``score``, categories; class ids count from 0."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._images = JsonArray(path.with_name(path.name + ".images"))
        self._annotations = JsonArray(path.with_name(path.name + ".annotations"))
        self._names: Sequence[str] = ()
        self._image = self._annotation = 0

    def write(self, title: str, number: int | None, detections: Detections, names: Sequence[str]) -> None:
        """``title``: what the image or video is called; ``number``: of the frame of a video."""
        self._names = names
        self._image += 1
        height, width = detections.size
        image: dict[str, object] = {"id": self._image, "file_name": title, "width": width, "height": height}
        if number is not None:
            image["frame"] = number
        self._images.append(image)
        sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
        areas = sides.double().prod(dim=1).tolist()
        for entry, area in zip(coco_results(detections, self._image), areas, strict=True):
            self._annotation += 1
            self._annotations.append({"id": self._annotation, **entry, "area": round(area, 3), "iscrowd": 0})

    def close(self) -> None:
        """Join the parts."""
        categories = [{"id": number, "name": name} for number, name in enumerate(self._names)]
        unfinished = self._path.with_name(self._path.name + ".part")
        with unfinished.open("w", encoding="utf-8") as whole:
            whole.write("{")
            for key, array in (("images", self._images), ("annotations", self._annotations)):
                array.close()
                whole.write(f'"{key}":')
                with array.path.open(encoding="utf-8") as part:
                    shutil.copyfileobj(part, whole)
                array.path.unlink()
                whole.write(",")
            whole.write(f'"categories":{json.dumps(categories)}}}')
        unfinished.replace(self._path)

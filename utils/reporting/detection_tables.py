"""Detections of a whole run in one file, written as they come: CSV, COCO results, a COCO data set."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from utils.geometry.records import Detections
from utils.inference.frames import Frame
from utils.reporting.detection_files import coco_results

CSV_COLUMNS = ("Image Name", "Prediction", "Confidence")  # YOLOv5's


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
    """``predictions.csv``: one row per detection, with YOLOv5's columns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(CSV_COLUMNS)

    def write(self, frame: Frame, detections: Detections, names: Sequence[str]) -> None:
        for kind, score in zip(detections.classes.tolist(), detections.scores.tolist(), strict=True):
            self._rows.writerow((frame.path.name, names[kind], f"{score:.2f}"))

    def close(self) -> None:
        self._file.close()


class CocoResultsTable:
    """``predictions.json``: COCO results, category ids being class ids."""

    def __init__(self, path: Path) -> None:
        self._entries = JsonArray(path)

    def write(self, name: str, detections: Detections) -> None:
        """``name``: of the image, without extension; a number becomes the image id as a number."""
        for entry in coco_results(detections, int(name) if name.isdecimal() else name):
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

    def write(self, frame: Frame, detections: Detections, names: Sequence[str]) -> None:
        self._names = names
        self._image += 1
        height, width = detections.size
        image: dict[str, object] = {"id": self._image, "file_name": frame.path.name, "width": width, "height": height}
        if frame.video is not None:
            image["frame"] = frame.index
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

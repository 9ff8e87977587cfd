"""Detections as files: YOLO label rows, COCO results, one image per object."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.geometry.boxes import clip_boxes, xyxy_to_cxcywh, xyxy_to_xywh
from utils.geometry.records import Detections
from utils.runtime.atomic_files import write_text

CROP_GAIN = 1.02  # a crop is the box enlarged by this factor ...
CROP_MARGIN = 10  # ... and by so many pixels in width and height


def label_rows(detections: Detections, *, with_scores: bool, corners: bool = False) -> list[str]:
    """Rows ``class cx cy w h [score] [id]``, coordinates as parts of the image's width and height, six digits.

    Ids are those of objects that are followed, at the end as ultralytics has them. With ``corners`` the rows are
    ``class x1 y1 x2 y2 [score] [id]``, as parts too: YOLOv5's ``--save-format 1``.
    """
    width, height = detections.size.width, detections.size.height
    pixels = detections.boxes.cpu().numpy().astype(np.float64)
    boxes = (pixels if corners else xyxy_to_cxcywh(pixels)) / (width, height, width, height)
    columns = [detections.classes.cpu().numpy()[:, None], boxes]
    if with_scores:
        columns.append(detections.scores.cpu().numpy().astype(np.float64)[:, None])
    rows = [" ".join(f"{number:g}" for number in row) for row in np.concatenate(columns, axis=1).tolist()]
    if detections.ids is None:
        return rows
    return [f"{row} {number}" for row, number in zip(rows, detections.ids.tolist(), strict=True)]


def write_label_file(path: Path, detections: Detections, *, with_scores: bool, corners: bool = False) -> None:
    """Write the rows of one image; like YOLOv5, no file for an image in which nothing was found."""
    if len(detections):
        rows = label_rows(detections, with_scores=with_scores, corners=corners)
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def coco_results(
    detections: Detections, image: int | str, category_ids: Sequence[int] | None = None
) -> list[dict[str, object]]:
    """Entries of a COCO results file for one image.

    Args:
        detections: boxes in source pixels.
        image: the image's id.
        category_ids: COCO's id of each class; the class index where not given.

    Returns:
        ``image_id, category_id, bbox (x y w h), score``, pixels rounded to 3 decimals and scores to 5; ``track_id``
        of objects that are followed.
    """
    boxes = xyxy_to_xywh(detections.boxes.cpu().numpy().astype(np.float64)).round(3).tolist()
    rows = zip(detections.classes.tolist(), boxes, detections.scores.tolist(), strict=True)
    entries: list[dict[str, object]] = [
        {
            "image_id": image,
            "category_id": kind if category_ids is None else category_ids[kind],
            "bbox": box,
            "score": round(score, 5),
        }
        for kind, box, score in rows
    ]
    if detections.ids is not None:
        for entry, number in zip(entries, detections.ids.tolist(), strict=True):
            entry["track_id"] = number
    return entries


def write_coco_results(path: Path, entries: Sequence[dict[str, object]]) -> None:
    """Write a COCO results file whole."""
    write_text(path, compact_json(entries))


def compact_json(entries: Sequence[dict[str, object]]) -> str:
    """Results as JSON without blanks, of which a million entries would have many."""
    return json.dumps(list(entries), separators=(",", ":"))


class CropFiles:
    """Detections cut out, ``folder/<class>/<stem>.jpg``, ``<stem>2.jpg``, ...; files that are there are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers: dict[Path, int] = {}  # the next of each class and stem; trying all would be quadratic

    def write(self, image: np.ndarray, detections: Detections, names: Sequence[str], stem: str) -> None:
        """Write every detection of ``image`` (H, W, 3) RGB, boxes in its pixels; one outside of it gives no file."""
        windows = crop_windows(image, detections)
        for kind, (x1, y1, x2, y2) in zip(detections.classes.tolist(), windows, strict=True):
            if x1 < x2 and y1 < y2:
                self.write_one(names[kind], stem, image[y1:y2, x1:x2])

    def write_one(self, name: str, stem: str, crop: np.ndarray) -> None:
        """Write one crop (H, W, 3) RGB of class ``name``."""
        folder = self.folder / _folder_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        number = self._numbers.get(folder / stem, 1)
        while (path := folder / f"{stem}{number if number > 1 else ''}.jpg").exists():
            number += 1
        self._numbers[folder / stem] = number + 1
        write_image(path, crop)


def crop_windows(image: np.ndarray, detections: Detections) -> list[tuple[int, int, int, int]]:
    """Windows ``x1 y1 x2 y2`` of ``image`` that show each detection with a small margin."""
    centres = xyxy_to_cxcywh(detections.boxes.cpu().numpy())
    sizes = centres[:, 2:] * CROP_GAIN + CROP_MARGIN
    corners = np.concatenate((centres[:, :2] - sizes / 2, centres[:, :2] + sizes / 2), axis=1)
    clipped = clip_boxes(corners, *image.shape[:2]).astype(int)
    return [(int(x1), int(y1), int(x2), int(y2)) for x1, y1, x2, y2 in clipped]


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image (H, W, 3) uint8 RGB in the format that the name's extension says.

    Raises:
        OSError: it cannot be written there.
    """
    done, coded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError(f"{path}: cannot be coded as {path.suffix}")
    path.write_bytes(coded.tobytes())


def _folder_name(name: str) -> str:
    """A class name as one folder: what means something in a path becomes an underscore."""
    return re.sub(r"[/\\:\0]", "_", name).strip(". ") or "_"

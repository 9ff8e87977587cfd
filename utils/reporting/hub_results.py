"""What a detector out of ``torch.hub`` gives: boxes of several images in the forms that YOLOv5's users know."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from utils.config.detect_flags import TAGS
from utils.geometry.boxes import xyxy_to_cxcywh
from utils.geometry.records import Detections
from utils.inference.image_inputs import NamedImage
from utils.reporting.box_drawing import DrawingStyle, draw_detections
from utils.reporting.detection_files import CropFiles, crop_windows, write_image
from utils.reporting.image_window import has_display
from utils.reporting.output_names import FreeNames
from utils.reporting.run_directory import new_run_directory

LOGGER = logging.getLogger(__name__)

CORNERS = ("xmin", "ymin", "xmax", "ymax")
CENTRES = ("xcenter", "ycenter", "width", "height")
FURTHER = ("confidence", "class", "name")


@dataclass(frozen=True, slots=True)
class CallTimes:
    """Milliseconds per image of one call, and the shape (B, 3, H, W) of its largest batch."""

    preparing: float
    network: float
    suppressing: float
    shape: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ResultFrames:
    """Detections as data frames, one per image; see ``HubResults``."""

    xyxy: list[pd.DataFrame]
    xyxyn: list[pd.DataFrame]
    xywh: list[pd.DataFrame]
    xywhn: list[pd.DataFrame]


class HubResults:
    """Detections in n images, as lists with one entry per image.

    ``xyxy`` and ``xywh``: tensors (N, 6) in pixels of the image, corners or centre and size, then score and class;
    ``xyxyn`` and ``xywhn``: the same as parts of its width and height. ``ims``: images (H, W, 3) uint8 RGB, drawn on
    after ``render``. ``names``: class names by id. ``files``: a file name for each image. ``t``: milliseconds per image
    of preparing it, the network and suppression.
    """

    def __init__(
        self,
        images: Sequence[NamedImage],
        detections: Sequence[Detections],
        names: Mapping[int, str],
        times: CallTimes,
    ) -> None:
        self.detections = list(detections)
        self.names = dict(names)
        self.times = times
        self.files = [image.name for image in images]
        self.ims = [image.pixels for image in images]
        self._images = list(images)
        self.pred = self.xyxy = [_with_scores(each, each.boxes) for each in detections]
        self.xywh = [_with_scores(each, xyxy_to_cxcywh(each.boxes)) for each in detections]
        self.xyxyn = [_as_parts(rows, each) for rows, each in zip(self.xyxy, detections, strict=True)]
        self.xywhn = [_as_parts(rows, each) for rows, each in zip(self.xywh, detections, strict=True)]
        self.n = len(self.detections)
        self.t = (times.preparing, times.network, times.suppressing)
        self.s = times.shape

    def __len__(self) -> int:
        return self.n

    def __str__(self) -> str:
        """A line for each image, and one of times."""
        lines = []
        for number, each in enumerate(self.detections, start=1):
            counts = Counter(each.classes.tolist())
            found = ", ".join(
                f"{count} {self.names[kind]}{'s' * (count > 1)}" for kind, count in sorted(counts.items())
            )
            lines.append(f"image {number}/{self.n}: {each.size.height}x{each.size.width} {found or '(no detections)'}")
        speed = f"{self.t[0]:.1f}ms pre-process, {self.t[1]:.1f}ms inference, {self.t[2]:.1f}ms NMS"
        return "\n".join([*lines, f"Speed: {speed} per image at shape {self.s}"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}:\n{self}"

    def print(self) -> None:
        """Say what was found on standard output."""
        print(self)

    def pandas(self) -> ResultFrames:
        """The same four forms as data frames, with a ``name`` column."""
        return ResultFrames(
            xyxy=[self._frame(rows, CORNERS) for rows in self.xyxy],
            xyxyn=[self._frame(rows, CORNERS) for rows in self.xyxyn],
            xywh=[self._frame(rows, CENTRES) for rows in self.xywh],
            xywhn=[self._frame(rows, CENTRES) for rows in self.xywhn],
        )

    def tolist(self) -> list[HubResults]:
        """Results of one image each."""
        return [
            HubResults([image], [each], self.names, self.times)
            for image, each in zip(self._images, self.detections, strict=True)
        ]

    def render(self, labels: bool = True, tags: str = "auto") -> list[np.ndarray]:
        """Images (H, W, 3) uint8 RGB with the boxes drawn; ``ims`` becomes the same.

        Names and scores stand where they hide no other object, with a legend of the rest; ``tags="all"``: at every box;
        ``tags="none"`` or ``labels=False``: nowhere.

        Raises:
            ValueError: other ``tags``, or ``labels=False`` with ``tags="all"``.
        """
        if tags not in TAGS or (tags == "all" and not labels):
            raise ValueError(f"labels={labels}, tags={tags!r}: tags are one of {', '.join(TAGS)}, without labels none")
        style = DrawingStyle(tags=tags if labels else "none")
        self.ims = [
            draw_detections(image.pixels, each, self._name_list, style)
            for image, each in zip(self._images, self.detections, strict=True)
        ]
        return self.ims

    def show(self, labels: bool = True, tags: str = "auto") -> None:
        """Show the images of ``render``, in the notebook or in the system's viewer; without a display, say so."""
        drawn = [Image.fromarray(image) for image in self.render(labels, tags)]
        notebook = sys.modules.get("IPython")
        if notebook is not None and notebook.get_ipython() is not None:
            for image in drawn:
                notebook.display.display(image)
        elif has_display():
            for image in drawn:
                image.show()
        else:
            LOGGER.warning("there is no display here; results.save() writes the images")

    def save(
        self,
        labels: bool = True,
        save_dir: str | Path = "runs/detect/exp",
        exist_ok: bool = False,
        tags: str = "auto",
    ) -> Path:
        """Write the images of ``render`` under their names to ``save_dir``, or with a number if it is there.

        The folder is returned.
        """
        drawn = self.render(labels, tags)
        folder = _new_folder(save_dir, exist_ok)
        for image, name in zip(drawn, self._file_names(), strict=True):
            write_image(folder / name, image)
        return folder

    def crop(
        self, save: bool = True, save_dir: str | Path = "runs/detect/exp", exist_ok: bool = False
    ) -> list[dict[str, Any]]:
        """Each detection cut out, as ``box conf cls label im``; ``im`` (H, W, 3) is BGR, as OpenCV has it.

        With ``save`` they are written to ``<save_dir>/crops/<class>/<image>.jpg`` too.
        """
        files = CropFiles(_new_folder(save_dir, exist_ok) / "crops") if save else None
        crops = []
        for image, each, rows in zip(self._images, self.detections, self.xyxy, strict=True):
            for row, (x1, y1, x2, y2) in zip(rows, crop_windows(image.pixels, each), strict=True):
                kind, cut = int(row[5]), image.pixels[y1:y2, x1:x2]
                if files is not None and cut.size:
                    files.write_one(self.names[kind], Path(image.name).stem, cut)
                label = f"{self.names[kind]} {row[4]:.2f}"
                crops.append({"box": row[:4], "conf": row[4], "cls": row[5], "label": label, "im": cut[..., ::-1]})
        return crops

    @property
    def _name_list(self) -> list[str]:
        return [self.names[kind] for kind in sorted(self.names)]

    def _file_names(self) -> list[str]:
        """The images' names, a repeated one with a number."""
        stems = FreeNames(separator="_").take_all([(Path(file).stem, False) for file in self.files])
        return [f"{stem}.jpg" for stem in stems]

    def _frame(self, rows: torch.Tensor, columns: tuple[str, ...]) -> pd.DataFrame:
        frame = pd.DataFrame(rows.double().numpy(), columns=[*columns, *FURTHER[:2]])
        frame["class"] = frame["class"].astype(int)
        frame["name"] = [self.names[kind] for kind in frame["class"]]
        return frame


def _with_scores(detections: Detections, boxes: torch.Tensor) -> torch.Tensor:
    """Rows (N, 6): box, score, class."""
    return torch.cat((boxes, detections.scores[:, None], detections.classes[:, None].to(boxes)), dim=1)


def _as_parts(rows: torch.Tensor, detections: Detections) -> torch.Tensor:
    height, width = detections.size
    return rows / rows.new_tensor([width, height, width, height, 1, 1])


def _new_folder(save_dir: str | Path, exist_ok: bool) -> Path:
    return new_run_directory(str(Path(save_dir).parent), Path(save_dir).name, exist_ok=exist_ok)

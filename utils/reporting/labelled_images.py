"""Images with their labels: of a data set, of batches, cut-outs of single objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.geometry.records import Batch, Detections, Labels
from utils.reporting.box_drawing import (
    DARK,
    DEFAULT_STYLE,
    SMALLEST_FONT,
    DrawingStyle,
    class_color,
    draw_boxes,
    draw_detections,
    drawable,
    font_of,
)
from utils.reporting.image_grid import image_grid


def draw_labels(
    image: np.ndarray, labels: Labels, names: Sequence[str], style: DrawingStyle = DEFAULT_STYLE
) -> np.ndarray:
    """A copy of ``image`` (H, W, 3) uint8 RGB with ground truth, whose boxes are in its pixels."""
    captions = [names[kind] if style.names else "" for kind in labels.classes.tolist()]
    return draw_boxes(image, labels.boxes, labels.classes, captions, style)


def captioned_cut(
    image: np.ndarray, target: np.ndarray, others: Sequence[tuple[np.ndarray, int]], caption: str
) -> np.ndarray:
    """A part of an image with one box (4,) framed in white, others in the colours of their class, and a title."""
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    for box, kind in others:
        pen.rectangle(tuple(box), outline=class_color(kind), width=2)
    x1, y1, x2, y2 = target
    for grow, color in ((2, DARK), (1, (255, 255, 255))):
        pen.rectangle((x1 - grow, y1 - grow, x2 + grow, y2 + grow), outline=color)
    return _with_title(np.array(canvas), caption)


def batch_mosaic(
    batch: Batch,
    names: Sequence[str],
    predictions: Sequence[Detections] | None = None,
    *,
    most: int = 16,
    longest_side: int = 1920,
) -> np.ndarray:
    """The first images of a batch side by side (H, W, 3) uint8 RGB, with their labels or with ``predictions``.

    Args:
        batch: as loaded, images uint8.
        names: of the classes.
        predictions: detections in network pixels, one per image; those below 0.25 are left out.
        most: images at most.
        longest_side: of the result, pixels; larger mosaics are scaled down before boxes are drawn.
    """
    count = min(len(batch.paths), most)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = min(1.0, longest_side / max(columns * batch.size.width, rows * batch.size.height))
    height, width = round(batch.size.height * scale), round(batch.size.width * scale)
    cells = []
    for place in range(count):
        image = np.ascontiguousarray(batch.images[place].permute(1, 2, 0).numpy())
        if scale < 1:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        if predictions is not None:
            found = predictions[place]
            sure = found.scores > 0.25
            found = replace(found, boxes=found.boxes[sure], scores=found.scores[sure], classes=found.classes[sure])
            image = draw_detections(image, replace(found, boxes=found.boxes * scale), names)
        else:
            own = batch.image_index == place
            kinds = batch.classes[own].numpy()
            boxes = batch.boxes[own].numpy() * scale
            image = draw_boxes(image, boxes, kinds, [names[kind] for kind in kinds], DEFAULT_STYLE)
        cells.append(_with_title(image, batch.paths[place].name))
    return image_grid(cells, columns)


def _with_title(image: np.ndarray, title: str) -> np.ndarray:
    """The image with its file name in the lower left corner and a thin frame."""
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    font = font_of(SMALLEST_FONT + 2)
    title = drawable(title)
    height = canvas.height
    pen.rectangle((0, height - 16, font.getlength(title) + 6, height), fill=DARK)
    pen.text((3, height - 8), title, fill=(255, 255, 255), font=font, anchor="lm")
    pen.rectangle((0, 0, canvas.width - 1, height - 1), outline=(255, 255, 255))
    return np.array(canvas)

"""Images with their labels: of a data set, of batches, cut-outs of single objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Batch, Detections, Labels
from utils.reporting.box_drawing import (
    DARK,
    DEFAULT_STYLE,
    SMALLEST_FONT,
    BoxDrawing,
    MarkedBoxes,
    class_color,
    class_strokes,
    drawable,
    font_of,
    legend_entries,
    legend_strip,
    marked_detections,
    marked_labels,
    text_size,
)
from utils.reporting.image_grid import image_grid

DRAWN_SCORE = 0.25  # detections below are not drawn; an evaluation keeps many of next to no score


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
        predictions: detections in network pixels, one per image; those below ``DRAWN_SCORE`` are left out.
        most: images at most.
        longest_side: of the result without its legend, pixels; larger mosaics are scaled down before boxes are drawn.
    """
    count = min(len(batch.paths), most)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = min(1.0, longest_side / max(columns * batch.size.width, rows * batch.size.height))
    marks = [
        marked_labels(_labels_of(batch, place).scaled(scale), names)
        if predictions is None
        else marked_detections(predictions[place].above(DRAWN_SCORE).scaled(scale), names)
        for place in range(count)
    ]
    images = [
        reduced(np.ascontiguousarray(batch.images[place].permute(1, 2, 0).numpy()), scale) for place in range(count)
    ]
    return marked_images(images, marks, columns, titles=[path.name for path in batch.paths[:count]])


def marked_images(
    images: Sequence[np.ndarray],
    marks: Sequence[MarkedBoxes],
    columns: int,
    *,
    gap: int = 0,
    titles: Sequence[str] | None = None,
) -> np.ndarray:
    """Images (h, w, 3) uint8 RGB in a grid, each with its boxes, and one legend below all (H, W, 3)."""
    strokes = class_strokes(kind for one in marks for kind in one.kinds)  # the same in all images
    drawings = [
        BoxDrawing(FrameSize(*image.shape[:2]), replace(one, strokes=strokes), DEFAULT_STYLE)
        for image, one in zip(images, marks, strict=True)
    ]
    cells = [drawing.on(image) for image, drawing in zip(images, drawings, strict=True)]
    if titles is not None:
        cells = [_with_title(cell, title) for cell, title in zip(cells, titles, strict=True)]
    grid = image_grid(cells, columns, gap)
    strip = legend_strip(legend_entries(drawings), grid.shape[1], text_size(max(grid.shape[:2])))
    return np.concatenate((grid, strip))


def reduced(image: np.ndarray, scale: float) -> np.ndarray:
    """The image at ``scale`` of its size, 1 at most."""
    if scale >= 1:
        return image
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _labels_of(batch: Batch, place: int) -> Labels:
    """The labels of one image, in pixels of the network's frame."""
    own = batch.image_index == place
    classes = batch.classes[own].numpy()
    return Labels(batch.boxes[own].numpy(), classes, (None,) * len(classes), batch.size)


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

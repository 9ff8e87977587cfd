"""Images with their labels: of a data set, of batches, cut-outs of single objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.evaluation.match_detections import matched_objects
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Batch, Detections, Labels
from utils.reporting.box_drawing import (
    DARK,
    DASHES,
    DEFAULT_STYLE,
    PALETTE,
    SMALLEST_FONT,
    BoxDrawing,
    MarkedBoxes,
    Stroke,
    class_strokes,
    draw_frame,
    drawable,
    font_of,
    legend_entries,
    legend_strip,
    marked_detections,
    marked_labels,
)
from utils.reporting.image_grid import image_grid

DRAWN_SCORE = 0.25  # detections below are not drawn; an evaluation keeps many of next to no score


# Told apart by colour and by line. These hues differ most with every kind of colour vision.
RIGHT, WRONG, MISSED = range(3)
VERDICTS = {RIGHT: "right", WRONG: "wrong", MISSED: "missed"}
VERDICT_STROKES = {
    RIGHT: Stroke(PALETTE[1]),
    WRONG: Stroke(PALETTE[4], DASHES[1]),
    MISSED: Stroke(PALETTE[3], DASHES[2]),
}


def marked_verdicts(labels: Labels, detections: Detections, names: Sequence[str]) -> MarkedBoxes:
    """Detections of at least ``DRAWN_SCORE``, right or wrong, and the labels that they missed.

    Right is a detection at IoU 0.5 with an object of its class that no better-scored one found, see
    :func:`~utils.evaluation.match_detections.matched_objects`. Both are in pixels of the same frame.
    """
    shown = detections.above(DRAWN_SCORE).cpu()
    correct, target = matched_objects(shown, labels)
    hits = correct[:, 0]
    missed = labels.keep(np.setdiff1d(np.arange(len(labels)), target[hits]))
    found = marked_detections(shown, names)
    verdicts = [*np.where(hits, RIGHT, WRONG).tolist(), *[MISSED] * len(missed)]
    order = np.argsort([(WRONG, MISSED, RIGHT).index(verdict) for verdict in verdicts], kind="stable")
    captions = [*found.captions, *marked_labels(missed, names).captions]
    return MarkedBoxes(
        boxes=np.concatenate((found.boxes, missed.boxes))[order],
        kinds=[verdicts[place] for place in order],
        captions=[captions[place] for place in order],
        strokes=VERDICT_STROKES,
        names=VERDICTS,
        whole_legend=True,
    )


def verdict_counts(marks: MarkedBoxes) -> str:
    """The numbers of an image: ``12 right, 3 wrong, 4 missed``."""
    return ", ".join(f"{list(marks.kinds).count(kind)} {name}" for kind, name in VERDICTS.items())


def captioned_cut(image: np.ndarray, frames: Sequence[tuple[np.ndarray, Stroke]], caption: str) -> np.ndarray:
    """A part of an image with boxes (4,) around what it shows, the last on top, and a title."""
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    for box, stroke in frames:
        x1, y1, x2, y2 = map(round, box.tolist())
        draw_frame(pen, (x1, y1, x2, y2), 1, stroke)
    return _with_title(np.array(canvas), caption)


def batch_mosaic(
    batch: Batch,
    names: Sequence[str],
    predictions: Sequence[Detections] | None = None,
    *,
    most: int = 16,
    longest_side: int = 1920,
) -> np.ndarray:
    """The first images of a batch side by side (H, W, 3) uint8 RGB, with their labels or with what was found.

    Of ``predictions`` each is right or wrong, and labels without one are missed, see :func:`marked_verdicts`.

    Args:
        batch: as loaded, images uint8.
        names: of the classes.
        predictions: one per image, in network pixels, best score first; those below ``DRAWN_SCORE`` are left out.
        most: images at most.
        longest_side: of the result without its legend, pixels; larger mosaics are scaled down before boxes are drawn.
    """
    count = min(len(batch.paths), most)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = min(1.0, longest_side / max(columns * batch.size.width, rows * batch.size.height))
    titles = [path.name for path in batch.paths[:count]]
    labels = [_labels_of(batch, place).scaled(scale) for place in range(count)]
    if predictions is None:
        marks = in_common_strokes([marked_labels(own, names) for own in labels])
    else:
        found = [one.scaled(scale) for one in predictions[:count]]
        marks = [marked_verdicts(own, one, names) for own, one in zip(labels, found, strict=True)]
        # Counts first: a narrow image cuts its title off.
        titles = [f"{verdict_counts(own)}: {title}" for title, own in zip(titles, marks, strict=True)]
    images = [
        reduced(np.ascontiguousarray(batch.images[place].permute(1, 2, 0).numpy()), scale) for place in range(count)
    ]
    return marked_images(images, marks, columns, titles=titles)


def marked_images(
    images: Sequence[np.ndarray],
    marks: Sequence[MarkedBoxes],
    columns: int,
    *,
    gap: int = 0,
    titles: Sequence[str] | None = None,
) -> np.ndarray:
    """Images (h, w, 3) uint8 RGB in a grid, each with its boxes, and one legend below all (H, W, 3).

    ``marks`` have the same strokes.
    """
    drawings = [
        BoxDrawing(FrameSize(*image.shape[:2]), one, DEFAULT_STYLE) for image, one in zip(images, marks, strict=True)
    ]
    cells = [drawing.on(image) for image, drawing in zip(images, drawings, strict=True)]
    if titles is not None:
        cells = [_with_title(cell, title) for cell, title in zip(cells, titles, strict=True)]
    grid = image_grid(cells, columns, gap)
    strip = legend_strip(legend_entries(drawings), grid.shape[1])
    return np.concatenate((grid, strip))


def in_common_strokes(marks: Sequence[MarkedBoxes]) -> list[MarkedBoxes]:
    """The boxes of several images, each class in the same stroke in all of them."""
    strokes = class_strokes(kind for one in marks for kind in one.kinds)
    return [replace(one, strokes=strokes) for one in marks]


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

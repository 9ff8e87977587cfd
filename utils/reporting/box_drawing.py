"""Boxes and names on images, readable where objects are small and many."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.geometry.boxes import intersection
from utils.geometry.records import Detections

# Okabe and Ito, "Color Universal Design" (2008), without black: told apart with every common kind of colour vision.
# Bright hues first, as vegetation, asphalt and water are dull.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
DARK = (20, 20, 20)
SMALLEST_FONT, LARGEST_FONT = 9, 28  # pixels
SMALL_OBJECT_FONT = 12  # pixels; beside a small object in a large image, which people enlarge
TAKEN_WEIGHT = 3.0  # a caption under another one is worse than one on an object
OWN_WEIGHT = 1e6  # nothing is worse than the object that a caption names being hidden by it


@dataclass(frozen=True, slots=True)
class DrawingStyle:
    """What is drawn beside the boxes."""

    line_width: int | None = None  # pixels; by default from the sizes of image and box
    names: bool = True  # False: no score either, as a tag of a score alone says nothing of what
    scores: bool = True


DEFAULT_STYLE = DrawingStyle()


def class_color(index: int) -> tuple[int, int, int]:
    """RGB colour of a class; colours repeat after seven classes."""
    return PALETTE[index % len(PALETTE)]


def draw_detections(
    image: np.ndarray, detections: Detections, names: Sequence[str], style: DrawingStyle = DEFAULT_STYLE
) -> np.ndarray:
    """A copy of ``image`` (H, W, 3) uint8 RGB with detections, whose boxes are in its pixels."""
    captions = []
    for kind, score in zip(detections.classes.tolist(), detections.scores.tolist(), strict=True):
        caption = f"{names[kind]} {score:.2f}" if style.scores else names[kind]
        captions.append(caption if style.names else "")
    return draw_boxes(image, detections.boxes.cpu().numpy(), detections.classes.cpu().numpy(), captions, style)


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, classes: np.ndarray, captions: Sequence[str], style: DrawingStyle
) -> np.ndarray:
    """A copy of the image with boxes (N, 4), the first on top."""
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    height, width = image.shape[:2]
    placer = LabelPlacer(boxes, width, height)
    frames = [(*map(round, box), _line_width(box, max(height, width), style)) for box in boxes.tolist()]
    for (x1, y1, x2, y2, line), kind in reversed(list(zip(frames, classes.tolist(), strict=True))):
        # The line runs outside the box: of a 10 px object nothing is covered. A dark seam parts it from light ground.
        for grow, color in ((line + 1, DARK), (line, class_color(kind))):
            outline = (x1 - grow, y1 - grow, max(x2, x1) + grow - 1, max(y2, y1) + grow - 1)
            pen.rectangle(outline, outline=color, width=grow if color == DARK else line)
    for (x1, y1, x2, y2, line), kind, caption in zip(frames, classes.tolist(), captions, strict=True):
        if not caption:
            continue
        caption = drawable(caption)
        font_size = caption_size(min(x2 - x1, y2 - y1), max(height, width))
        font = font_of(font_size)
        text_width, text_height = math.ceil(font.getlength(caption)) + 4, font_size + 4
        left, top = placer.place((x1 - line, y1 - line, x2 + line, y2 + line), text_width, text_height)
        color = class_color(kind)
        pen.rectangle((left, top, left + text_width - 1, top + text_height - 1), fill=color)
        pen.text((left + 2, top + text_height / 2), caption, fill=_text_color(color), font=font, anchor="lm")
    return np.array(canvas)


def caption_size(shorter_side: float, longest_side: int) -> int:
    """Height of the letters for a box, pixels: larger in large images, but not towering over a small object."""
    by_image = min(max(round(longest_side / 55), SMALLEST_FONT), LARGEST_FONT)
    return min(by_image, max(round(shorter_side * 0.6), SMALL_OBJECT_FONT))


def _line_width(box: Sequence[float], longest_side: int, style: DrawingStyle) -> int:
    """Line width in pixels: thicker on large images, thinner on small objects."""
    if style.line_width is not None:
        return style.line_width
    shorter = min(box[2] - box[0], box[3] - box[1])
    return max(1, min(round(longest_side / 320), round(shorter / 12)))


class LabelPlacer:
    """Finds room for captions: off their own box wherever the image has room, then off other boxes and captions."""

    def __init__(self, boxes: np.ndarray, width: int, height: int) -> None:
        """For boxes (N, 4) xyxy in an image of so many pixels."""
        self.boxes = boxes.reshape(-1, 4).astype(np.float64)
        self.taken = np.zeros((0, 4))
        self.width, self.height = width, height

    def place(self, box: tuple[float, float, float, float], text_width: int, text_height: int) -> tuple[float, float]:
        """Left and top of a caption for a box. Above is preferred, then below, right, left; inside as a last resort."""
        x1, y1, x2, y2 = box
        above, below, right, left = y1 - text_height, y2, x2, x1 - text_width
        middle = (x1 + x2 - text_width) / 2
        spots = np.array(
            [
                *((x, y) for y in (above, below) for x in (x1, x2 - text_width, middle)),
                *((x, y) for x in (right, left) for y in (y1, y2 - text_height)),
                (x1, y1),
            ]
        )
        # Captions stay in the image, even if that pushes them onto their own box.
        spots = spots.clip(0, (max(self.width - text_width, 0), max(self.height - text_height, 0)))
        spots = np.concatenate((spots, spots + (text_width, text_height)), axis=1)
        own = _overlap(spots, np.array([box]))
        hidden = _overlap(spots, self.boxes) + TAKEN_WEIGHT * _overlap(spots, self.taken) + OWN_WEIGHT * own
        chosen = spots[int(hidden.argmin())]
        self.taken = np.concatenate((self.taken, chosen[None]))
        return float(chosen[0]), float(chosen[1])


def _overlap(spots: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Square pixels (S,) that each spot (S, 4) shares with boxes (N, 4)."""
    shared: np.ndarray = intersection(spots[:, None], boxes[None]).sum(axis=1)
    return shared


def drawable(text: str) -> str:
    """The text without line breaks, control characters and broken encodings, which no font has."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _text_color(ground: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = ground
    return DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else (255, 255, 255)


@lru_cache(maxsize=LARGEST_FONT)
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has Latin, Greek and Cyrillic letters."""
    found = importlib.util.find_spec("matplotlib")  # finds the package without the time of importing it
    assert found is not None and found.origin is not None, "matplotlib is a requirement"
    return ImageFont.truetype(str(Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"), size)

"""Real aerial images with small objects for the study: the tree crowns that come with the DeepForest package.

    pip download --no-deps deepforest==2.1.0 && python -m benchmarks.tree_crowns deepforest-*.whl
    python -m benchmarks.small_object_study --data tree-crowns.yaml@96 --cpu-budget 2h

Four images of the NEON airborne survey (10 cm per pixel) with 951 hand-drawn boxes (Weinstein et al., "DeepForest",
Methods in Ecology and Evolution 2020; MIT licence). They are cut into windows, of which every fifth is for validation
and every fifth for testing; no two windows overlap.
"""

from __future__ import annotations

import argparse
import io
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from benchmarks.study_data import write_labelled
from utils.config.dataset_file import DATASETS, REPOSITORY
from utils.runtime.console_log import run_verb
from utils.user_error import UserError

WINDOW = 320  # pixels, the longest side of a window; crowns are about 40 pixels wide
LEAST_LEFT = 0.3  # share of a box's area that a window must hold for the box to be labelled in it
LEAST_SIDE = 2.0  # pixels, of what a window holds of a box
FIFTHS = ("train", "train", "train", "val", "test")  # of the windows in their order


def write_tree_crowns(wheel: Path, folder: Path) -> None:
    """Write the data set of ``data/tree-crowns.yaml`` under ``folder``.

    Raises:
        UserError: the wheel cannot be read or has no annotated images, or ``folder`` exists.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists; name another with --to, or delete it")
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = [_annotated(archive, name) for name in sorted(archive.namelist()) if name.endswith(".xml")]
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel}: cannot be read as a wheel ({error})") from error
    if not found:
        raise UserError(f"{wheel}: has no annotations (*.xml); DeepForest 2.1.0 has four")
    windows = [window for image, rows in found for window in _windows(image, rows)]
    for number, (image, rows) in enumerate(windows):
        write_labelled(folder, FIFTHS[number % len(FIFTHS)], f"{number:03d}", image, rows)


def _annotated(archive: zipfile.ZipFile, name: str) -> tuple[np.ndarray, np.ndarray]:
    """BGR image and rows ``class cx cy w h`` (fractions) of an annotation in Pascal VOC's form."""
    image = cv2.imdecode(np.frombuffer(archive.read(f"{name[:-4]}.png"), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, name
    corners = [
        [float(box.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax")]
        for box in ElementTree.parse(io.BytesIO(archive.read(name))).iter("bndbox")
    ]
    low, high = np.split(np.array(corners), 2, axis=1)
    size = np.tile(np.array([image.shape[1], image.shape[0]]), 2)
    boxes = np.concatenate(((low + high) / 2, high - low), axis=1) / size
    return image, np.concatenate((np.zeros((len(boxes), 1)), boxes), axis=1)


def _windows(image: np.ndarray, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The image in equal windows of at most WINDOW pixels, row by row, each with the objects that it holds."""
    height, width = image.shape[:2]
    tops, lefts = (np.linspace(0, side, -(-side // WINDOW) + 1).astype(int) for side in (height, width))
    return [
        (image[top:bottom, left:right], rows_in_window(rows, (width, height), (left, top, right, bottom)))
        for top, bottom in pairwise(tops)
        for left, right in pairwise(lefts)
    ]


def rows_in_window(rows: np.ndarray, size: tuple[int, int], window: tuple[int, int, int, int]) -> np.ndarray:
    """Rows ``class cx cy w h`` (fractions of an image of width and height ``size``) as fractions of a window of it.

    Boxes are cut at the window's sides; of those that it holds little of nothing is left.

    Args:
        window: left, top, right, bottom, pixels.
    """
    centres, halves = rows[:, 1:3] * size, rows[:, 3:5] * size / 2
    corner, end = np.array(window[:2]), np.array(window[2:])
    low, high = np.maximum(centres - halves, corner), np.minimum(centres + halves, end)
    sides = high - low
    kept = (sides > LEAST_SIDE).all(1)
    kept &= sides.clip(0).prod(1) > LEAST_LEFT * (2 * halves).prod(1)
    inside = np.concatenate(((low + high) / 2 - corner, sides), axis=1) / np.tile(end - corner, 2)
    found: np.ndarray = np.concatenate((rows[:, :1], inside), axis=1)[kept]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.tree_crowns", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, help="deepforest-2.1.0-py3-none-any.whl, of which only data are read")
    parser.add_argument("--to", type=Path, default=REPOSITORY / DATASETS / "tree-crowns", help="folder to write")
    flags = parser.parse_args()
    write_tree_crowns(flags.wheel, flags.to)
    print(f"images and labels: {flags.to}; --data tree-crowns.yaml names them")


if __name__ == "__main__":
    sys.exit(run_verb(main))

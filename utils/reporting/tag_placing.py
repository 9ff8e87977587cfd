"""Where the tags of boxes stand: on no object where that can be, else where they hide least."""

from __future__ import annotations

import numpy as np

from utils.geometry.boxes import box_area, intersection
from utils.geometry.letterbox import FrameSize

MOST_HIDDEN = 0.02  # of an object, by all tags together
TAKEN_WEIGHT = 3.0  # where every box has a tag, a tag under another one is worse than one on an object
OWN_WEIGHT = 1e6  # nothing is worse than the object that a tag names being hidden by it


class TagPlacer:
    """Finds room for tags, one after the other."""

    def __init__(self, boxes: np.ndarray, size: FrameSize) -> None:
        """For boxes (N, 4) xyxy in an image of so many pixels."""
        self.boxes = boxes.reshape(-1, 4).astype(np.float64)
        self.size = size
        self._areas = np.maximum(box_area(self.boxes), 1e-9)
        self._hidden = np.zeros(len(self.boxes))  # part of each
        self._taken = np.zeros((0, 4))

    def clear_spot(self, box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom of a tag that hides no object and no other tag; None where there is no such place.

        Of objects so large that all tags on them hide no more than ``MOST_HIDDEN``, that much is hidden.
        """
        spots = self._spots(box, width, height)
        hidden = intersection(spots[:, None], self.boxes[None]) / self._areas
        free = _overlap(spots, self._taken) == 0
        clear = free & ((hidden == 0) | (hidden + self._hidden <= MOST_HIDDEN)).all(axis=1)
        if not clear.any():
            return None
        best = int(np.where(clear, hidden.sum(axis=1), np.inf).argmin())
        self._hidden += hidden[best]
        return self._take(spots[best])

    def best_spot(self, box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
        """Where a tag hides least: off its own box wherever the image has room, then off other boxes and tags."""
        spots = self._spots(box, width, height)
        own = _overlap(spots, np.array([box]))
        hidden = _overlap(spots, self.boxes) + TAKEN_WEIGHT * _overlap(spots, self._taken) + OWN_WEIGHT * own
        return self._take(spots[int(hidden.argmin())])

    def _spots(self, box: tuple[int, int, int, int], width: int, height: int) -> np.ndarray:
        """Places (S, 4). Above is preferred, then below, right, left; inside as a last resort."""
        x1, y1, x2, y2 = box
        above, below, right, left = y1 - height, y2, x2, x1 - width
        middle = (x1 + x2 - width) // 2
        spots = np.array(
            [
                *((x, y) for y in (above, below) for x in (x1, x2 - width, middle)),
                *((x, y) for x in (right, left) for y in (y1, y2 - height)),
                (x1, y1),
            ]
        )
        # Tags stay in the image, even if that pushes them onto their own box.
        spots = spots.clip(0, (max(self.size.width - width, 0), max(self.size.height - height, 0)))
        return np.concatenate((spots, spots + (width, height)), axis=1).astype(np.float64)

    def _take(self, spot: np.ndarray) -> tuple[int, int, int, int]:
        self._taken = np.concatenate((self._taken, spot[None]))
        left, top, right, bottom = map(int, spot.tolist())
        return left, top, right, bottom


def _overlap(spots: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Square pixels (S,) that each spot (S, 4) shares with boxes (N, 4)."""
    shared: np.ndarray = intersection(spots[:, None], boxes[None]).sum(axis=1)
    return shared

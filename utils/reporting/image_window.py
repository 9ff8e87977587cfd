"""A window for annotated images (``--view-img``)."""

from __future__ import annotations

import logging
import os
import sys

import cv2
import numpy as np

LOGGER = logging.getLogger(__name__)

ENDING_KEYS = (ord("q"), 27)  # 27 is Escape


class ImageWindow:
    """Shows images as they come; without a display it says so once and shows nothing."""

    def __init__(self) -> None:
        self.closed = False  # by the user
        self._usable = has_display()
        self._titles: set[str] = set()
        if not self._usable:
            LOGGER.warning("--view-img: there is no display here; images are not shown")

    def show(self, title: str, image: np.ndarray) -> None:
        """Show an image (H, W, 3) uint8 RGB under a title; sets ``closed`` when q or Escape was pressed."""
        if not self._usable:
            return
        try:
            if title not in self._titles:
                cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
                cv2.resizeWindow(title, image.shape[1], image.shape[0])
                self._titles.add(title)
            cv2.imshow(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            self.closed = self.closed or cv2.waitKey(1) & 0xFF in ENDING_KEYS
        except cv2.error:
            LOGGER.warning("--view-img: this OpenCV has no windows (opencv-python-headless); images are not shown")
            self._usable = False

    def close(self) -> None:
        """Take the windows away."""
        for title in self._titles:
            cv2.destroyWindow(title)
        self._titles.clear()


def has_display() -> bool:
    """Whether windows can be opened. OpenCV's window library ends the process where it finds no display."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

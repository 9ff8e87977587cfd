"""One augmented training image: mosaic or letterbox, copy-paste, warp, mixup, colour, flips, rare pixel changes."""

from __future__ import annotations

import numpy as np

from utils.config.hyperparameters import Hyperparameters
from utils.dataset.affine_warp import WarpRanges, draw_warp, visible_objects, warp_image, warp_labels
from utils.dataset.image_changes import (
    change_pixels,
    draw_jitter,
    draw_pixel_changes,
    flip_image,
    flip_labels,
    jitter_color,
)
from utils.dataset.mosaic import (
    ImageSource,
    Tile,
    View,
    draw_tiles,
    letterbox_tile,
    mix,
    mosaic9_tiles,
    mosaic_tiles,
    paste_mirrored,
    paste_small,
)
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Labels


class Augmentation:
    """The recipe of `Hyperparameters` for square images of ``side`` pixels, or for frames of any shape.

    All randomness of a call comes from the generator given to it.
    """

    def __init__(self, source: ImageSource, image_count: int, side: int, hyp: Hyperparameters) -> None:
        self._source = source
        self._image_count = image_count
        self._side = side
        self._hyp = hyp
        self._ranges = WarpRanges(hyp.degrees, hyp.translate, hyp.scale, hyp.shear, hyp.perspective)

    def __call__(
        self, index: int, rng: np.random.Generator, frame: FrameSize | None = None
    ) -> tuple[np.ndarray, Labels]:
        """Image ``index`` (side, side, 3) uint8 RGB, augmented, and the objects left in it.

        With ``frame`` the image alone fills a frame of that size (height, width): no mosaic, no mixup.
        """
        hyp = self._hyp
        square = FrameSize(self._side, self._side)
        if frame is None and rng.random() < hyp.mosaic:
            image, labels = self._mosaic(index, square, rng)
            if rng.random() < hyp.mixup:
                partner = int(rng.integers(self._image_count))
                image, labels = mix((image, labels), self._mosaic(partner, square, rng), rng)
        else:
            frame = frame or square
            image, labels = self._warped([letterbox_tile(self._source, index, frame)], frame, frame, rng)
        image = jitter_color(image, draw_jitter(rng, hyp.hsv_h, hyp.hsv_s, hyp.hsv_v))
        left_right, up_down = bool(rng.random() < hyp.fliplr), bool(rng.random() < hyp.flipud)
        image = flip_image(image, left_right=left_right, up_down=up_down)
        image = change_pixels(image, draw_pixel_changes(rng))
        return image, flip_labels(labels, left_right=left_right, up_down=up_down)

    def _mosaic(self, index: int, output: FrameSize, rng: np.random.Generator) -> tuple[np.ndarray, Labels]:
        """A mosaic that holds ``index``, its tiles in a random order, on a canvas of twice the side, warped."""
        nine = bool(rng.random() < self._hyp.mosaic9)
        partners = rng.integers(self._image_count, size=8 if nine else 3).tolist()
        members = rng.permutation([index, *partners]).tolist()
        layout = mosaic9_tiles if nine else mosaic_tiles
        canvas = FrameSize(2 * self._side, 2 * self._side)
        return self._warped(layout(self._source, members, self._side, rng), canvas, output, rng)

    def _warped(
        self, tiles: list[Tile], canvas: FrameSize, output: FrameSize, rng: np.random.Generator
    ) -> tuple[np.ndarray, Labels]:
        image, labels = self._drawn(tiles, canvas, output, rng)
        share, size = self._hyp.paste_small, self._hyp.paste_small_size
        return paste_small(image, labels, share, size, rng) if share > 0 else (image, labels)

    def _drawn(
        self, tiles: list[Tile], canvas: FrameSize, output: FrameSize, rng: np.random.Generator
    ) -> tuple[np.ndarray, Labels]:
        warp = draw_warp(rng, self._ranges, canvas, output)
        pastes = self._hyp.copy_paste > 0 and len(tiles) > 1
        if warp.is_axis_aligned and not pastes:
            view = View(warp.zoom, float(warp.matrix[0, 2]), float(warp.matrix[1, 2]), output)
            image, labels, whole = draw_tiles(self._source, tiles, canvas, view)
            return image, visible_objects(labels, whole)
        image, labels, _ = draw_tiles(self._source, tiles, canvas, View(1.0, 0.0, 0.0, canvas))
        if pastes:
            image, labels = paste_mirrored(image, labels, self._hyp.copy_paste, rng)
        return warp_image(image, warp), warp_labels(labels, warp)

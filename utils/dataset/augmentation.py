"""One augmented training picture: mosaic or letterbox, copy-paste, warp, mixup, colour, flips."""

from __future__ import annotations

import numpy as np

from utils.config.hyperparameters import Hyperparameters
from utils.dataset.affine_warp import WarpRanges, draw_warp, visible_objects, warp_image, warp_labels
from utils.dataset.color_jitter import draw_jitter, jitter_color
from utils.dataset.copy_paste import paste_mirrored
from utils.dataset.flips import flip_image, flip_labels
from utils.dataset.mixup import mix
from utils.dataset.mosaic import (
    PictureSource,
    Tile,
    View,
    draw_tiles,
    letterbox_tile,
    mosaic9_tiles,
    mosaic_tiles,
)
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Labels


class Augmentation:
    """The recipe of `Hyperparameters` for square pictures of ``side`` pixels.

    All randomness of a call comes from the generator given to it.
    """

    def __init__(self, source: PictureSource, picture_count: int, side: int, hyp: Hyperparameters) -> None:
        self._source = source
        self._picture_count = picture_count
        self._side = side
        self._hyp = hyp
        self._ranges = WarpRanges(hyp.degrees, hyp.translate, hyp.scale, hyp.shear, hyp.perspective)

    def __call__(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, Labels]:
        """Picture ``index`` (side, side, 3) uint8 RGB, augmented, and the objects left in it."""
        hyp = self._hyp
        if rng.random() < hyp.mosaic:
            image, labels = self._warped(*self._mosaic(index, rng), rng)
            if rng.random() < hyp.mixup:
                partner = int(rng.integers(self._picture_count))
                image, labels = mix((image, labels), self._warped(*self._mosaic(partner, rng), rng), rng)
        else:
            tile = letterbox_tile(self._source, index, self._side)
            image, labels = self._warped([tile], self._side, rng)
        image = jitter_color(image, draw_jitter(rng, hyp.hsv_h, hyp.hsv_s, hyp.hsv_v))
        left_right, up_down = bool(rng.random() < hyp.fliplr), bool(rng.random() < hyp.flipud)
        image = flip_image(image, left_right=left_right, up_down=up_down)
        return image, flip_labels(labels, left_right=left_right, up_down=up_down)

    def _mosaic(self, index: int, rng: np.random.Generator) -> tuple[list[Tile], int]:
        """Tiles of a mosaic that holds ``index``, in a random order, and the side of their canvas."""
        nine = bool(rng.random() < self._hyp.mosaic9)
        partners = rng.integers(self._picture_count, size=8 if nine else 3).tolist()
        members = rng.permutation([index, *partners]).tolist()
        layout = mosaic9_tiles if nine else mosaic_tiles
        return layout(self._source, members, self._side, rng), 2 * self._side

    def _warped(self, tiles: list[Tile], canvas_side: int, rng: np.random.Generator) -> tuple[np.ndarray, Labels]:
        canvas = FrameSize(canvas_side, canvas_side)
        output = FrameSize(self._side, self._side)
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

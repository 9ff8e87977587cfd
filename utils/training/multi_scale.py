"""Image sizes that vary from batch to batch (``--multi-scale``)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from utils.geometry.letterbox import FrameSize


@dataclass(frozen=True, slots=True)
class MultiScale:
    """Sizes between half and one and a half of ``imgsz``, in multiples of ``stride`` pixels."""

    imgsz: int
    stride: int
    seed: int

    def frame(self, size: FrameSize, epoch: int, step: int) -> FrameSize:
        """What a batch of frames of ``size`` is scaled to: the same for every process of a run."""
        rng = np.random.default_rng((self.seed, epoch, step))
        lowest = math.ceil(0.5 * self.imgsz / self.stride)
        longest = int(rng.integers(lowest, int(1.5 * self.imgsz) // self.stride + 1)) * self.stride
        scale = longest / max(size)
        return FrameSize(*(math.ceil(side * scale / self.stride - 1e-9) * self.stride for side in size))

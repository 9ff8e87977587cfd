"""YOLOv5's own order, padding and rounding, for figures that compare with its published ones to the third decimal.

It leaves images of equal shape in the order of NumPy's quicksort, and it leads boxes back through half the padding even
where that is half a pixel more than the padding applied. In half precision (``val.py --half``, and ``val.run``, whose
default it is) it computes so down to the corners of a box, where coordinates beyond 256 and 512 pixels have steps of
1/4 and 1/2 pixel, and it convolves in channels-first order. None of it is wanted for its own sake: the default here is
float32, a stable order, the true padding.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from models.yolo import DetectionModel
from utils.geometry.letterbox import LetterboxTransform
from utils.geometry.records import HeadMaps, Predictions


class HalfPrecisionDetector:
    """The detector in float16 from its first convolution to the product of objectness and class."""

    def __init__(self, model: DetectionModel) -> None:
        self.model = model.to(memory_format=torch.contiguous_format)
        self.names = model.names

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        """Images (B, 3, H, W) float 0-1 to predictions, float32 numbers of float16 steps.

        The objectness is 1 and the class probabilities are the whole scores, because their product is rounded too.
        """
        with torch.autocast(images.device.type, dtype=torch.float16):
            maps: HeadMaps = self.model(images.contiguous())
        rows = torch.cat([self._level_rows(level, logits.half()) for level, logits in enumerate(maps.levels)], dim=1)
        centres, half_sizes = rows[..., :2], rows[..., 2:4] / 2
        boxes = torch.cat((centres - half_sizes, centres + half_sizes), dim=-1)
        scores = rows[..., 5:] * rows[..., 4:5]
        return Predictions(boxes.float(), torch.ones_like(rows[..., 4]).float(), scores.float())

    def _level_rows(self, level: int, logits: torch.Tensor) -> torch.Tensor:
        """Logits (B, A, H, W, 5 + C) to rows (B, A * H * W, 5 + C): cx cy w h in pixels, objectness, classes.

        The head's own formula with the half cell taken off first: in half precision the order is what rounds.
        """
        head = self.model.head
        stride = head.strides[level]
        across, down = (torch.arange(n, device=logits.device, dtype=logits.dtype) for n in reversed(logits.shape[2:4]))
        cells = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1) - 0.5  # (H, W, 2)
        anchors = (head.anchors[level].to(logits.dtype) * stride)[:, None, None, :]
        out = logits.sigmoid()
        centres = (out[..., :2] * 2 + cells) * stride
        sizes = (out[..., 2:4] * 2) ** 2 * anchors
        return torch.cat((centres, sizes, out[..., 4:]), dim=-1).flatten(1, 3)


def halved_padding(letterbox: LetterboxTransform) -> LetterboxTransform:
    """The same way back with the padding at each side taken as half the rest, which may be half a pixel."""
    width = round(letterbox.source.width * letterbox.scale_x)
    height = round(letterbox.source.height * letterbox.scale_y)
    return replace(
        letterbox,
        pad_left=(letterbox.network.width - width) / 2,
        pad_top=(letterbox.network.height - height) / 2,
    )

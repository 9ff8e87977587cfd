"""The exported file against the model that it was made from: same images, same answers, and how long both take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from utils.exporting.export_settings import EmbeddedSuppression, ExportSettings
from utils.geometry.letterbox import FrameSize, letterbox
from utils.geometry.records import Detections, Predictions
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.inference.predictor import as_network_input
from utils.inference.torch_backend import DetectionBackend
from utils.runtime.streams import StageClock
from utils.user_error import UserError

# fp32 runtimes sum in other orders. On the largest models at 1280 px that moves a box by some thousandths of a pixel,
# a wrong graph (a missing layer, swapped channels, a grid off by one) moves it by whole ones.
# Eleven bits of mantissa through sixty layers move a large box by a few pixels.
TIMED_RUNS = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """Largest absolute differences between two answers."""

    pixels: float
    probability: float

    def within(self, tolerance: Difference) -> bool:
        """Whether neither is larger than in ``tolerance`` (a NaN always is)."""
        return self.pixels <= tolerance.pixels and self.probability <= tolerance.probability


# See above: what other orders of summation, and what fewer bits, may change.
TOLERANCE = Difference(pixels=0.05, probability=5e-4)
HALF_TOLERANCE = Difference(pixels=8.0, probability=0.05)


def verification_inputs(
    settings: ExportSettings, stride: int, images: Sequence[np.ndarray], device: torch.device
) -> list[torch.Tensor]:
    """Batches (B, 3, H, W) float 0-1 to compare on: the frame of the export, and if it is dynamic another one too.

    ``images`` (H, W, 3) uint8 RGB fill the batches in turn; without any they are filled with noise.
    """
    shapes = [(settings.batch_size, settings.frame)]
    if settings.dynamic:
        other = FrameSize(settings.frame.height + stride, settings.frame.width + 2 * stride)
        shapes.append((settings.batch_size + 1, other))
    return [_batch(count, frame, images, device) for count, frame in shapes]


def compare(exported: DetectionBackend, model: DetectionBackend, inputs: Sequence[torch.Tensor]) -> Difference:
    """Largest difference of the raw predictions over all inputs."""
    pixels, probability = 0.0, 0.0
    for images in inputs:
        # On GPUs cuDNN rounds fp32 factors to ten bits of mantissa unless told not to.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            ours, reference = exported.predict(images), model.predict(images)
        if ours.class_probs.shape != reference.class_probs.shape:
            raise UserError(
                f"the exported graph gives {_shape(ours)} places and classes per image, the model {_shape(reference)}"
            )
        pixels = _worst(pixels, ours.boxes - reference.boxes)
        probability = _worst(probability, ours.objectness - reference.objectness)
        probability = _worst(probability, ours.class_probs - reference.class_probs)
    return Difference(pixels, probability)


def compare_suppressed(
    exported: DetectionBackend, raw: DetectionBackend, suppression: EmbeddedSuppression, inputs: Sequence[torch.Tensor]
) -> Difference:
    """Largest difference between suppression inside the graph and outside, both on the graph's own raw rows."""
    pixels, probability = 0.0, 0.0
    for images in inputs:
        inside = Predictions(*(part.cpu() for part in exported.predict(images)))
        for i, outside in enumerate(
            _suppressed_outside(raw.predict(images), suppression, FrameSize(*images.shape[2:]))
        ):
            count = int((inside.objectness[i] > 0).sum())
            if count != len(outside):
                raise UserError(f"suppression in the graph keeps {count} boxes, outside of it {len(outside)}")
            scores = inside.objectness[i, :count].sort(descending=True).values
            probability = _worst(probability, scores - outside.scores)
            for box, label in zip(outside.boxes, outside.classes, strict=True):
                same_class = inside.class_probs[i, :count, label] > 0
                distances = (inside.boxes[i, :count][same_class] - box).abs().amax(1)
                pixels = max(pixels, float(distances.min()) if len(distances) else float("inf"))
    return Difference(pixels, probability)


def _suppressed_outside(
    predictions: Predictions, suppression: EmbeddedSuppression, size: FrameSize
) -> list[Detections]:
    """What the embedded suppression should keep, class by class.

    ``non_max_suppression`` separates classes by an offset that rounds the boxes a little; the graph does not round.
    """
    groups = [None] if suppression.agnostic else [(label,) for label in range(predictions.class_probs.shape[2])]
    kept = [
        non_max_suppression(
            predictions,
            NmsSettings(
                conf_thres=suppression.conf_thres,
                iou_thres=suppression.iou_thres,
                max_det=suppression.topk_per_class,
                multi_label=not suppression.agnostic,
                agnostic=True,
                classes=group,
            ),
            size,
        )
        for group in groups
    ]
    return [_best(of_image, suppression.topk_all, size) for of_image in zip(*kept, strict=True)]


def _best(groups: Sequence[Detections], count: int, size: FrameSize) -> Detections:
    scores, order = torch.cat([group.scores for group in groups]).sort(descending=True, stable=True)
    order = order[:count]
    boxes, classes = torch.cat([group.boxes for group in groups]), torch.cat([group.classes for group in groups])
    return Detections(boxes=boxes[order], scores=scores[:count], classes=classes[order], size=size)


def fastest_milliseconds(backend: DetectionBackend, images: torch.Tensor) -> float:
    """Shortest time of a call, after one that is not counted: other work on the machine only ever adds to it."""
    backend.predict(images)
    return min(_milliseconds(lambda: backend.predict(images), images.device) for _ in range(TIMED_RUNS))


def size_in_megabytes(path: Path) -> float:
    """Size of a file or of everything in a folder, in 10^6 bytes."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def _batch(count: int, frame: FrameSize, images: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    if not images:
        generator = np.random.default_rng(0)
        images = [generator.integers(0, 256, (*frame, 3), dtype=np.uint8) for _ in range(count)]
    return as_network_input([letterbox(images[i % len(images)], frame)[0] for i in range(count)], device)


def _worst(so_far: float, difference: torch.Tensor) -> float:
    here = float(difference.abs().max()) if difference.numel() else 0.0
    return here if np.isnan(here) else max(so_far, here)


def _shape(predictions: Predictions) -> str:
    return " x ".join(str(side) for side in predictions.class_probs.shape[1:])


def _milliseconds(call: Callable[[], object], device: torch.device) -> float:
    clock = StageClock(device)
    clock.start()
    call()
    clock.lap("call")
    return clock.seconds()["call"] * 1e3

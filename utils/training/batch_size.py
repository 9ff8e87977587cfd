"""The batch size that a device holds (``--batch-size -1``)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from models.yolo import DetectionModel
from utils.geometry.records import Batch
from utils.loss.anchor_free_loss import AnchorFreeLoss
from utils.loss.detection_loss import DetectionLoss
from utils.runtime.device import autocast, placed
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)
DEFAULT = 16  # without a GPU, whose memory is the measure
MEMORY_SHARE = 0.8  # of the memory that is free
TRIED = (1, 2, 4, 8, 16)
OBJECTS, OBJECT_SIDE = 32, 1 / 8  # of an image, as in a mosaic of busy ones; the side as a share of the image's
OPTIMIZER_STATES = {"SGD": 1, "Adam": 2, "AdamW": 2, "RMSProp": 2}  # tensors that each keeps for a parameter


def fitting_batch_size(
    step_bytes: Callable[[int], int], imgsz: int, device: torch.device, *, multiple_of: int = 1, kept: int = 0
) -> int:
    """Images of ``imgsz`` pixels per batch that fill ``MEMORY_SHARE`` of a GPU's free memory; 16 on the CPU.

    Args:
        step_bytes: the memory of a training step with so many images, see `MeasuredStep`.
        imgsz: the longest side that a batch may have.
        device: to train on.
        multiple_of: what the batch size has to be divisible by.
        kept: bytes that stay on the device beside the steps, see `kept_bytes`.

    Raises:
        UserError: not even ``multiple_of`` images fit.
    """
    if device.type != "cuda":
        LOGGER.info("--batch-size -1: measures the memory of a GPU; on the CPU it is %d", DEFAULT)
        return DEFAULT
    free, _ = torch.cuda.mem_get_info(device)
    size = largest_batch(measured_bytes(step_bytes), int(free * MEMORY_SHARE) - kept) // multiple_of * multiple_of
    if size < 1:
        raise UserError(f"--batch-size -1: {free / 2**30:.1f} GiB of free memory are too little at --imgsz {imgsz}")
    LOGGER.info("--batch-size -1: %d images take %.0f %% of the free memory", size, 100 * MEMORY_SHARE)
    return size


def kept_bytes(model: DetectionModel, optimizer: str) -> int:
    """Bytes of the weights, of their average, and of what the optimizer keeps once it has made a step."""
    weights = sum(value.nbytes for value in (*model.parameters(), *model.buffers()))
    trained = sum(value.nbytes for value in model.parameters() if value.requires_grad)
    return 2 * weights + OPTIMIZER_STATES[optimizer] * trained


def measured_bytes(step_bytes: Callable[[int], int]) -> dict[int, int]:
    """Peak memory of a training step for growing batches, up to the first that does not fit."""
    measured: dict[int, int] = {}
    for count in TRIED:
        try:
            measured[count] = step_bytes(count)
        except torch.OutOfMemoryError:
            break
    return measured


def largest_batch(measured: Mapping[int, int], budget: int) -> int:
    """The batch size whose memory, on the line through those ``measured`` (images -> bytes), is ``budget`` bytes.

    With a single measurement memory is taken as proportional to the batch; without any the answer is 0.
    """
    if not measured:
        return 0
    counts, sizes = list(measured), list(measured.values())
    if len(counts) == 1:
        return budget * counts[0] // sizes[0]
    # In whole numbers: the rounding of floats would make a batch that fits exactly one smaller.
    slope, intercept = least_squares_line(counts, sizes)
    return max(math.floor((budget - intercept) / slope), 0) if slope > 0 else max(counts)


def least_squares_line(x: Sequence[int], y: Sequence[int]) -> tuple[Fraction, Fraction]:
    """Slope and intercept of the line through the points (x, y), without rounding."""
    n, sum_x, sum_y = len(x), sum(x), sum(y)
    products, squares = sum(a * b for a, b in zip(x, y, strict=True)), sum(a * a for a in x)
    slope = Fraction(n * products - sum_x * sum_y, n * squares - sum_x**2)
    return slope, (sum_y - slope * sum_x) / n


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """A training step whose memory can be measured on a GPU."""

    model: DetectionModel  # to train, not yet on the device
    loss: DetectionLoss | AnchorFreeLoss
    imgsz: int  # the longest side that a batch may have, pixels
    device: torch.device
    precision: torch.dtype

    def bytes(self, count: int) -> int:
        """Peak bytes of a forward pass over ``count`` black images, their loss and the backward pass."""
        model = placed(self.model, self.device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        was_training, state = model.training, {name: value.clone() for name, value in model.named_buffers()}
        model.train()
        try:
            on_host = black_images(count, self.imgsz)
            held = [on_host.copied(self.device) for _ in range(2)]  # as it came, and the next, see `copied_ahead`
            batch = held[0].on(self.device)
            with autocast(self.device, self.precision):
                maps = model(batch.images)
            self.loss(maps, batch).total.backward()  # type: ignore[no-untyped-call]
            return int(torch.cuda.max_memory_allocated(self.device)) - before
        finally:
            model.zero_grad()
            model.train(was_training)
            for name, value in model.named_buffers():  # the batch norms have seen black images
                value.copy_(state[name])


def black_images(count: int, imgsz: int) -> Batch:
    """So many images of ``imgsz`` pixels, each with ``OBJECTS`` of a side of ``OBJECT_SIDE``, spread evenly."""
    columns, side = round(1 / OBJECT_SIDE), imgsz * OBJECT_SIDE
    place = torch.arange(OBJECTS)
    corner = torch.stack((place % columns, place // columns), dim=1) * side
    boxes = torch.cat((corner, corner + side), dim=1)
    return Batch(
        images=torch.zeros(count, 3, imgsz, imgsz, dtype=torch.uint8),
        boxes=boxes.repeat(count, 1),
        classes=torch.zeros(count * OBJECTS, dtype=torch.int64),
        image_index=torch.arange(count).repeat_interleave(OBJECTS),
        letterboxes=(None,) * count,
        paths=(Path(),) * count,
        indices=(0,) * count,
    )

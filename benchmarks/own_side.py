"""Our side of the comparisons: each function prepares one thing, and times it in the process that calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from benchmarks.inputs import Times, head_maps, nms_rows, objects, times_of
from benchmarks.measuring import REPOSITORY
from models.common import SPDConv
from models.yolo import DetectionModel, load_architecture
from utils.config.hyperparameters import Hyperparameters, read_hyperparameters
from utils.dataset.coco_annotations import CocoTruth
from utils.dataset.detection_dataset import open_dataset
from utils.dataset.image_cache import cached_dataset
from utils.dataset.training_batches import SampleKey
from utils.dataset.training_loader import AugmentedImages
from utils.evaluation.coco_average_precision import CocoFindings, coco_figures
from utils.evaluation.evaluate import VALIDATION_NMS
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Batch, HeadMaps, Predictions
from utils.inference.nms import non_max_suppression
from utils.loss.detection_loss import DetectionLoss, LossGains
from utils.runtime.device import autocast, placed, resolve_precision
from utils.runtime.reused_memory import reuse_freed_memory
from utils.runtime.seeds import repeatable_arithmetic

CPU = torch.device("cpu")
CLASSES = 80
OBJECTS_PER_IMAGE, DETECTIONS_PER_IMAGE = 7.2, 100  # of COCO's validation images, and what is found in each
Call = Callable[[], object]


def nms(img: int) -> Times:
    """Suppression at evaluation settings, from centres and sizes on, as the peer's does."""
    rows = nms_rows(img)

    def suppress() -> None:
        half = rows[..., 2:4] / 2
        boxes, centres = rows.new_empty(*rows.shape[:2], 4), rows[..., :2]
        boxes[..., :2], boxes[..., 2:] = centres - half, centres + half
        non_max_suppression(Predictions(boxes, rows[..., 4], rows[..., 5:]), VALIDATION_NMS, FrameSize(img, img))

    return times_of(suppress)


def loss(img: int, images: int) -> Times:
    return times_of(loss_call(img, images))


def loss_call(side: int, images: int, each: int = 30) -> Call:
    """Forward and backward of the loss on raw maps; ``each``: objects per image."""
    model = DetectionModel(load_architecture("yolov5n"), class_count=CLASSES)
    compute, maps, batch = loss_of(model), head_maps(images, side), random_batch(images, side, each)

    def step() -> None:
        for one in maps:
            one.grad = None
        (compute(HeadMaps(tuple(maps)), batch).total * images).backward()  # type: ignore[no-untyped-call]

    return step


def loss_of(model: DetectionModel) -> DetectionLoss:
    gains = LossGains.from_hyperparameters(Hyperparameters())
    return DetectionLoss(model.anchors, model.strides, model.class_count, gains)


def random_batch(count: int, side: int, each: int = 30) -> Batch:
    """Random images with ``each`` objects."""
    rows = objects(count, each)
    half = rows[:, 4:] / 2
    images = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    return Batch(
        images=images,
        boxes=torch.cat((rows[:, 2:4] - half, rows[:, 2:4] + half), dim=1) * side,
        classes=rows[:, 1].long(),
        image_index=rows[:, 0].long(),
        letterboxes=(None,) * count,
        paths=(Path("none.jpg"),) * count,
        indices=tuple(range(count)),
    )


class SlicedSPDConv(nn.Module):
    """The block as it is usually written: four slices, a concatenation, a convolution of stride 1."""

    def __init__(self, block: SPDConv) -> None:
        super().__init__()
        self.conv, self.bn, self.act = block.conv, block.bn, block.act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        phases = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        out: torch.Tensor = self.act(self.bn(self.conv(torch.cat(phases, 1))))
        return out


def training_step(cfg: str, layout: str, precision: str, img: int, images: int) -> Times:
    """Steps of a model; ``layout``: ``strided`` as ours run, ``slices`` or ``slices_channels_last``."""
    return times_of(step_call(cfg, precision, img, images, layout), times=2)


def step_call(cfg: str, precision: str, side: int, images: int, layout: str = "strided") -> Call:
    """A whole step on one batch: forward, loss, backward, optimizer; the process computes as train.py does."""
    repeatable_arithmetic(CPU)
    reuse_freed_memory(CPU)
    torch.manual_seed(0)
    model = DetectionModel(load_architecture(cfg), class_count=CLASSES)
    for index, layer in enumerate(model.model):
        if layout != "strided" and isinstance(layer, SPDConv):
            model.model[index] = SlicedSPDConv(layer)  # a model of its own: the channel order differs
    model = placed(model, CPU).train()
    if layout == "slices":
        model = model.to(memory_format=torch.contiguous_format)
        model.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    pixels, compute, dtype = random_batch(images, side), loss_of(model), resolve_precision(precision, CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.937, nesterov=True, foreach=True)

    def step() -> None:
        batch = pixels.on(CPU)
        with autocast(CPU, dtype):
            maps = model(batch.images)
        (compute(maps, batch).total * images).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def augmentation(data: str, img: int, samples: int, place: str) -> Times:
    """Training samples of a folder of images, which are kept in ``memory`` or read from the ``disk``."""
    names = tuple(map(str, range(CLASSES)))
    return times_of(samples_call(Path(data), names, img, samples, place), times=3, per=samples)


def samples_call(folder: Path, names: tuple[str, ...], side: int, count: int, place: str) -> Call:
    """Samples with YOLOv5's default hyperparameters."""
    cv2.setNumThreads(0)
    dataset = open_dataset((folder,), names)
    if place == "memory":
        dataset = cached_dataset(dataset, "ram", long_side=side)
    hyp = read_hyperparameters(REPOSITORY / "data" / "hyps" / "hyp.scratch-low.yaml")
    samples = AugmentedImages(dataset, side, hyp, seed=0)
    return lambda: [samples[SampleKey(0, i, i % len(dataset))] for i in range(count)]


def coco_evaluation(images: int, engine: str) -> Times:
    """COCO's twelve figures with one engine; pycocotools' are held to those of hotcoco."""
    truth, findings = synthetic_set(images)
    if engine != "hotcoco":
        own, other = (coco_figures(truth, findings, one).summary for one in ("hotcoco", engine))
        np.testing.assert_allclose(own, other, rtol=0, atol=1e-9)
    return times_of(lambda: coco_figures(truth, findings, engine), times=5 if engine == "hotcoco" else 1)


def synthetic_set(image_count: int, seed: int = 0) -> tuple[CocoTruth, CocoFindings]:
    """Objects of all sizes with crowd regions, as many per image as COCO has; detections near them and nowhere."""
    rng = np.random.default_rng(seed)
    count, found = int(image_count * OBJECTS_PER_IMAGE), image_count * DETECTIONS_PER_IMAGE
    images = np.sort(rng.integers(0, image_count, count))
    classes = np.minimum(rng.geometric(0.06, count) - 1, CLASSES - 1)
    sides = np.exp(rng.normal(np.log(60), 1.0, (count, 2))).clip(2, 400)
    corners = rng.uniform(0, 640 - sides)
    boxes = np.column_stack((corners, corners + sides))
    areas = sides.prod(axis=1) * rng.uniform(0.4, 1, count)
    truth = CocoTruth(image_count, images, classes, boxes, areas, rng.random(count) < 0.01)

    near = rng.integers(0, count, found // 2)
    shifts = rng.normal(0, 0.1, (len(near), 4)) * np.tile(sides[near], 2)
    shifted = np.column_stack((corners[near] + shifts[:, :2], (sides[near] + shifts[:, 2:]).clip(1)))
    shifted[:, 2:] += shifted[:, :2]
    kinds = np.where(rng.random(len(near)) < 0.8, classes[near], rng.integers(0, CLASSES, len(near)))
    rest = found - len(near)
    away = np.column_stack((rng.uniform(0, 500, (rest, 2)), rng.uniform(5, 200, (rest, 2))))
    away[:, 2:] += away[:, :2]
    findings = CocoFindings(
        images=np.concatenate((images[near], rng.integers(0, image_count, rest))),
        classes=np.concatenate((kinds, rng.integers(0, CLASSES, rest))),
        boxes=np.concatenate((shifted, away)),
        scores=np.concatenate((rng.beta(2, 3, len(near)), rng.beta(1, 8, rest))),
    )
    return truth, findings

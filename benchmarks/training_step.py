"""Training steps (forward, loss, backward, optimizer) of SPD models, in processor time of one thread.

Two comparisons: the released SPD nano against the SPD authors' model (``--peer``, a YOLOv5-type checkout whose
``models/common.py`` has ``space_to_depth``; ``--cfg`` names its nano file), and ``yolov5n-spd`` against the same
model whose block is written as slices and a concatenation, in PyTorch's default order in memory and in channels_last.
All sides use the same optimizer. Run with OMP_NUM_THREADS=1.

python -m benchmarks.training_step --peer ~/SPD-Conv/YOLOv5-SPD --cfg models/space_depth_n.yaml
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.measuring import Command, alternate_children, print_ratios, python
from benchmarks.peer_side.inputs import objects, print_seconds
from models.common import SPD, SPDConv
from models.yolo import DetectionModel, load_architecture
from utils.config.hyperparameters import Hyperparameters
from utils.geometry.records import Batch
from utils.loss.detection_loss import DetectionLoss, LossGains
from utils.runtime.device import autocast, placed, resolve_precision
from utils.runtime.reused_memory import reuse_freed_memory
from utils.runtime.seeds import repeatable_arithmetic

CPU = torch.device("cpu")


class SlicedSPDConv(nn.Module):
    """The block as it is usually written: four slices, a concatenation, a convolution of stride 1."""

    def __init__(self, block: SPDConv) -> None:
        super().__init__()
        self.conv, self.bn, self.act = block.conv, block.bn, block.act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        phases = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        out: torch.Tensor = self.act(self.bn(self.conv(torch.cat(phases, 1))))
        return out


def sliced(model: DetectionModel) -> DetectionModel:
    """The model with every SPDConv as slices and a concatenation (a model of its own: the channel order differs)."""
    for index, layer in enumerate(model.model):
        assert not isinstance(layer, SPD)
        if isinstance(layer, SPDConv):
            model.model[index] = SlicedSPDConv(layer)
    return model


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


def training_step(model: DetectionModel, pixels: Batch, precision: torch.dtype) -> Callable[[], None]:
    """A whole step of a model that is ready to train, on one batch: forward, loss, backward, optimizer."""
    loss = DetectionLoss(
        model.anchors, model.strides, model.class_count, LossGains.from_hyperparameters(Hyperparameters())
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.937, nesterov=True, foreach=True)

    def step() -> None:
        batch = pixels.on(CPU)
        with autocast(CPU, precision):
            maps = model(batch.images)
        (loss(maps, batch).total * len(batch.paths)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def own_side(name: str, layout: str, side: int, images: int, precision: str) -> None:
    """Time steps of one of our models; ``layout``: ``strided``, ``slices`` or ``slices_channels_last``."""
    repeatable_arithmetic(CPU)  # as train.py
    reuse_freed_memory(CPU)
    torch.manual_seed(0)
    model = DetectionModel(load_architecture(name), class_count=80)
    if layout != "strided":
        model = sliced(model)
    model = placed(model, CPU).train()
    if layout == "slices":
        model = model.to(memory_format=torch.contiguous_format)
        model.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    step = training_step(model, random_batch(images, side), resolve_precision(precision, CPU))
    print_seconds(step, times=2, clock=time.process_time)


def main() -> None:
    """Run the sides in turn, print milliseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of the SPD authors' code, or of any checkout like it")
    parser.add_argument("--cfg", default="models/yolov5n-spd.yaml", help="its nano architecture, path in that folder")
    parser.add_argument("--img", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--own", nargs=3, metavar=("MODEL", "LAYOUT", "PRECISION"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    size = (str(flags.img), str(flags.batch_size))
    if flags.own:
        name, layout, precision = flags.own
        own_side(name, layout, flags.img, flags.batch_size, precision)
        return

    def ours(name: str, layout: str, precision: str) -> Command:
        sizes = ("--img", size[0], "--batch-size", size[1])
        return python("-m", "benchmarks.training_step", *sizes, "--own", name, layout, precision)

    def compare(title: str, commands: dict[str, Command], reference: str) -> None:
        seconds = alternate_children(commands, flags.rounds)
        milliseconds = {name: 1000 * value for name, value in seconds.items()}
        print_ratios(f"{title}, {size[0]} pixels, batch {size[1]}, CPU time", milliseconds, reference, unit="ms")

    both = ("fp32", "bf16")
    released = {f"ours, {p}": ours("yolov5n-spd-released", "strided", p) for p in both}
    if flags.peer:
        script = Path(__file__).parent / "peer_side" / "training_step.py"
        released |= {f"peer, {p}": python(script, flags.cfg, *size, p, folder=flags.peer) for p in both}
    compare("released SPD nano, a training step", released, "peer, fp32" if flags.peer else "ours, fp32")
    block = {
        f"{shown}, {p}": ours("yolov5n-spd", layout, p)
        for layout, shown in (
            ("strided", "SPDConv"),
            ("slices", "slices"),
            ("slices_channels_last", "slices, channels_last"),
        )
        for p in both
    }
    compare("yolov5n-spd, a training step", block, "slices, fp32")


if __name__ == "__main__":
    main()

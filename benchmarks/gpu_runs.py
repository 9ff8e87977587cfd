"""What `gpu_check` runs: the scripts on generated images, in processes of their own, on the GPU and on the CPU."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.measuring import Command, in_child, python
from models.fuse import fused
from models.weights import load_model
from utils.config.train_flags import TrainConfig
from utils.dataset.demo_scenes import SceneSize, write_demo_scenes
from utils.geometry.letterbox import FrameSize
from utils.inference.torch_backend import CompiledBackend, FixedBatch, TorchBackend
from utils.reporting.epoch_log import FinishedEpoch
from utils.reporting.watchers import Watcher
from utils.runtime.device import select_device
from utils.runtime.streams import StageClock, copied_ahead
from utils.training.batch_size import black_images
from utils.verbs.hub import HubDetector, open_file
from utils.verbs.train import train_detector

NAMES = ("vehicle", "boat", "person")
COLOURS = ((40, 60, 220), (40, 200, 60), (220, 40, 40))  # of the classifier's classes


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much there is to do."""

    train: int = 192
    val: int = 64
    imgsz: int = 320  # of what is compared
    batch_size: int = 16
    epochs: int = 24  # of the run whose weights are evaluated and exported
    least_ap50: float = 0.1  # of that run
    cfg: str = "yolov5n-spd.yaml"
    fast_cfg: str = "yolov5s-spd.yaml"  # of throughput and memory
    fast_imgsz: int = 640
    fast_batch: int = 32
    conf: float = 0.25
    copied_mib: int = 64  # of a batch
    workers: int = 8
    seconds_each: float = 240  # of a command
    seconds: float = 840  # of everything: what has not begun by then is left out


@dataclass(frozen=True, slots=True)
class Bench:
    """The device and the folder with images, weights and runs."""

    device: str
    folder: Path
    sizes: Sizes

    @property
    def data(self) -> Path:
        return self.folder / "scenes.yaml"

    @property
    def images(self) -> Path:
        return self.folder / "scenes" / "images" / "val"

    @property
    def whole(self) -> Path:
        """The run to the end, whose weights other checks need."""
        learns = {"hyp": "hyp.demo.yaml", "optimizer": "AdamW", "batch_size": 8}  # as `make demo`
        return self.trained("whole", epochs=self.sizes.epochs, **learns)

    @property
    def weights(self) -> Path:
        return self.whole / "weights" / "last.pt"

    def fill(self) -> None:
        """Images to detect and to classify in."""
        self.folder.mkdir(exist_ok=True)
        write_demo_scenes(self.folder / "scenes", SceneSize(self.sizes.train, self.sizes.val))
        lines = [f"path: {self.folder / 'scenes'}", "train: images/train", "val: images/val", f"names: {list(NAMES)}"]
        self.data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        rng = np.random.default_rng(0)
        for part, count in (("train", self.sizes.train // 3), ("val", self.sizes.val // 3)):
            for number, colour in enumerate(COLOURS):
                folder = self.folder / "classes" / part / f"colour{number}"
                folder.mkdir(parents=True, exist_ok=True)
                for image in range(count):
                    pixels = rng.integers(90, 150, (32, 32, 3), dtype=np.uint8)
                    y, x = rng.integers(0, 20, 2)
                    pixels[y : y + 12, x : x + 12] = colour
                    cv2.imwrite(str(folder / f"{image}.png"), pixels)

    def run(self, command: Command) -> str:
        """What it prints."""
        return replace(command, seconds=self.sizes.seconds_each).finished()[0]

    def child(self, function: Callable[..., object], **arguments: object) -> Any:
        """The result of one of our functions in a process of its own."""
        return replace(in_child(function, **arguments), seconds=self.sizes.seconds_each).result()

    def training(self, name: str, **settings: object) -> dict[str, object]:
        """Settings of a training run whose folder is ``train/NAME``."""
        common: dict[str, object] = {"weights": "", "cfg": self.sizes.cfg, "data": str(self.data), "epochs": 1}
        common |= {"imgsz": self.sizes.imgsz, "batch_size": self.sizes.batch_size, "workers": self.sizes.workers}
        common |= {"project": str(self.folder / "train"), "name": name, "exist_ok": True, "loggers": ("none",)}
        return common | {"noautoanchor": True, "noplots": True, "device": self.device} | settings

    def trained(self, name: str, **settings: object) -> Path:
        """The folder of a run of ``train.py``, which is trained once."""
        folder = self.folder / "train" / name
        if not (folder / "metrics.json").is_file():  # written at the end
            self.run(python("train.py", *as_flags(self.training(name, **settings))))
        return folder

    def evaluated(self, name: str, weights: Path, device: str, *flags: object) -> dict[str, Any]:
        """``metrics.json`` of a run of ``val.py``, which is evaluated once."""
        folder = self.folder / "val" / name
        if not (folder / "metrics.json").is_file():
            words = ["val.py", "--weights", weights, "--data", self.data, "--imgsz", self.sizes.imgsz, *flags]
            words += ["--device", device, "--workers", self.sizes.workers, "--project", folder.parent, "--name", name]
            self.run(python(*words, "--exist-ok"))
        metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return metrics


def as_flags(settings: Mapping[str, object]) -> list[str]:
    """Settings of a script as it takes them."""
    words: list[str] = []
    for name, value in settings.items():
        if value is False or value is None:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words += [str(one) for one in (value if isinstance(value, tuple) else (value,))]
    return words


def losses(run: Path) -> list[dict[str, float]]:
    """Box, objectness and class loss of each epoch."""
    with (run / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{key.strip(): float(cell) for key, cell in row.items() if "train/" in key} for row in rows]


class EpochClock(Watcher):
    """When each epoch ended, seconds."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_epoch(self, record: FinishedEpoch) -> None:
        self.ends.append(time.perf_counter())


class StopAfterAnEpoch(Watcher):
    """Ends a run as a full disk would."""

    def on_epoch(self, record: FinishedEpoch) -> None:
        raise StopIteration


def timed_training(settings: dict[str, Any]) -> dict[str, float]:
    """Train; seconds of the epochs but the first and the last, and the memory of the device."""
    clock = EpochClock()
    folder = train_detector(TrainConfig(**settings | {"loggers": ("none",)}), (clock,))
    steps = [later - earlier for earlier, later in zip(clock.ends, clock.ends[1:], strict=False)][:-1]
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    total = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 1
    loss = sum(losses(folder)[-1].values())
    return {"epoch": min(steps, default=math.inf), "peak": peak, "share": peak / total, "loss": loss}


def stopped_training(settings: dict[str, Any]) -> list[str]:
    """Train one epoch of several, and end without an end."""
    try:
        train_detector(TrainConfig(**settings | {"loggers": ("none",)}), (StopAfterAnEpoch(),))
    except StopIteration:
        return ["stopped"]
    raise AssertionError("the run was not stopped")


def hub_boxes(weights: str, image: str, device: str, conf: float) -> dict[str, list[list[float]]]:
    """What a hub detector finds on the CPU, moved to ``device``, and there in half precision: class, box, score."""
    detector = open_file(weights, "cpu", True)
    assert isinstance(detector, HubDetector)
    detector.conf = conf
    place = "cpu" if device == "cpu" else f"cuda:{device}"

    def found() -> list[list[float]]:
        rows = detector(image).xyxy[0].float().cpu()
        return torch.cat((rows[:, 5:], rows[:, :4], rows[:, 4:5]), 1).tolist()

    result = {"cpu": found()}
    detector.to(place)
    result["fp32"] = found()
    if device != "cpu":
        detector.half()
        result["fp16"] = found()
    return result


def copies_beside_computation(device: str, megabytes: int, batches: int = 20) -> dict[str, float]:
    """Milliseconds of copying ``batches`` to a GPU, of computing as long, and of both as in training."""
    place = torch.device("cuda", int(device))
    side = max(64, math.isqrt(megabytes * 2**20 // 96))
    batch = replace(black_images(32, side).pin_memory(), indices=())
    factor = torch.rand(1024, 1024, device=place)

    def timed(steps: int, *, copied: bool) -> float:
        clock = StageClock(place)
        clock.start()
        for _ in copied_ahead([batch] * batches, place) if copied else range(batches):
            for _ in range(steps):
                torch.mm(factor, factor)
        clock.lap("all")
        return 1e3 * clock.seconds()["all"]

    timed(1, copied=True)  # the libraries are loaded
    copies, once = timed(0, copied=True), timed(8, copied=False) / 8
    steps = max(1, round(copies / once))
    return {"copies": copies, "computation": timed(steps, copied=False), "both": timed(steps, copied=True)}


def compiled_network(weights: str, imgsz: int, device: str, conf: float) -> dict[str, float]:
    """Milliseconds of an image through a network as it is and compiled, the latter's begin in seconds.

    ``pixels``: largest difference of the sides of boxes that score above ``conf``.
    """
    place = select_device(device)
    plain = TorchBackend.in_precision(fused(load_model(Path(weights))), place, torch.float16)
    frame = FrameSize(imgsz, imgsz)
    images = torch.rand(1, 3, *frame, generator=torch.Generator().manual_seed(0)).to(place)
    begin = time.perf_counter()
    compiled = CompiledBackend(plain, FixedBatch(1, frame))
    found = {"seconds": time.perf_counter() - begin}
    expected, own = (backend.predict(images) for backend in (plain, compiled))
    shown = expected.objectness > min(conf, float(expected.objectness.max()) / 2)
    found["pixels"] = float((expected.boxes - own.boxes).abs()[shown].max())
    for name, backend in (("plain", plain), ("compiled", compiled)):
        clock = StageClock(place)
        for _ in range(100):
            clock.start()
            backend.predict(images)
            clock.lap(name)
        found |= {name: 10 * clock.seconds()[name]}
    return found

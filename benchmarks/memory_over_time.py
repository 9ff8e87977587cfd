"""Whether long runs grow: memory of detect.py, val.py and train.py, sampled while they work.

10 000 images, an hour of video, 1 000 steps; ``--share 0.1`` is a tenth of that. Images are generated and small, the
network is a nano with random weights: memory that is kept per image shows all the same. A run holds if its memory in
the last quarter is hardly above that in the second one.
"""

from __future__ import annotations

import os
import tempfile
import threading
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
import yaml

from benchmarks.measuring import Command, Table, python
from models.weights import checkpoint_fields
from models.yolo import DetectionModel, load_architecture
from utils.dataset.demo_scenes import NAMES, draw_scene, write_image

IMAGES, VIDEO_FRAMES, STEPS = 10_000, 90_000, 1_000  # an hour at 25 frames per second
SIDE = 64  # pixels of the network's frame
DIFFERENT = 50  # images drawn; the others are links to them
SAMPLE_SECONDS = 0.5
KIB_PER_MIB = 1024


def children_mib() -> float:
    """Resident memory of all processes that this one started, MiB; what they share counts once for each (Linux)."""
    total, waiting = 0.0, [os.getpid()]
    while waiting:
        process = waiting.pop()
        folder = Path("/proc") / str(process)
        try:
            status = (folder / "status").read_text()
            tasks = list((folder / "task").iterdir())
            waiting += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between two samples
        kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), "0")
        total += int(kib) / KIB_PER_MIB if process != os.getpid() else 0
    return total


def watched(command: Command) -> tuple[float, float, float, float]:
    """Seconds of a command, and MiB: median of the second quarter of the run and of the last one, and the peak."""
    samples: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not samples or not ended.wait(SAMPLE_SECONDS):
            samples.append(children_mib())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        _, cost = command.finished()
    finally:
        ended.set()
        sampler.join()
    quarter = max(len(samples) // 4, 1)
    early, late = median(samples[quarter : 2 * quarter] or samples), median(samples[-quarter:])
    return cost.wall, early, late, max(samples)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Images, labels, a video and a network in a folder of their own."""

    folder: Path
    share: float

    def count(self, whole: int) -> int:
        return max(round(whole * self.share), 4)

    def image_set(self, name: str, count: int) -> Path:
        """A data set of ``count`` images and labels; the folder of its images."""
        images, labels = self.folder / name / "images", self.folder / name / "labels"
        for folder in (images, labels):
            folder.mkdir(parents=True)
        for number in range(count):
            first = number % DIFFERENT
            image, label = images / f"{number:06d}.jpg", labels / f"{number:06d}.txt"
            if number < DIFFERENT:
                drawn, rows, quality = draw_scene(np.random.default_rng(number), (160, 192))
                write_image(image, drawn, quality)
                label.write_text("".join(rows))
            else:
                image.hardlink_to(images / f"{first:06d}.jpg")
                label.hardlink_to(labels / f"{first:06d}.txt")
        return images

    def dataset(self, name: str, count: int, val: Path | None = None) -> Path:
        """The YAML of such a data set; ``val``: images of the evaluation, by default those of training."""
        images = self.image_set(name, count)
        file = self.folder / f"{name}.yaml"
        content = {"path": str(images.parent), "train": "images", "val": str(val or "images"), "names": list(NAMES)}
        file.write_text(yaml.safe_dump(content))
        return file

    def network(self) -> Path:
        path = self.folder / "nano.pt"
        torch.save(checkpoint_fields(DetectionModel(load_architecture("yolov5n"), names=NAMES)), path)
        return path


def write_video(path: Path, frames: int, size: tuple[int, int]) -> Path:
    """H.264 of ``size`` (height, width), 25 frames per second: a flight over a scene, a pixel further each frame."""
    height, width = size
    scene, _, _ = draw_scene(np.random.default_rng(0), (height, 2 * width))
    with av.open(str(path), "w") as file:
        video = file.add_stream("h264", 25, {"preset": "veryfast"})
        video.height, video.width, video.pix_fmt = height, width, "yuv420p"
        for number in range(frames):
            left = number % width
            file.mux(video.encode(av.VideoFrame.from_ndarray(scene[:, left : left + width].copy(), "rgb24")))
        file.mux(video.encode(None))
    return path


def detect_images(inputs: Inputs) -> list[object]:
    source = inputs.image_set("many", inputs.count(IMAGES))
    return ["detect.py", "--weights", inputs.network(), "--source", source, "--img", SIDE]


def detect_video(inputs: Inputs) -> list[object]:
    source = write_video(inputs.folder / "hour.mp4", inputs.count(VIDEO_FRAMES), (SIDE, SIDE))
    return ["detect.py", "--weights", inputs.network(), "--source", source, "--img", 32, "--batch-size", 16]


def validate(inputs: Inputs) -> list[object]:
    data = inputs.dataset("val", inputs.count(STEPS))
    words = ["val.py", "--weights", inputs.network(), "--data", data, "--img", SIDE]
    return [*words, "--batch-size", 1, "--workers", 1]


def train(inputs: Inputs) -> list[object]:
    few = inputs.image_set("few", 4)  # so that what is watched is the steps, not the evaluation after them
    data = inputs.dataset("train", inputs.count(STEPS) * 2, val=few)
    words = ["train.py", "--weights", "", "--cfg", "yolov5n.yaml", "--data", data, "--img", SIDE, "--epochs", 1]
    return [*words, "--batch-size", 2, "--workers", 1, "--noautoanchor", "--noval"]


RUNS = {"detect-images": detect_images, "detect-video": detect_video, "val": validate, "train": train}


def tables(flags: Namespace) -> Iterator[Table]:
    """A row per run."""
    head = ("run", "seconds", "MiB in the second quarter", "in the last quarter", "peak")
    yield Table(head, (_row(name, flags.share) for name in flags.only))


def _row(name: str, share: float) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        words = RUNS[name](Inputs(Path(folder), share))
        return [name, *(f"{value:.0f}" for value in watched(python(*words, "--project", folder, "--name", "run")))]

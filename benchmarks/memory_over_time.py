"""Whether long runs grow: memory of detect.py, val.py and train.py, sampled while they work.

python -m benchmarks.memory_over_time                                  10 000 images, an hour of video, 1 000 steps
python -m benchmarks.memory_over_time --only detect-video --share 0.1  a tenth of one of them

Images are generated and small, the network is a nano with random weights: memory that is kept per image shows
all the same. A run holds if its memory in the last quarter is hardly above that in the second one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import yaml

from benchmarks.measuring import REPOSITORY, machine
from utils.dataset.demo_scenes import NAMES, draw_scene, write_image

IMAGES, VIDEO_FRAMES, STEPS = 10_000, 90_000, 1_000  # an hour at 25 frames per second
SIDE = 64  # pixels of the network's frame
DIFFERENT = 50  # images drawn; the others are links to them
SAMPLE_SECONDS = 0.5
KIB_PER_MIB = 1024


@dataclass(frozen=True, slots=True)
class Growth:
    """Memory of a process and all its children, MiB."""

    seconds: float
    early: float  # median of the second quarter of the run
    late: float  # of the last quarter
    peak: float


def resident_mib(process: int) -> float:
    """Resident memory of a process and its descendants, MiB; what they share counts once for each (Linux)."""
    total, waiting = 0.0, [process]
    while waiting:
        folder = Path("/proc") / str(waiting.pop())
        try:
            status = (folder / "status").read_text()
            tasks = list((folder / "task").iterdir())
            waiting += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between two looks
        kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), "0")
        total += int(kib) / KIB_PER_MIB
    return total


def watched(words: Sequence[str]) -> Growth:
    """Run a script of the repository to its end.

    Raises:
        RuntimeError: it failed; the message ends with its last lines.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    samples: list[float] = []

    def sample() -> None:
        while process.poll() is None:
            samples.append(resident_mib(process.pid))
            time.sleep(SAMPLE_SECONDS)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    assert process.stdout is not None
    tail = process.stdout.read()[-2000:]
    sampler.join()
    if process.wait():
        raise RuntimeError(f"{' '.join(words)} failed:\n{tail}")
    quarter = max(len(samples) // 4, 1)
    early, late = median(samples[quarter : 2 * quarter] or samples), median(samples[-quarter:])
    return Growth(time.perf_counter() - start, early, late, max(samples))


class Inputs:
    """Images, labels, a video and a network in a folder of their own."""

    def __init__(self, folder: Path, share: float) -> None:
        self.folder = folder
        self.share = share

    def count(self, whole: int) -> int:
        return max(round(whole * self.share), 10)

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

    def dataset(self, name: str, count: int) -> Path:
        """The YAML of such a data set, the same images for training and validation."""
        images = self.image_set(name, count)
        file = self.folder / f"{name}.yaml"
        content = {"path": str(images.parent), "train": "images", "val": "images", "names": list(NAMES)}
        file.write_text(yaml.safe_dump(content))
        return file

    def video(self, frames: int) -> Path:
        path = self.folder / "hour.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (SIDE, SIDE))
        scene, _, _ = draw_scene(np.random.default_rng(0), (2 * SIDE, 4 * SIDE))
        for number in range(frames):
            left = number % (3 * SIDE)
            writer.write(np.ascontiguousarray(scene[:SIDE, left : left + SIDE, ::-1]))
        writer.release()
        return path

    def network(self) -> Path:
        data = self.dataset("start", DIFFERENT)
        words = ["train.py", "--weights", "", "--cfg", "yolov5n.yaml", "--data", str(data), "--epochs", "0"]
        words += ["--img", str(SIDE), "--project", str(self.folder), "--name", "network", "--noplots", "--noautoanchor"]
        watched(words)
        return self.folder / "network" / "weights" / "last.pt"


def detect_images(inputs: Inputs) -> list[str]:
    source = inputs.image_set("many", inputs.count(IMAGES))
    return ["detect.py", "--weights", str(inputs.network()), "--source", str(source), "--img", str(SIDE)]


def detect_video(inputs: Inputs) -> list[str]:
    source = inputs.video(inputs.count(VIDEO_FRAMES))
    words = ["detect.py", "--weights", str(inputs.network()), "--source", str(source), "--img", "32"]
    return [*words, "--batch-size", "16"]


def validate(inputs: Inputs) -> list[str]:
    data = inputs.dataset("val", inputs.count(STEPS))
    words = ["val.py", "--weights", str(inputs.network()), "--data", str(data), "--img", str(SIDE)]
    return [*words, "--batch-size", "1", "--workers", "1"]


def train(inputs: Inputs) -> list[str]:
    data = inputs.dataset("train", inputs.count(STEPS) * 2)
    few = inputs.image_set("judged", DIFFERENT)  # so that what is watched is the steps, not the evaluation after them
    data.write_text(yaml.safe_dump(yaml.safe_load(data.read_text()) | {"val": str(few)}))
    words = ["train.py", "--weights", "", "--cfg", "yolov5n.yaml", "--data", str(data), "--img", str(SIDE)]
    return [*words, "--epochs", "1", "--batch-size", "2", "--workers", "1", "--noautoanchor", "--noval"]


RUNS: dict[str, Callable[[Inputs], list[str]]] = {
    "detect-images": detect_images,
    "detect-video": detect_video,
    "val": validate,
    "train": train,
}


def main() -> None:
    """Run each, print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(RUNS), nargs="+", default=list(RUNS))
    parser.add_argument("--share", type=float, default=1.0, help="of the images, frames and steps")
    flags = parser.parse_args()
    print(f"{machine()}\n\n| run | seconds | MiB in the second quarter | in the last quarter | peak |")
    print("|---|---:|---:|---:|---:|")
    for name in flags.only:
        with tempfile.TemporaryDirectory() as folder:
            words = RUNS[name](Inputs(Path(folder), flags.share))
            grown = watched([*words, "--project", folder, "--name", "run"])
        print(f"| {name} | {grown.seconds:.0f} | {grown.early:.0f} | {grown.late:.0f} | {grown.peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()

"""A folder with what the commands of the pages name, and the commands run there, one after another, in one process.

    python -m tests.documentation.workspace FOLDER < commands.json > outcomes.json

One process, because starting the program takes longer than a tiny run of it. Each command starts with the program's
log as a new process has it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import runpy
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch

from models.classifier import is_classifier
from tests.documentation.tiny import CLASSES, DATA, SIDE
from tests.shared_data import REPOSITORY
from tests.small_classes import write_small_classes
from tests.small_dataset import write_small_dataset
from utils.config.classify_flags import ClassifyTrainConfig
from utils.config.export_flags import ExportConfig
from utils.config.train_flags import TrainConfig
from utils.reporting.epoch_log import FinishedEpoch
from utils.reporting.watchers import Watcher
from utils.verbs.export import run_export
from utils.verbs.train import train_detector
from utils.verbs.train_classifier import train_classifier

NANO = "made/nano/weights/last.pt"
CLASSIFIER = "made/classifier/weights/last.pt"
MADE_FORMATS = ("onnx", "torchscript")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")
DEFAULT_WEIGHTS = ("yolov5s.pt", "yolov5s-cls.pt")  # what a command without --weights reads


class Interruption(Exception):
    """Ends a run after its first epoch, as a kill would."""


class InterruptAfterAnEpoch(Watcher):
    def on_epoch(self, record: FinishedEpoch) -> None:
        raise Interruption


def fill(folder: Path) -> None:
    """Images, a data set, weights and files exported from them, and a run that was cut off."""
    yaml = write_small_dataset(folder / "datasets" / "my", train=8, val=4)
    text = yaml.read_text() + "test: images/val\n"
    (folder / DATA).write_text(text.replace(str(yaml.parent), "datasets/my"))
    shutil.copytree(yaml.parent / "images" / "val", folder / "images")
    (folder / "data").symlink_to(REPOSITORY / "data")
    tiny = {
        "weights": "",
        "cfg": "yolov5n.yaml",
        "data": str(folder / DATA),
        "imgsz": SIDE,
        "batch_size": 4,
        "workers": 0,
    }
    tiny |= {"noplots": True, "loggers": ("none",), "project": str(folder / "made")}
    train_detector(TrainConfig(**tiny, epochs=0, name="nano"))  # type: ignore[arg-type]
    run_export(ExportConfig(weights=str(folder / NANO), include=MADE_FORMATS, imgsz=(SIDE,)))
    with contextlib.suppress(Interruption):
        train_detector(TrainConfig(**tiny, epochs=2, name="cut-off"), (InterruptAfterAnEpoch(),))  # type: ignore[arg-type]
    write_small_classes(folder / CLASSES, train=2, evaluated=1)
    small: dict[str, Any] = {name: tiny[name] for name in ("imgsz", "batch_size", "workers", "noplots", "loggers")}
    small |= {"model": "yolov5n-spd-cls", "cutoff": 4, "data": str(folder / CLASSES), "project": tiny["project"]}
    train_classifier(ClassifyTrainConfig(**small, epochs=0, name="classifier"))
    with contextlib.suppress(Interruption):
        cut_off = ClassifyTrainConfig(**small, epochs=2, name="cut-off-classifier")
        train_classifier(cut_off, (InterruptAfterAnEpoch(),))


def provide(folder: Path, words: Sequence[str]) -> None:
    """What a command reads and is not there yet: weights of any name, the run that ``--resume`` goes on with."""
    if "--resume" in words:
        given = words[words.index("--resume") + 1 :]
        run = folder / Path(given[0]).parent.parent if given and not given[0].startswith("-") else None
        classifies = words[1].startswith("classify/")
        run = run or folder / "runs" / ("train-cls" if classifies else "train") / f"cut-off-{time.time_ns()}"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(folder / "made" / ("cut-off-classifier" if classifies else "cut-off"), run)
        (run / "weights" / "last.pt").touch()
        return
    if "--source" in words:
        provide_source(folder, words[words.index("--source") + 1])
    for word in (*words, *DEFAULT_WEIGHTS):
        # A file of one name may be a detector in one page and a classifier in the next.
        made = (folder / (CLASSIFIER if words[1].startswith("classify/") else NANO)).with_suffix(Path(word).suffix)
        if not made.is_file():
            continue
        file = folder / word
        # An export of an earlier command may be of another kind under the same name.
        if made.suffix != ".pt" or not file.exists() or is_classifier(file) != is_classifier(made):
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made, file)
    if "--conf-thres auto" in " ".join(words):
        give_threshold(folder / words[words.index("--weights") + 1])


def give_threshold(checkpoint: Path) -> None:
    """What ``--conf auto`` reads; a checkpoint of one tiny epoch finds no object, so it has none."""
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {"thresholds": {"best_f1": 0.25, "classes": {}}}, checkpoint)


def provide_source(folder: Path, source: str) -> None:
    """Images or a video under the name that a command gives."""
    file, images = folder / source, sorted((folder / "images").iterdir())
    if "*" in source:
        file = folder / source.replace("**", "deep").replace("*", "image")
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".txt":
        file.write_text("".join(f"{image}\n" for image in images))
    elif file.suffix.lower() in VIDEO_SUFFIXES:
        frame = cv2.imread(str(images[0]))
        assert frame is not None
        video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 5, (frame.shape[1], frame.shape[0]))
        for _ in range(6):
            video.write(frame)
        video.release()
    elif file.suffix:
        shutil.copyfile(images[0], file)
    else:
        shutil.copytree(folder / "images", file)


def run(words: Sequence[str]) -> int:
    """Run ``python SCRIPT ...`` or ``python -m MODULE ...`` here; its exit code."""
    is_module = words[1] == "-m"
    sys.argv = [words[2] if is_module else words[1], *words[3 if is_module else 2 :]]
    try:
        if is_module:
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(REPOSITORY / words[1]), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@contextlib.contextmanager
def fresh_logs() -> Iterator[io.StringIO]:
    """What a command says, and its loggers put back afterwards."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield said
    for package in ("models", "utils", "classify"):
        logging.getLogger(package).handlers.clear()


def main() -> None:
    folder = Path(sys.argv[1])
    commands: list[str] = json.load(sys.stdin)
    os.chdir(folder)
    outcomes = []
    with fresh_logs():
        fill(folder)
    for command in commands:
        words, start = shlex.split(command.replace("FOLDER", str(folder))), time.perf_counter()
        with fresh_logs() as said:
            provide(folder, words)
            code = run(words)
        outcomes.append({"code": code, "seconds": time.perf_counter() - start, "said": said.getvalue()[-4000:]})
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()

"""What the runs on the pretended GPU read: images, labels, detectors and a classifier, all tiny."""

from __future__ import annotations

from pathlib import Path

from tests.exporting.small_model import write_small_checkpoint
from tests.small_classes import write_small_classes
from tests.small_dataset import NAMES, write_small_dataset

TRAINED, EVALUATED = (16, 32), (8, 16)  # images of the shorter and of the longer part
CLASSIFIED = (4, 8)  # of each class
TRAIN = (
    *("--imgsz", 64, "--batch-size", 4, "--epochs", 1, "--workers", 0, "--device", 0),
    *("--noplots", "--loggers", "none", "--noautoanchor"),
)


def fill(folder: Path) -> None:
    """``t16.yaml``, ``t32.yaml``, ``v8.yaml`` and ``v16.yaml`` differ in how many images one of their parts has."""
    write_small_dataset(folder / "images", train=max(TRAINED), val=max(EVALUATED))
    for count in TRAINED:
        write_part(folder, f"t{count}.yaml", count, min(EVALUATED))
    for count in EVALUATED:
        write_part(folder, f"v{count}.yaml", min(TRAINED), count)
        frames = [folder / "images" / "images" / "val" / f"{number:03d}.png" for number in range(count)]
        (folder / f"frames{count}.txt").write_text("".join(f"{path}\n" for path in frames))
    write_small_checkpoint(folder / "small.pt")
    for count in CLASSIFIED:
        write_small_classes(folder / f"c{count}", train=count, evaluated=count)
        listed = sorted((folder / f"c{count}" / "val").rglob("*.png"))
        (folder / f"classified{count}.txt").write_text("".join(f"{path}\n" for path in listed))


def write_part(folder: Path, name: str, train: int, val: int) -> None:
    """A data set of the first images of either part."""
    lines = []
    for part, count in (("train", train), ("val", val)):
        listed = folder / f"{name}.{part}.txt"
        files = [folder / "images" / "images" / part / f"{number:03d}.png" for number in range(count)]
        listed.write_text("".join(f"{path}\n" for path in files))
        lines.append(f"{part}: {listed}\n")
    (folder / name).write_text("".join(lines) + f"names: {list(NAMES)}\n")

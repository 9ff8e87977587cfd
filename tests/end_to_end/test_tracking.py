"""detect.py on a video of real objects that move on known ways, with the official weights: the counts are the truth."""

from __future__ import annotations

import csv
import importlib.util
import json
import logging
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from tests.shared_data import SHARED, needs_shared
from utils.config.command_line import parse_command_line
from utils.config.detect_flags import DetectConfig
from utils.verbs.detect import run_detection

pytestmark = [
    pytest.mark.slow,
    needs_shared,
    pytest.mark.skipif(
        importlib.util.find_spec("trackers") is None, reason="trackers is not installed (pip install trackers)"
    ),
]
FRAMES, RATE = 40, 10.0
WIDTH, HEIGHT = 320, 240
LONGEST = 56  # pixels, of every object
LINE = "160,0,160,240"  # downwards: its right is where x is small
ZONE = [[205, 130], [315, 130], [315, 235], [205, 235]]


class Mover(NamedTuple):
    """An object cut out of an image of COCO, and the places of its centre, between which it goes straight on."""

    image: str
    window: tuple[int, int, int, int]  # left, top, right, bottom
    way: tuple[tuple[float, float], ...]


MOVERS = (
    Mover("000000000625", (175, 221, 288, 429), ((40, 45), (215, 45))),  # a person that crosses the line to its left
    Mover("000000000064", (102, 28, 284, 213), ((255, 190), (50, 190))),  # a clock out of the zone, then to the right
    Mover("000000000308", (111, 11, 289, 440), ((60, 115), (135, 115), (60, 115))),  # one that turns back before
    Mover("000000000625", (175, 221, 288, 429), ((275, 45), (275, 190))),  # one that comes into the zone
)
TRUTH = {
    ("line 1", "person", "out"): 1,
    ("line 1", "clock", "in"): 1,
    ("yard", "clock", "out"): 1,
    ("yard", "person", "in"): 1,
}


def frames() -> list[np.ndarray]:
    """The video's images (H, W, 3) BGR."""
    cuts = []
    for mover in MOVERS:
        image = cv2.imread(str(SHARED / "data" / "coco128" / "images" / "train2017" / f"{mover.image}.jpg"))
        assert image is not None
        left, top, right, bottom = mover.window
        scale = LONGEST / max(right - left, bottom - top)
        size = (round(scale * (right - left)), round(scale * (bottom - top)))
        cuts.append(cv2.resize(image[top:bottom, left:right], size, interpolation=cv2.INTER_AREA))
    images = []
    for number in range(FRAMES):
        image = np.full((HEIGHT, WIDTH, 3), (120, 125, 120), np.uint8)
        for mover, cut in zip(MOVERS, cuts, strict=True):
            stops = np.linspace(0, FRAMES - 1, len(mover.way))
            x, y = (np.interp(number, stops, axis) for axis in zip(*mover.way, strict=True))
            top, left = round(y - cut.shape[0] / 2), round(x - cut.shape[1] / 2)
            image[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
        images.append(image)
    return images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The video, its images, and the zones."""
    folder = tmp_path_factory.mktemp("tracking")
    (folder / "images").mkdir()
    writer = cv2.VideoWriter(
        str(folder / "moving.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), RATE, (WIDTH, HEIGHT)
    )
    for number, image in enumerate(frames()):
        writer.write(image)
        cv2.imwrite(str(folder / "images" / f"{number:03d}.jpg"), image, (cv2.IMWRITE_JPEG_QUALITY, 98))
    writer.release()
    (folder / "zones.json").write_text(json.dumps([{"name": "yard", "polygon": ZONE}]))
    return folder


def run(folder: Path, *flags: object, source: str = "moving.mp4") -> Path:
    """Count with the official weights; the folder of the run."""
    words = ["--weights", SHARED / "weights" / "yolov5n.pt", "--source", folder / source, "--img", 320]
    words += [
        "--count-line",
        LINE,
        "--count-zone",
        folder / "zones.json",
        "--project",
        folder / "runs",
        "--device",
        "cpu",
    ]
    config = parse_command_line(DetectConfig, list(map(str, [*words, *flags])), prog="detect.py", description="")
    return run_detection(config).folder


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open()))


def counts(folder: Path) -> dict[tuple[str, str, str], int]:
    found = rows(folder / "counts.csv")
    both = {(row["boundary"], row["class"], way): int(row[way]) for row in found for way in ("in", "out")}
    return {key: count for key, count in both.items() if count}


@pytest.mark.parametrize(
    ("flags", "frames_apart"),
    [
        ((), 1),
        (("--slice", 160, "--batch-size", 7), 1),
        (("--vid-stride", 2, "--batch-size", 4, "--agnostic-nms"), 2),
    ],
    ids=["whole", "tiles", "stride"],
)
def test_the_counts_are_the_truth(
    folder: Path, flags: tuple[object, ...], frames_apart: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        done = run(folder, *flags, "--save-mot")
    assert counts(done) == TRUTH
    assert [record.getMessage() for record in caplog.records][-3:] == [
        "line 1: in 1 (1 clock), out 1 (1 person)",
        "yard: in 1 (1 person), out 1 (1 clock)",
        f"results in {done}",
    ]
    crossings = {(row["boundary"], row["class"], row["direction"]): row for row in rows(done / "crossings.csv")}
    assert set(crossings) == set(TRUTH)
    # The first goes 175 px in 39 frames: from 40 to 160 in 26.7. The last 145 px: from 45 to 130 in 22.9.
    for key, true in ((("line 1", "person", "out"), 26.7), (("yard", "person", "in"), 22.9)):
        frame = int(crossings[key]["frame"])
        assert true - 1 <= frame <= true + 2 + frames_apart
        assert float(crossings[key]["seconds"]) == pytest.approx(frame / RATE, abs=1e-3)
    assert cv2.imread(str(done / "moving_counts.png")) is not None
    mot = np.loadtxt(done / "mot" / "moving.txt", delimiter=",")
    assert mot.shape[1] == 10
    assert set(mot[:, 0].astype(int)) == set(range(1 + frames_apart, FRAMES + 1, frames_apart))


def test_only_the_classes_asked_for_are_followed(folder: Path) -> None:
    done = run(folder, "--classes", 74, "--nosave")
    assert counts(done) == {key: count for key, count in TRUTH.items() if key[1] == "clock"}


def test_the_images_of_a_folder_are_counted_as_their_video(folder: Path) -> None:
    done = run(folder, "--save-mot", source="images")
    assert counts(done) == TRUTH
    assert [path.name for path in (done / "mot").iterdir()] == ["images.txt"]
    assert {row["seconds"] for row in rows(done / "crossings.csv")} == {""}

"""detect.py as a user runs it: each flag's effect on the files of the run folder, on pictures and video."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.end_to_end.scripts import run_script
from tests.exporting.small_model import NAMES, write_small_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with weights, three pictures, one that is broken, and a video of the first."""
    folder = tmp_path_factory.mktemp("detect")
    write_small_checkpoint(folder / "small.pt")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(3)]
    for name, picture in zip(("a.png", "b.png", "a.jpg"), pictures, strict=True):
        cv2.imwrite(str(folder / "pictures" / name), picture)
    (folder / "pictures" / "broken.jpg").write_bytes(b"no picture")
    writer = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, (96, 64))
    for picture in (pictures[0], pictures[1], pictures[0]):
        writer.write(picture)
    writer.release()
    return folder


def detect(folder: Path, run: str, *flags: object, expect: int = 0) -> tuple[Path, str]:
    """The run's folder and what the script printed."""
    common = ("--weights", "small.pt", "--img", 96, "--conf", 0.5, "--name", run)
    result = run_script("detect.py", *common, *flags, folder=folder, expect=expect)
    return folder / "runs" / "detect" / run, result.stdout + result.stderr


def rows(file: Path) -> np.ndarray:
    return np.loadtxt(file, ndmin=2)


@pytest.fixture(scope="module")
def labelled(folder: Path) -> Path:
    return detect(folder, "labelled", "--source", "pictures", "--save-txt", "--save-conf", "--save-crop")[0]


def test_annotated_pictures_labels_and_crops(labelled: Path) -> None:
    # Two pictures share a stem: neither's files overwrite the other's.
    assert sorted(path.name for path in labelled.glob("*.*")) == ["a.jpg", "a2.png", "b.png"]
    assert sorted(path.name for path in (labelled / "labels").iterdir()) == ["a.txt", "a2.txt", "b.txt"]
    found = rows(labelled / "labels" / "b.txt")
    assert found.shape[1] == 6 and len(found) > 1
    assert (found[:, 5] > 0.5).all() and (np.diff(found[:, 5]) <= 0).all()
    crops = Counter(path.parent.name for path in (labelled / "crops").glob("*/b*.jpg"))
    assert sum(crops.values()) == len(found)
    original = cv2.imread(str(labelled.parents[2] / "pictures" / "b.png"))
    drawn = cv2.imread(str(labelled / "b.png"))
    assert original is not None and drawn is not None
    assert drawn.shape == original.shape and (drawn != original).any()


def test_last_line_and_skipped_file(folder: Path) -> None:
    run, output = detect(folder, "said", "--source", "pictures", "--nosave")
    assert "broken.jpg" in output and "WARNING" in output
    assert re.search(r"3 frames, [\d.]+ ms per frame: \d+ ", output)
    assert f"results in {run.relative_to(folder)}" in output
    assert list(run.iterdir()) == []


def test_scores_stay_out_of_label_files_unless_asked_for(folder: Path, labelled: Path) -> None:
    run, _ = detect(folder, "plain", "--source", "pictures/b.png", "--save-txt", "--nosave")
    np.testing.assert_array_equal(rows(run / "labels" / "b.txt"), rows(labelled / "labels" / "b.txt")[:, :5])


def test_thresholds_and_filters_reach_suppression(folder: Path, labelled: Path) -> None:
    everything = rows(labelled / "labels" / "b.txt")
    common = ("--source", "pictures/b.png", "--save-txt", "--save-conf", "--nosave")
    kind = int(everything[0, 0])
    run, _ = detect(folder, "filtered", *common, "--classes", kind, "--max-det", 2, "--iou", 0.01)
    found = rows(run / "labels" / "b.txt")
    assert 0 < len(found) <= 2 and set(found[:, 0]) == {kind}
    run, _ = detect(folder, "agnostic", *common, "--agnostic-nms", "--iou", 0.01)
    assert len(rows(run / "labels" / "b.txt")) < len(everything)
    assert len(np.unique(everything[:, 0])) > 1


def test_video_gives_the_boxes_of_its_pictures(folder: Path, labelled: Path) -> None:
    run, _ = detect(folder, "video", "--source", "v.avi", "--save-txt", "--save-conf")
    assert sorted(path.name for path in (run / "labels").iterdir()) == ["v_0.txt", "v_1.txt", "v_2.txt"]
    np.testing.assert_array_equal(rows(run / "labels" / "v_1.txt"), rows(labelled / "labels" / "b.txt"))
    capture = cv2.VideoCapture(str(run / "v.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 10 and capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    run, _ = detect(folder, "strided", "--source", "v.avi", "--save-txt", "--nosave", "--vid-stride", 2)
    assert sorted(path.name for path in (run / "labels").iterdir()) == ["v_0.txt", "v_2.txt"]


def test_repository_pictures_without_any_source(folder: Path) -> None:
    """A bare run from the repository finds pictures: ``data/images`` holds some."""
    from tests.shared_data import REPOSITORY

    weights, project = folder / "small.pt", folder / "bare"
    run_script("detect.py", "--weights", weights, "--project", project, folder=REPOSITORY)
    assert len(list((project / "exp").glob("*.jpg"))) >= 2


@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        (("--source", "nowhere"), 1, "error: nowhere: no such file or folder"),
        (("--source", "0"), 1, "error: 0: webcams, streams and screens cannot be read"),
        (("--source", "pictures/broken.jpg"), 1, "error: pictures/broken.jpg: none of 1 files could be read"),
        (("--source", "pictures", "--classes", 3), 2, "error: --classes 3: the model has classes 0 to 2"),
        (("--source", "pictures", "--weights", "none.pt"), 1, "error: none.pt: no such weights file"),
    ],
)
def test_mistakes_are_one_line(folder: Path, flags: tuple[object, ...], code: int, line: str) -> None:
    _, output = detect(folder, "wrong", *flags, expect=code)
    assert line in output
    assert len(NAMES) == 3

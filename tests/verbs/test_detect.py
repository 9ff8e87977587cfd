"""A detection run: each flag's effect on the files of the run folder, on images and video."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.exporting.small_model import NAMES, write_small_checkpoint
from tests.same_detections import assert_same_label_rows
from utils.config.command_line import parse_command_line
from utils.config.detect_flags import DetectConfig
from utils.user_error import UserError
from utils.verbs.detect import DetectionSummary, run_detection


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with weights, three images, one that is broken, and a video of two of them."""
    folder = tmp_path_factory.mktemp("detect")
    write_small_checkpoint(folder / "small.pt")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(3)]
    for name, image in zip(("a.png", "b.png", "a.jpg"), images, strict=True):
        cv2.imwrite(str(folder / "images" / name), image)
    (folder / "images" / "broken.jpg").write_bytes(b"no image")
    writer = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, (96, 64))
    for image in (images[0], images[1], images[0]):
        writer.write(image)
    writer.release()
    return folder


def detect(folder: Path, *flags: object, weights: str = "small.pt") -> DetectionSummary:
    """What a run gives; ``flags`` as on the command line, paths seen from ``folder``."""
    # Noise gives crowds of boxes with nearly equal scores: which of them survives, and which are just above a low
    # threshold, hangs on the last bit. Here the nearest score is 0.001 from it, and nothing is suppressed.
    apart = ("--conf", 0.88, *(() if "--iou" in flags else ("--iou", 1)))
    words = ["--weights", folder / weights, "--img", 96, *apart, "--project", folder / "runs", *flags]
    return run_detection(parse_command_line(DetectConfig, list(map(str, words)), prog="detect.py", description=""))


def rows(file: Path) -> np.ndarray:
    return np.loadtxt(file, ndmin=2)


@pytest.fixture(scope="module")
def labelled(folder: Path) -> Path:
    return detect(folder, "--source", folder / "images", "--save-txt", "--save-conf", "--save-crop").folder


def test_annotated_images_labels_and_crops(folder: Path, labelled: Path) -> None:
    # Two images share a stem: neither's files overwrite the other's.
    assert sorted(path.name for path in labelled.glob("*.*")) == ["a.jpg", "a2.png", "b.png"]
    assert sorted(path.name for path in (labelled / "labels").iterdir()) == ["a.txt", "a2.txt", "b.txt"]
    found = rows(labelled / "labels" / "b.txt")
    assert found.shape[1] == 6 and len(found) > 1
    assert (found[:, 5] > 0.88).all() and (np.diff(found[:, 5]) <= 0).all()
    crops = Counter(path.parent.name for path in (labelled / "crops").glob("*/b*.jpg"))
    assert sum(crops.values()) == len(found)
    original, drawn = cv2.imread(str(folder / "images" / "b.png")), cv2.imread(str(labelled / "b.png"))
    assert original is not None and drawn is not None
    assert drawn.shape == original.shape and (drawn != original).any()


def test_summary_and_skipped_file(folder: Path, labelled: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    summary = detect(folder, "--source", folder / "images", "--nosave")
    assert summary.frames == 3
    assert len(summary.skipped) == 1 and "broken.jpg" in summary.skipped[0]
    assert sum(count for _, count in summary.objects) == sum(len(rows(f)) for f in (labelled / "labels").iterdir())
    assert caplog.messages[-1] == f"results in {summary.folder}"
    assert list(summary.folder.iterdir()) == []


def test_scores_stay_out_of_label_files_unless_asked_for(folder: Path, labelled: Path) -> None:
    run = detect(folder, "--source", folder / "images" / "b.png", "--save-txt", "--nosave").folder
    found, expected = rows(run / "labels" / "b.txt"), rows(labelled / "labels" / "b.txt")
    assert found.shape[1] == 5
    without, also_without = (np.column_stack((table[:, :5], np.ones(len(table)))) for table in (found, expected))
    assert_same_label_rows(without, also_without)


def test_thresholds_and_filters_reach_suppression(folder: Path, labelled: Path) -> None:
    everything = rows(labelled / "labels" / "b.txt")
    common = ("--source", folder / "images" / "b.png", "--save-txt", "--save-conf", "--nosave", "--iou", 0.01)
    kind = int(everything[0, 0])
    run = detect(folder, *common, "--classes", kind, "--max-det", 2).folder
    found = rows(run / "labels" / "b.txt")
    assert 0 < len(found) <= 2 and set(found[:, 0]) == {kind}
    assert len(np.unique(everything[:, 0])) > 1
    separate, agnostic = (detect(folder, *common, *flag) for flag in ((), ("--agnostic-nms",)))
    assert sum(count for _, count in agnostic.objects) < sum(count for _, count in separate.objects)


def test_what_is_drawn(folder: Path) -> None:
    common = ("--source", folder / "images" / "b.png", "--max-det", 1)
    plain, bare, thick = (
        cv2.imread(str(detect(folder, *common, *flags).folder / "b.png"))
        for flags in (
            ("--tags", "all"),
            ("--hide-labels", "--hide-conf"),
            ("--hide-labels", "--hide-conf", "--line-thickness", 6),
        )
    )
    original = cv2.imread(str(folder / "images" / "b.png"))
    assert original is not None and plain is not None and bare is not None and thick is not None
    changed = [(image != original).any(axis=2).sum() for image in (plain, bare, thick)]
    assert changed[0] > changed[1] > 0, "a label covers more than the box alone"
    assert changed[2] > changed[1], "a thick line covers more than a thin one"


@pytest.mark.case("Flags", "--hide-labels", "the whole tag is left out, as by YOLOv5; --hide-conf leaves out the score")
def test_hide_labels_hides_the_score_too(folder: Path) -> None:
    common = ("--source", folder / "images" / "b.png", "--max-det", 1)
    tagged, hidden, bare, named = (
        (detect(folder, *common, *flags).folder / "b.png").read_bytes()
        for flags in (("--tags", "all"), ("--hide-labels",), ("--tags", "none"), ("--tags", "all", "--hide-conf"))
    )
    assert hidden == bare and len({tagged, bare, named}) == 3


def test_tags(folder: Path, tmp_path: Path) -> None:
    large = cv2.resize(np.asarray(cv2.imread(str(folder / "images" / "b.png"))), (480, 320))
    cv2.imwrite(str(tmp_path / "b.png"), large)
    auto, every, none = (
        np.asarray(cv2.imread(str(detect(folder, "--source", tmp_path / "b.png", "--tags", tags).folder / "b.png")))
        for tags in ("auto", "all", "none")
    )
    beside = [(image != none).any(axis=2).sum() for image in (auto, every)]
    assert 0 < beside[0] < beside[1]


def test_video_gives_the_boxes_of_its_images(folder: Path, labelled: Path) -> None:
    run = detect(folder, "--source", folder / "v.avi", "--save-txt", "--save-conf").folder
    assert sorted(path.name for path in (run / "labels").iterdir()) == ["v_0.txt", "v_1.txt", "v_2.txt"]
    assert_same_label_rows(rows(run / "labels" / "v_1.txt"), rows(labelled / "labels" / "b.txt"))
    capture = cv2.VideoCapture(str(run / "v.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 10 and capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (96, 64)
    run = detect(folder, "--source", folder / "v.avi", "--save-txt", "--nosave", "--vid-stride", 2).folder
    assert sorted(path.name for path in (run / "labels").iterdir()) == ["v_0.txt", "v_2.txt"]


def test_size_is_rounded_to_the_stride(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    detect(folder, "--source", folder / "images" / "b.png", "--img", 90, 99, "--nosave")
    assert any("taking 96x104 px, multiples of the stride 8" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        (("--source", "nowhere"), 1, "nowhere: no such file or folder"),
        (("--source", "0"), 1, "0: cannot be opened or gives no frame"),
        (("--source", "{folder}/images/broken.jpg"), 1, "broken.jpg: none of 1 files could be read"),
        (("--source", "{folder}/images", "--classes", 3), 2, "--classes 3: the model has classes 0 to 2"),
        (("--source", "{folder}/images", "--weights", "none.pt"), 1, "none.pt: no such weights file"),
    ],
)
def test_mistakes_are_one_line(folder: Path, flags: tuple[object, ...], code: int, line: str) -> None:
    with pytest.raises(UserError) as error:
        detect(folder, *(str(word).format(folder=folder) for word in flags))
    assert error.value.exit_code == code
    assert line in str(error.value) and "\n" not in str(error.value)


def with_thresholds(folder: Path, name: str) -> str:
    """The small model with thresholds: boats, of which there were enough, have their own."""
    content = torch.load(folder / "small.pt", weights_only=True)
    rows = {
        0: {"objects": 29, "best_f1": 0.5},
        1: {"objects": 30, "best_f1": 0.91},
        2: {"objects": 90, "best_f1": None},
    }
    torch.save({**content, "thresholds": {"best_f1": 0.89, "classes": rows}}, folder / name)
    return name


@pytest.mark.parametrize("most", [1000, 4])
def test_conf_auto_takes_the_thresholds_of_the_file(folder: Path, most: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = ("--source", folder / "images" / "a.png", "--nosave", "--save-txt", "--save-conf", "--iou", 1)
    auto = detect(folder, *source, "--conf", "auto", "--max-det", most, weights=with_thresholds(folder, "auto.pt"))
    assert '--conf auto: car 0.890, boat 0.910, it\'s a "person" 0.890' in caplog.text
    every = rows(detect(folder, *source, "--conf", 0.89).folder / "labels" / "a.txt")
    expected = every[(every[:, 0] != 1) | (every[:, 5] > 0.91)]
    assert 4 < len(expected) < len(every)  # so that boats of 0.89 to 0.91 would take places among the best four
    best = expected[np.argsort(-expected[:, 5], kind="stable")][:most]
    np.testing.assert_array_equal(rows(auto.folder / "labels" / "a.txt"), best)


@pytest.mark.case("Flags", "--conf auto with a file that has no thresholds", "one line that names val.py")
def test_conf_auto_without_thresholds(folder: Path) -> None:
    with pytest.raises(UserError, match=r"^--conf auto: .*small.pt: has no thresholds.*val.py --weights .*small.pt"):
        detect(folder, "--source", folder / "images", "--conf", "auto")
    with pytest.raises(UserError, match=r"^--conf auto --weights .*: takes the thresholds of one file"):
        detect(folder, "--source", folder / "images", "--conf", "auto", "--weights", *[folder / "small.pt"] * 2)


def test_update_keeps_the_thresholds(folder: Path) -> None:
    name = with_thresholds(folder, "updated.pt")
    before = torch.load(folder / name, weights_only=True)["thresholds"]
    detect(folder, "--source", folder / "images" / "a.png", "--nosave", "--update", weights=name)
    assert torch.load(folder / name, weights_only=True)["thresholds"] == before


@pytest.fixture(scope="module")
def alike(folder: Path) -> Path:
    """A list of images of one name in two folders, a video, and an image that is named as its first frame."""
    names = ("north/frame.png", "south/frame.png", "north/001.png", "north/1.png", "v_0.png")
    for name in names:
        path = folder / "alike" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((folder / "images" / "b.png").read_bytes())
    (folder / "alike" / "v.avi").write_bytes((folder / "v.avi").read_bytes())
    file = folder / "alike.txt"
    file.write_text("".join(f"{folder / 'alike' / name}\n" for name in (*names, "v.avi")))
    return file


def test_sources_of_one_name_have_files_of_their_own(folder: Path, alike: Path) -> None:
    run = detect(folder, "--source", alike, "--save-txt", "--batch-size", 2).folder
    names = ["001", "1", "frame", "frame2", "v_0"]
    videos = ["v2_0", "v2_1", "v2_2"]
    assert sorted(path.stem for path in (run / "labels").iterdir()) == sorted(names + videos)
    assert {path.name for path in run.glob("*.*")} == {*(f"{name}.png" for name in names), "v2.mp4"}


def test_tables_tell_sources_of_one_name_apart(folder: Path, alike: Path) -> None:
    run = detect(folder, "--source", alike, "--nosave", "--save-csv", "--save-json", "--save-coco").folder
    titles = ["north/frame.png", "south/frame.png", "001.png", "1.png", "v_0.png", "v.avi"]
    with (run / "predictions.csv").open(newline="") as file:
        assert list(dict.fromkeys(row["Image Name"] for row in csv.DictReader(file))) == titles
    images = json.loads((run / "coco.json").read_text())["images"]
    assert [image["file_name"] for image in images] == titles + ["v.avi"] * 2
    ids = [entry["image_id"] for entry in json.loads((run / "predictions.json").read_text())]
    assert list(dict.fromkeys(ids)) == [*titles[:2], "north/001.png", "north/1.png", "v_0", "v2_0", "v2_1", "v2_2"]


def test_crops_of_two_runs_into_one_folder_are_kept(folder: Path) -> None:
    common = ("--source", folder / "v.avi", "--nosave", "--save-crop", "--name", "crops", "--exist-ok")
    counts = [len(list((detect(folder, *common).folder / "crops").glob("*/v*.jpg"))) for _ in range(2)]
    assert counts[1] == 2 * counts[0] > 0


@pytest.mark.parametrize("second", [("--save-txt", "--save-csv", "--save-json", "--save-coco"), ()])
@pytest.mark.case("Runs", "detect.py --exist-ok onto an old run", "its labels and tables are kept as *.older")
def test_exist_ok_leaves_nothing_of_an_earlier_run(
    folder: Path, tmp_path: Path, second: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    flags = ("--source", folder / "images" / "b.png", "--nosave", "--project", tmp_path, "--exist-ok")
    tables = ("--save-txt", "--save-csv", "--save-json", "--save-coco")
    for _ in range(2):  # what is older is replaced
        run = detect(folder, *flags, *tables).folder
    assert len(rows(run / "labels" / "b.txt")) > 1
    caplog.clear()
    detect(folder, *flags, *second, "--conf", 1)
    line = f"{run}: coco.json, labels, predictions.csv, predictions.json of an earlier run kept as *.older"
    assert [message for message in caplog.messages if "earlier run" in message] == [line]
    assert not list(run.glob("labels/*.txt"))
    if not second:
        assert {path.suffix for path in run.iterdir()} == {".older"}
    assert len(rows(run / "labels.older" / "b.txt")) > 1


@pytest.mark.case("Sources", "--verbose", "a line for each image: its number, file, what was found, the time")
def test_verbose_says_what_each_image_has(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    images, common = folder / "images", ("--nosave", "--max-det", 2, "--classes", 1)
    for flags in ((), ("--verbose",)):
        detect(folder, "--source", images, *common, *flags)
        lines = [re.sub(r"[\d.]+ ms$", "", line) for line in caplog.messages if line.startswith("image ")]
        names = ("a.jpg", "a.png", "b.png") if flags else ()
        assert lines == [f"image {i} of 4: {images / name}: 2 {NAMES[1]}, " for i, name in enumerate(names, start=1)]
    detect(folder, "--source", folder / "v.avi", "--nosave", "--conf", 1, "--verbose")
    (first, *_) = [line for line in caplog.messages if line.startswith("frame ")]
    assert re.match(rf"frame 1 of \d+: {folder / 'v.avi'} frame 0: no objects, [\d.]+ ms$", first)


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1)])
@pytest.mark.parametrize("flags", [(), ("--slice", 64), ("--augment",)])
@pytest.mark.case("Sources", "an image of one pixel, a strip of 2000:1", "detected on, whole and in tiles")
def test_the_thinnest_images(folder: Path, tmp_path: Path, size: tuple[int, int], flags: tuple[object, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "thin.png"), pixels)
    summary = detect(folder, "--source", tmp_path, "--save-txt", "--save-crop", "--conf", 0.01, "--max-det", 5, *flags)
    assert summary.frames == 1 and not summary.skipped
    assert {path.name for path in summary.folder.glob("*.png")} == {"thin.png"}

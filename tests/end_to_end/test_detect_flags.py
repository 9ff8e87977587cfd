"""detect.py's flags against YOLOv5's, and the effect of each on images and video with a small model."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.weights import checkpoint_fields, load_model
from tests.exporting.small_model import write_small_checkpoint, write_small_torchscript
from tests.same_detections import assert_same_label_rows
from tests.shared_data import REPOSITORY
from utils.config.command_line import parse_command_line
from utils.config.detect_flags import DetectConfig
from utils.reporting import image_window
from utils.user_error import UsageError
from utils.verbs.detect import DetectionSummary, run_detection

# YOLOv5's defaults, but for --line-thickness (there 3, whatever the size of image and object), and those of our own.
DEFAULTS: dict[str, object] = {
    "weights": ("yolov5s.pt",),
    "source": "data/images",
    "recursive": False,
    "data": "data/coco128.yaml",
    "imgsz": (640,),
    "conf_thres": 0.25,
    "iou_thres": 0.45,
    "max_det": 1000,
    "device": "",
    "verbose": False,
    "view_img": False,
    "save_txt": False,
    "save_format": 0,
    "save_csv": False,
    "save_conf": False,
    "save_crop": False,
    "nosave": False,
    "classes": None,
    "agnostic_nms": False,
    "augment": False,
    "visualize": False,
    "update": False,
    "project": "runs/detect",
    "name": "exp",
    "exist_ok": False,
    "line_thickness": None,
    "tags": "auto",
    "hide_labels": False,
    "hide_conf": False,
    "half": False,
    "compile": False,
    "dnn": False,
    "vid_stride": 1,
    "save_json": False,
    "save_coco": False,
    "batch_size": 1,
    "precision": "fp32",
    "slice": None,
    "slice_overlap": 0.2,
    "slice_merge": "nms",
    "track": False,
    "count_line": (),
    "count_zone": None,
    "save_mot": False,
}
RUN = "tests/verbs/test_detect.py"
CONF = 0.92  # 0.0005 from the nearest score of what is detected here
# Flag -> test that shows its effect, here or in the file named.
EFFECTS = {
    "weights": "test_an_ensemble_with_itself_finds_the_same",
    "source": "tests/inference/test_frame_sources.py",
    "recursive": "test_recursive",
    "data": "test_names_of_a_file_without_names_come_from_data",
    "imgsz": f"{RUN}::test_size_is_rounded_to_the_stride",
    "conf_thres": "test_thresholds",
    "iou_thres": "test_thresholds",
    "max_det": f"{RUN}::test_thresholds_and_filters_reach_suppression",
    "device": "test_refusals",
    "verbose": f"{RUN}::test_verbose_says_what_each_image_has",
    "view_img": "test_view_img",
    "save_txt": f"{RUN}::test_annotated_images_labels_and_crops",
    "save_format": "test_save_format",
    "save_csv": "test_save_csv",
    "save_conf": f"{RUN}::test_scores_stay_out_of_label_files_unless_asked_for",
    "save_crop": f"{RUN}::test_annotated_images_labels_and_crops",
    "nosave": f"{RUN}::test_summary_and_skipped_file",
    "classes": f"{RUN}::test_thresholds_and_filters_reach_suppression",
    "agnostic_nms": f"{RUN}::test_thresholds_and_filters_reach_suppression",
    "augment": "test_augment",
    "visualize": "test_visualize",
    "update": "test_update",
    "project": "test_project_name_and_exist_ok",
    "name": "test_project_name_and_exist_ok",
    "exist_ok": "test_project_name_and_exist_ok",
    "line_thickness": f"{RUN}::test_what_is_drawn",
    "tags": f"{RUN}::test_tags",
    "hide_labels": f"{RUN}::test_what_is_drawn",
    "hide_conf": f"{RUN}::test_what_is_drawn",
    "half": "test_refusals",
    "compile": "tests/inference/test_compiled_backend.py::test_detect_pads_every_image_to_one_frame",
    "dnn": "tests/inference/test_model_files.py",
    "vid_stride": f"{RUN}::test_video_gives_the_boxes_of_its_images",
    "save_json": "test_save_json",
    "save_coco": "test_save_coco",
    "batch_size": "test_batches_do_not_change_what_is_found",
    "precision": "test_refusals",
    "slice": "test_slice",
    "slice_overlap": "test_slice",
    "slice_merge": "test_slice",
    "track": "tests/reporting/test_tracking_files.py::test_ids_are_in_every_file",
    "count_line": "tests/end_to_end/test_tracking.py::test_the_counts_are_the_truth",
    "count_zone": "tests/end_to_end/test_tracking.py::test_the_counts_are_the_truth",
    "save_mot": "tests/reporting/test_tracking_files.py::test_mot_rows",
}


def parse(*words: object) -> DetectConfig:
    return parse_command_line(DetectConfig, list(map(str, words)), prog="detect.py", description="")


def test_defaults() -> None:
    assert {item.name: getattr(parse(), item.name) for item in fields(DetectConfig)} == DEFAULTS


def test_each_flag_has_its_test() -> None:
    assert set(EFFECTS) == {item.name for item in fields(DetectConfig)}
    for flag, place in EFFECTS.items():
        file, _, test = (place, "", "") if place.endswith(".py") else place.rpartition("::")
        text = (REPOSITORY / file if file else Path(__file__)).read_text(encoding="utf-8")
        assert f"def {test}" in text, flag


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with weights, three images of two sizes, and a lossless video of one of them."""
    folder = tmp_path_factory.mktemp("detect_flags")
    write_small_checkpoint(folder / "small.pt")
    (folder / "images").mkdir()
    rng = np.random.default_rng(1)
    for name, size in (("a.png", (64, 96)), ("b.png", (64, 96)), ("c.png", (96, 80))):
        cv2.imwrite(str(folder / "images" / name), rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    return folder


def detect(folder: Path, *flags: object) -> DetectionSummary:
    # Noise gives crowds of boxes with nearly equal scores: which of them survives, and which are just above a low
    # threshold, hangs on the last bit. Here the threshold is far from every score, and only copies are suppressed.
    apart = ("--conf", CONF, "--iou", 0.99)
    words = ("--weights", folder / "small.pt", "--source", folder / "images", "--img", 96, *apart, "--nosave")
    return run_detection(parse(*words, "--project", folder / "runs", *flags))


def rows(run: DetectionSummary) -> dict[str, np.ndarray]:
    return {path.stem: np.loadtxt(path, ndmin=2) for path in sorted((run.folder / "labels").iterdir())}


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, np.ndarray]:
    found = rows(detect(folder, "--save-txt", "--save-conf"))
    assert list(found) == ["a", "b", "c"]
    return found


@pytest.mark.parametrize("batch", [2, 8])
def test_batches_do_not_change_what_is_found(folder: Path, plain: dict[str, np.ndarray], batch: int) -> None:
    found = rows(detect(folder, "--save-txt", "--save-conf", "--batch-size", batch))
    for name, expected in plain.items():
        assert_same_label_rows(found[name], expected, CONF)


def test_an_ensemble_with_itself_finds_the_same(folder: Path, plain: dict[str, np.ndarray]) -> None:
    found = rows(detect(folder, "--save-txt", "--save-conf", "--weights", folder / "small.pt", folder / "small.pt"))
    for name, expected in plain.items():
        # Flat boxes of the untrained model have no area, hence no IoU with their own copy.
        solid, alone = (table[table[:, 3:5].min(axis=1) > 1e-3] for table in (found[name], expected))
        assert_same_label_rows(solid, alone, CONF)


def test_thresholds(folder: Path, plain: dict[str, np.ndarray]) -> None:
    scores = plain["a"][:, 5]
    last = int((scores[:-1] - scores[1:]).argmax())  # before the widest gap, where no rounding reaches
    found = rows(detect(folder, "--save-txt", "--save-conf", "--conf", float(scores[last : last + 2].mean())))
    assert 0 < last + 1 < len(scores)
    assert len(found["a"]) == last + 1
    assert_same_label_rows(found["a"], plain["a"][: last + 1])
    strict = rows(detect(folder, "--save-txt", "--save-conf", "--iou", 0.05))
    assert len(strict["a"]) < len(plain["a"])


def test_save_format(folder: Path, plain: dict[str, np.ndarray]) -> None:
    corners = rows(detect(folder, "--save-txt", "--save-conf", "--save-format", 1))["b"]
    centres = plain["b"]
    middles, sides = (corners[:, 1:3] + corners[:, 3:5]) / 2, corners[:, 3:5] - corners[:, 1:3]
    assert_same_label_rows(np.column_stack((corners[:, 0], middles, sides, corners[:, 5])), centres, CONF)


def test_save_csv(folder: Path, plain: dict[str, np.ndarray]) -> None:
    run = detect(folder, "--save-csv")
    with (run.folder / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["Image Name", "Prediction", "Confidence"]
    assert [row["Image Name"] for row in table] == [f"{name}.png" for name in plain for _ in plain[name]]
    names = load_model(folder / "small.pt").names
    assert [row["Prediction"] for row in table[:3]] == [names[int(kind)] for kind in plain["a"][:3, 0]]
    assert table[0]["Confidence"] == f"{plain['a'][0, 5]:.2f}"


def test_save_json(folder: Path, plain: dict[str, np.ndarray]) -> None:
    run = detect(folder, "--save-json")
    entries = json.loads((run.folder / "predictions.json").read_text())
    assert [path.name for path in run.folder.iterdir()] == ["predictions.json"]
    own = [entry for entry in entries if entry["image_id"] == "c"]
    assert len(own) == len(plain["c"])
    x, y, w, h = own[0]["bbox"]
    kind, cx, cy, width, height, score = plain["c"][0]
    assert own[0]["category_id"] == kind and own[0]["score"] == pytest.approx(score, abs=1e-5)
    assert [(x + w / 2) / 80, (y + h / 2) / 96, w / 80, h / 96] == pytest.approx([cx, cy, width, height], abs=2e-5)


def test_save_coco(folder: Path, plain: dict[str, np.ndarray]) -> None:
    from pycocotools.coco import COCO

    run = detect(folder, "--save-coco")
    assert [path.name for path in run.folder.iterdir()] == ["coco.json"]
    coco = COCO(str(run.folder / "coco.json"))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.png", "b.png", "c.png"]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[2]))
    assert len(annotations) == len(plain["b"])
    assert [entry["score"] for entry in annotations] == pytest.approx(plain["b"][:, 5].tolist(), abs=1e-5)
    assert all(entry["area"] == pytest.approx(entry["bbox"][2] * entry["bbox"][3], abs=0.2) for entry in annotations)
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(
        load_model(folder / "small.pt").names
    )


def test_nothing_found_is_a_valid_file(folder: Path) -> None:
    run = detect(folder, "--save-json", "--save-coco", "--save-csv", "--conf", 1)
    assert json.loads((run.folder / "predictions.json").read_text()) == []
    coco = json.loads((run.folder / "coco.json").read_text())
    assert len(coco["images"]) == 3 and coco["annotations"] == [] and len(coco["categories"]) == 3
    assert len((run.folder / "predictions.csv").read_text().splitlines()) == 1


def test_augment(folder: Path, plain: dict[str, np.ndarray]) -> None:
    found = rows(detect(folder, "--save-txt", "--save-conf", "--augment"))
    assert len(found["a"]) > len(plain["a"]), "three views of noise give more boxes than one"


def test_visualize(folder: Path) -> None:
    run = detect(folder, "--visualize")
    model = load_model(folder / "small.pt")
    maps = sorted((run.folder / "c_features").glob("*.npy"))
    assert len(maps) == len(model.model) - 1
    first = next(path for path in maps if path.name.startswith("stage0_"))
    assert np.load(first).shape == (model.channels[0], 48, 40)  # c.png is 96 x 80, the first layer halves it
    assert {path.name.removesuffix(".npy") for path in maps} == {
        path.name.removesuffix(".png") for path in (run.folder / "c_features").glob("*.png")
    }


def test_update(folder: Path, tmp_path: Path, plain: dict[str, np.ndarray]) -> None:
    weights = tmp_path / "trained.pt"
    model = load_model(folder / "small.pt")
    torch.save({**checkpoint_fields(model), "optimizer": {"state": torch.zeros(100_000)}}, weights)
    size = weights.stat().st_size
    detect(folder, "--weights", weights, "--update")
    assert weights.stat().st_size < size - 300_000
    found = rows(detect(folder, "--weights", weights, "--save-txt", "--save-conf"))
    assert_same_label_rows(found["a"], plain["a"], CONF)


def test_project_name_and_exist_ok(folder: Path, tmp_path: Path) -> None:
    flags = ("--project", tmp_path / "p", "--name", "n", "--save-csv")
    assert [detect(folder, *flags).folder.name for _ in range(2)] == ["n", "n2"]
    assert detect(folder, *flags, "--exist-ok").folder.name == "n"


def test_slice(folder: Path, plain: dict[str, np.ndarray], tmp_path: Path) -> None:
    flags = ("--save-txt", "--save-conf", "--batch-size", 3)
    sliced = rows(detect(folder, *flags, "--slice", 64))["a"]
    assert len(sliced) > len(plain["a"]), "tiles of noise give boxes of their own"
    for further in (("--slice-overlap", 0.6), ("--slice-merge", "greedy")):
        other = rows(detect(folder, *flags, "--slice", 64, *further))["a"]
        assert other.shape != sliced.shape or (other != sliced).any(), further
    whole = rows(detect(folder, *flags, "--slice", 640))["a"]  # images that fit into one tile
    assert_same_label_rows(whole, plain["a"], CONF)


def test_names_of_a_file_without_names_come_from_data(folder: Path, tmp_path: Path) -> None:
    weights = write_small_torchscript(tmp_path / "bare.torchscript", (64, 96))
    (tmp_path / "d.yaml").write_text("path: .\ntrain: x\nval: x\nnames: [ship, car, tree]\n")
    run = detect(folder, "--weights", weights, "--data", tmp_path / "d.yaml", "--save-csv")
    assert {name for name, _ in run.objects} <= {"ship", "car", "tree"} and run.objects


def test_view_img(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert detect(folder, "--view-img").frames == 3
    assert [line for line in caplog.messages if "no display here" in line] != []

    shown: list[tuple[str, tuple[int, ...]]] = []
    monkeypatch.setattr(image_window, "has_display", lambda: True)
    for name in ("namedWindow", "resizeWindow", "destroyWindow"):
        monkeypatch.setattr(cv2, name, lambda *arguments: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append((title, image.shape)))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: ord("q") if len(shown) == 2 else -1)
    summary = detect(folder, "--view-img", "--save-csv")
    assert shown == [("a.png", (64, 96, 3)), ("b.png", (64, 96, 3))]
    assert summary.frames == 2, "q ends the run, and what was found is written"
    assert {line.split(",")[0] for line in (summary.folder / "predictions.csv").read_text().splitlines()[1:]} == {
        "a.png",
        "b.png",
    }


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--half",), "--half: this CPU has no fp16"),
        (("--precision", "fp16"), "--precision fp16"),
        (("--half", "--precision", "bf16"), "contradict"),
        (("--device", "cpuu"), "--device cpuu"),
        (("--visualize", "--slice"), "--visualize"),
        (("--visualize", "--augment"), "--visualize"),
        (("--hide-labels", "--tags", "all"), "--hide-labels --tags all: contradict each other"),
        (("--tags", "some"), "--tags"),
        (("--save-format", "2"), "--save-format 2: must be at most 1"),
        (("--batch-size", "0"), "--batch-size 0: must be at least 1"),
        (("--slice-merge", "best"), "best"),
        (("--dnn",), "--dnn"),
    ],
)
def test_refusals(folder: Path, flags: tuple[str, ...], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        detect(folder, "--device", "cpu", *flags)


def test_progress_is_logged_where_there_is_no_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("utils.runtime.console_log.EVERY", 0.0)
    detect(folder)
    assert [line.split(",")[0] for line in caplog.messages if " per second" in line] == [
        "detecting: 1 of 3 images",
        "detecting: 2 of 3 images",
        "detecting: 3 of 3 images",
    ]


@pytest.mark.case("Sources", "an image of many tiles", "how many of them are done is said meanwhile")
def test_progress_within_an_image_of_many_tiles(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("utils.runtime.console_log.SELDOM", 0.0)
    # 64 x 96 in tiles of 64 pixels that overlap by a fifth: two, and the whole image.
    detect(folder, "--source", folder / "images" / "a.png", "--slice", 64, "--batch-size", 2)
    assert [line for line in caplog.messages if line.startswith("detecting: ")][:2] == [
        "detecting: 0 of 1 image; 2 of 3 tiles",
        "detecting: 0 of 1 image; 3 of 3 tiles",
    ]


def test_recursive(folder: Path, tmp_path: Path) -> None:
    """Images of one name in two subfolders: files of their own, each with the boxes of its image."""
    for place, name in (("", "a.png"), ("north/", "a.png"), ("south/far/", "b.png")):
        (tmp_path / "many" / place).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "images" / name, tmp_path / "many" / place / "a.png")
    flags = ("--source", tmp_path / "many", "--save-txt", "--project", tmp_path / "runs")
    run, alone = detect(folder, *flags, "--recursive"), detect(folder, *flags)
    assert (run.frames, run.unit, alone.frames) == (3, "image", 1)
    assert {path.name for path in run.folder.glob("labels/*")} == {"a.txt", "a2.txt", "a3.txt"}
    found = [(run.folder / "labels" / f"{name}.txt").read_text() for name in ("a", "a2", "a3")]
    assert found[0] == found[1] != found[2]
    assert found[0] == (alone.folder / "labels" / "a.txt").read_text()

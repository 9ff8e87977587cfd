"""val.py's flags against YOLOv5's, and the effect of each on real images with the official nano weights."""

from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import val
from models.fuse import fused
from models.weights import load_model
from tests.shared_data import REPOSITORY, SHARED, needs_shared
from utils.config.command_line import as_command, parse_command_line
from utils.config.val_flags import ValConfig
from utils.dataset.image_files import image_size
from utils.dataset.image_lists import list_images
from utils.exporting.export_settings import ExportSettings
from utils.exporting.onnx import write_onnx
from utils.geometry.letterbox import FrameSize
from utils.user_error import UsageError, UserError

# YOLOv5's defaults; of --workers, --device, --project and the like too.
DEFAULTS: dict[str, object] = {
    "data": "data/coco128.yaml",
    "weights": ("yolov5s.pt",),
    "batch_size": 32,
    "imgsz": 640,
    "square": False,
    "conf_thres": 0.001,
    "iou_thres": 0.6,
    "max_det": 300,
    "task": "val",
    "device": "",
    "workers": 8,
    "single_cls": False,
    "augment": False,
    "verbose": False,
    "save_txt": False,
    "save_hybrid": False,
    "save_conf": False,
    "save_json": False,
    "project": "runs/val",
    "name": "exp",
    "exist_ok": False,
    "half": False,
    "compile": False,
    "dnn": False,
    "precision": "fp32",
    "area_ranges": None,
    "slice": None,
    "slice_overlap": 0.2,
    "slice_merge": "nms",
    "compare": False,
    "study_sizes": (256, 384, 512, 640, 768, 896, 1024, 1152, 1280, 1408, 1536),
    "as_yolov5": False,
}
# Flag -> test that shows its effect, here or in the file named.
EFFECTS = {
    "data": "test_figures_of_the_run",
    "weights": "test_an_ensemble_with_itself_finds_the_same",
    "batch_size": "test_batches_do_not_change_figures",
    "imgsz": "test_figures_of_the_run",
    "square": "test_a_file_of_fixed_size_has_the_figures_of_squares",
    "conf_thres": "test_thresholds",
    "iou_thres": "test_thresholds",
    "max_det": "test_thresholds",
    "task": "test_study",
    "study_sizes": "test_study",
    "device": "test_refusals",
    "workers": "test_batches_do_not_change_figures",
    "single_cls": "test_single_cls",
    "augment": "test_augment",
    "verbose": "test_verbose",
    "save_txt": "test_label_files",
    "save_hybrid": "test_save_hybrid",
    "save_conf": "test_label_files",
    "save_json": "test_save_json_in_the_ids_of_the_annotations",
    "project": "test_figures_of_the_run",
    "name": "test_figures_of_the_run",
    "exist_ok": "test_exist_ok",
    "half": "test_refusals",
    "compile": "tests/inference/test_compiled_backend.py",
    "precision": "test_refusals",
    "dnn": "tests/inference/test_model_files.py",
    "area_ranges": "test_area_ranges",
    "slice": "test_slice",
    "slice_overlap": "test_slice",
    "slice_merge": "test_slice",
    "compare": "test_compare",
    "as_yolov5": "tests/evaluation/test_coco128_parity.py",
}


def parse(*words: object) -> ValConfig:
    return parse_command_line(ValConfig, list(map(str, words)), prog="val.py", description="")


def test_defaults() -> None:
    assert {item.name: getattr(parse(), item.name) for item in fields(ValConfig)} == DEFAULTS


def test_each_flag_has_its_test() -> None:
    assert set(EFFECTS) == {item.name for item in fields(ValConfig)}
    tests = Path(__file__).read_text(encoding="utf-8")
    for flag, test in EFFECTS.items():
        found = f"def {test}(" in tests or (REPOSITORY / test).is_file()
        assert found, flag


def test_the_command_of_a_run_gives_its_settings_again() -> None:
    words = ["--weights", "a.pt", "b c.pt", "--img", 320, "--slice", "--area-ranges", "ai-tod", "--half"]
    config = parse(*words)
    command = as_command(config, "val.py")
    assert command == ("python val.py --weights a.pt 'b c.pt' --imgsz 320 --slice 640 --half --area-ranges ai-tod")


@pytest.mark.parametrize(
    "words",
    [
        ("--compare",),
        ("--compare", "--weights", "a.pt", "b.pt", "--task", "study"),
        ("--half", "--precision", "bf16"),
        ("--slice", "--save-hybrid"),
        ("--slice", "--square"),
        ("--task", "guess"),
        ("--slice", "8"),
    ],
)
def test_contradictions_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--"):
        parse(*words)


WEIGHTS = SHARED / "weights" / "yolov5n.pt"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images of coco128."""
    folder = tmp_path_factory.mktemp("coco16")
    images = list_images((SHARED / "data" / "coco128" / "images" / "train2017",))[:16]
    (folder / "val.txt").write_text("".join(f"{path}\n" for path in images))
    names = yaml.safe_load((REPOSITORY / "data" / "coco128.yaml").read_text())["names"]
    content = {"path": str(folder), "train": "val.txt", "val": "val.txt", "names": names}
    (folder / "coco16.yaml").write_text(yaml.safe_dump(content))
    return folder / "coco16.yaml"


@pytest.fixture(scope="module")
def plain(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Figures of the run without further flags."""
    return run(dataset, tmp_path_factory.mktemp("plain"))


def run(dataset: Path, folder: Path, *words: object, weights: tuple[Path, ...] = (WEIGHTS,)) -> dict[str, Any]:
    """Run val.py's work at 256 pixels; what metrics.json says, if there is one."""
    common = ("--weights", *weights, "--data", dataset, "--img", 256, "--workers", 0, "--batch", 8)
    val.run(parse(*common, "--project", folder, "--name", "v", *words))
    file = folder / "v" / "metrics.json"
    return json.loads(file.read_text()) if file.is_file() else {}


pytestmark = [needs_shared]
slow = pytest.mark.slow


@slow
def test_figures_of_the_run(plain: dict[str, Any]) -> None:
    assert (plain["images"], plain["settings"]["imgsz"]) == (16, 256)
    assert 0.2 < plain["AP"] < 0.7 and plain["AP50"] > plain["AP"]
    assert plain["settings"]["name"] == "v"
    assert [size["area"] for size in plain["errors"]] == ["all", "small", "medium", "large"]
    assert sum(plain["recall_by_size"]["objects"]) == plain["objects"]


@slow
def test_batches_do_not_change_figures(dataset: Path, tmp_path: Path, plain: dict[str, Any]) -> None:
    """The number of processes changes nothing; the batch changes the padding, and so figures a little."""
    small = run(dataset, tmp_path / "a", "--batch", 1)
    again = run(dataset, tmp_path / "b", "--batch", 1, "--workers", 2)
    for key in ("precision", "recall", "map50", "map50_95", "AP", "AR100", "AP_S"):
        assert small[key] == again[key], key
        assert small[key] == pytest.approx(plain[key], abs=0.05), key


@slow
def test_a_file_of_fixed_size_has_the_figures_of_squares(dataset: Path, tmp_path: Path, plain: dict[str, Any]) -> None:
    squares = run(dataset, tmp_path / "a", "--square")
    write_onnx(fused(load_model(WEIGHTS)), tmp_path / "n.onnx", ExportSettings(FrameSize(256, 256)))
    exported = run(dataset, tmp_path / "b", weights=(tmp_path / "n.onnx",))
    for key in ("precision", "recall", "map50", "map50_95", "AP", "AR100", "AP_S"):
        assert exported[key] == pytest.approx(squares[key], abs=1e-4), key
    assert squares["AP"] != plain["AP"]


@slow
def test_thresholds(dataset: Path, tmp_path: Path, plain: dict[str, Any]) -> None:
    assert run(dataset, tmp_path / "a", "--conf", 0.5)["AR100"] < plain["AR100"]
    assert run(dataset, tmp_path / "b", "--max-det", 1)["AR100"] < plain["AR100"]
    assert run(dataset, tmp_path / "c", "--iou", 0.05)["AR100"] < plain["AR100"]


@slow
def test_an_ensemble_with_itself_finds_the_same(dataset: Path, tmp_path: Path, plain: dict[str, Any]) -> None:
    both = run(dataset, tmp_path, weights=(WEIGHTS, WEIGHTS))
    assert both["AP"] == pytest.approx(plain["AP"], abs=1e-6)  # with itself: every box twice, one suppressed
    assert both["weights"] == f"{WEIGHTS} {WEIGHTS}"


@slow
def test_augment(dataset: Path, tmp_path: Path, plain: dict[str, Any]) -> None:
    seen_thrice = run(dataset, tmp_path, "--augment")
    assert seen_thrice["AP"] != plain["AP"]
    assert seen_thrice["AP"] == pytest.approx(plain["AP"], abs=0.1)


@slow
def test_single_cls(dataset: Path, tmp_path: Path, plain: dict[str, Any]) -> None:
    one = run(dataset, tmp_path, "--single-cls")
    assert [row["name"] for row in one["per_class"]] == ["item"]
    assert one["objects"] == plain["objects"] and one["AP"] != plain["AP"]


@slow
def test_verbose(dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(dataset, tmp_path / "a")
    assert "giraffe" not in caplog.text
    run(dataset, tmp_path / "b", "--verbose")
    assert "giraffe" in caplog.text


@slow
def test_label_files(dataset: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path / "a", "--save-txt")
    run(dataset, tmp_path / "b", "--save-txt", "--save-conf", "--conf", 0.25)
    for folder, columns in (("a", 5), ("b", 6)):
        rows = [line.split() for file in sorted((tmp_path / folder / "v" / "labels").iterdir())
                for line in file.read_text().splitlines()]  # fmt: skip
        assert {len(row) for row in rows} == {columns}
    assert all(float(row[5]) >= 0.25 for row in rows)


@slow
def test_save_hybrid(dataset: Path, tmp_path: Path, plain: dict[str, Any]) -> None:
    figures = run(dataset, tmp_path, "--save-hybrid", "--save-conf")
    assert figures["AP"] == plain["AP"]  # the labels are no help to the figures
    certain = 0
    for file in (tmp_path / "v" / "labels").iterdir():
        rows = np.loadtxt(file, ndmin=2)
        labels = np.loadtxt(SHARED / "data" / "coco128" / "labels" / "train2017" / file.name, ndmin=2)
        sure = rows[rows[:, 5] == 1]
        assert len(rows) > len(sure)
        gaps = np.abs(sure[:, None, :5] - labels[None, :, :5]).max(axis=2)
        assert (gaps.min(axis=1) < 0.003).all()  # each certain row is one of the labels
        certain += len(sure)
    assert certain >= 0.9 * figures["objects"]  # labels that overlap by more than 0.6 in one class are one


@slow
def test_area_ranges(dataset: Path, tmp_path: Path, plain: dict[str, Any]) -> None:
    figures = run(dataset, tmp_path, "--area-ranges", "small:0-1024", "rest:1024-")
    small, rest = figures["by_area"]
    assert small["AP"] == pytest.approx(plain["AP_S"], abs=1e-9)
    assert small["objects"] + rest["objects"] == figures["objects"]


@slow
def test_slice(dataset: Path, tmp_path: Path, plain: dict[str, Any]) -> None:
    sliced = run(dataset, tmp_path / "a", "--slice", 256)
    assert sliced["AP_S"] > plain["AP_S"] + 0.03
    more = run(dataset, tmp_path / "b", "--slice", 320, "--slice-overlap", 0.6, "--slice-merge", "greedy")
    fewer = run(dataset, tmp_path / "c", "--slice", 320, "--slice-overlap", 0.1, "--slice-merge", "greedy")
    joined = run(dataset, tmp_path / "d", "--slice", 320, "--slice-overlap", 0.1)
    assert len({more["AP"], fewer["AP"], joined["AP"]}) == 3
    assert more["speed_ms"]["inference"] > fewer["speed_ms"]["inference"]


@slow
def test_exist_ok(dataset: Path, tmp_path: Path) -> None:
    for words in ((), (), ("--exist-ok",)):
        run(dataset, tmp_path, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v", "v2"]


@slow
def test_refusals(dataset: Path, tmp_path: Path) -> None:
    for words in (("--half",), ("--precision", "fp16"), ("--device", "7"), ("--area-ranges", "x")):
        with pytest.raises(UserError) as caught:
            run(dataset, tmp_path, *words)
        assert words[0] in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@slow
def test_study(dataset: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path, "--task", "study", "--study-sizes", 128, 256)
    folder = tmp_path / "v"
    with (folder / "study_coco16_yolov5n.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["imgsz"] for row in rows] == ["128", "256"]
    assert float(rows[0]["map50_95"]) < float(rows[1]["map50_95"])
    assert float(rows[0]["inference_ms"]) < float(rows[1]["inference_ms"])
    assert (folder / "study.png").stat().st_size > 10_000


@slow
def test_speed(dataset: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path, "--task", "speed")
    figures = json.loads((tmp_path / "v" / "speed_yolov5n.json").read_text())
    assert (figures["settings"]["conf_thres"], figures["settings"]["iou_thres"]) == (0.25, 0.45)
    assert figures["speed_ms"]["inference"] > 0


@slow
def test_compare(dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, plain: dict[str, Any]) -> None:
    caplog.set_level("INFO")
    copy = tmp_path / "copy.pt"
    copy.write_bytes(WEIGHTS.read_bytes())
    run(dataset, tmp_path, "--compare", weights=(WEIGHTS, copy))
    folder = tmp_path / "v"
    first, second = json.loads((folder / "comparison.json").read_text())["models"]
    assert (first["name"], second["name"]) == ("yolov5n.pt", "copy.pt")
    assert first["AP"] == second["AP"] == plain["AP"] and first["differences"] is None
    assert second["differences"]["AP"] == {"value": 0, "low": 0, "high": 0}
    assert 1_800_000 < first["parameters"] < 1_900_000 and first["gflops"] == pytest.approx(0.7, abs=0.1)
    assert "could be chance" in caplog.text
    assert (folder / "report.html").is_file() and not (folder / "found_alone_1").exists()  # they differ nowhere
    assert (folder / "comparison.png").is_file() and len((folder / "comparison.csv").read_text().splitlines()) == 3


def annotated(dataset: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The data set with a COCO annotation file made from its labels, and that file's content."""
    value = annotations_from_labels(list_images((dataset.parent / "val.txt",)))
    (folder / "instances.json").write_text(json.dumps(value))
    content = yaml.safe_load(dataset.read_text()) | {"annotations": {"val": str(folder / "instances.json")}}
    (folder / "annotated.yaml").write_text(yaml.safe_dump(content))
    return folder / "annotated.yaml", value


def annotations_from_labels(paths: list[Path]) -> dict[str, Any]:
    """COCO's form of YOLO labels, with COCO's own category ids."""
    names = yaml.safe_load((REPOSITORY / "data" / "coco128.yaml").read_text())["names"]
    gaps = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    ids = [number for number in range(1, 91) if number not in gaps]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for path in paths:
        height, width = image_size(path)
        images.append({"id": int(path.stem), "file_name": path.name, "height": height, "width": width})
        label_file = path.parent.parent.parent / "labels" / "train2017" / f"{path.stem}.txt"
        labelled = label_file.is_file() and label_file.stat().st_size
        rows = np.loadtxt(label_file, ndmin=2) if labelled else np.zeros((0, 5))
        for kind, cx, cy, w, h in rows:
            x1, x2 = ((cx + side * w / 2) * width for side in (-1, 1))
            y1, y2 = ((cy + side * h / 2) * height for side in (-1, 1))
            x1, x2, y1, y2 = max(x1, 0), min(x2, width), max(y1, 0), min(y2, height)
            box = [float(side) for side in (x1, y1, x2 - x1, y2 - y1)]
            annotations.append({"id": len(annotations) + 1, "image_id": int(path.stem), "category_id": ids[int(kind)],
                                "bbox": box, "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in zip(ids, names.values(), strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


@slow
def test_save_json_in_the_ids_of_the_annotations(dataset: Path, tmp_path: Path, plain: dict[str, Any]) -> None:
    yaml_file, value = annotated(dataset, tmp_path)
    figures = run(yaml_file, tmp_path, "--save-json")
    for key in ("AP", "AP50", "AP_S", "AP_M", "AP_L", "AR1", "AR100"):
        assert figures[key] == pytest.approx(plain[key], abs=1e-4), key
    rows = json.loads((tmp_path / "v" / "yolov5n_predictions.json").read_text())
    assert {row["image_id"] for row in rows} <= {image["id"] for image in value["images"]}
    assert max(row["category_id"] for row in rows) > 80  # COCO's ids run to 90


@slow
def test_crowds_and_areas_of_the_annotations_count(dataset: Path, tmp_path: Path, plain: dict[str, Any]) -> None:
    _, value = annotated(dataset, tmp_path)
    for one in value["annotations"]:
        one["area"] = 10.0
    (tmp_path / "instances.json").write_text(json.dumps(value))
    figures = run(tmp_path / "annotated.yaml", tmp_path)
    assert figures["AP_S"] > 0.3 and (figures["AP_M"], figures["AP_L"]) == (None, None)
    assert figures["map50"] == plain["map50"]  # against the label files


@slow
def test_a_split_without_labels_is_written_as_a_submission(dataset: Path, tmp_path: Path) -> None:
    images = list_images((dataset.parent / "val.txt",))[:4]
    (tmp_path / "images").mkdir()
    for path in images:
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    value = annotations_from_labels(images[:3]) | {"annotations": []}  # one image is not of test-dev
    (tmp_path / "image_info_test-dev2017.json").write_text(json.dumps(value))
    content = yaml.safe_load(dataset.read_text()) | {
        "path": str(tmp_path),
        "test": "images",
        "annotations": {"test": "image_info_test-dev2017.json"},
        "val": "images",
        "train": "images",
    }
    (tmp_path / "d.yaml").write_text(yaml.safe_dump(content))
    run(tmp_path / "d.yaml", tmp_path, "--task", "test", "--name", "spd", "--conf", 0.0001)
    (file,) = (tmp_path / "spd").glob("*.zip")
    assert file.name == "detections_test-dev2017_spd_results.zip"
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["detections_test-dev2017_spd_results.json"]
        rows = json.loads(archive.read(archive.namelist()[0]))
    assert {row["image_id"] for row in rows} == {int(path.stem) for path in images[:3]}
    counts = np.unique([row["image_id"] for row in rows], return_counts=True)[1]
    assert counts.max() == 100

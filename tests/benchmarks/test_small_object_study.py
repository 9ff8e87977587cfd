"""The study: small images, the wide model's cost, table and image, and a tiny study that is cut off and goes on."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.small_object_study import flags_of, main, study_of
from benchmarks.study_data import (
    StudyData,
    low_resolution_size,
    low_resolution_yaml,
    parts_of,
    write_low_resolution,
)
from benchmarks.study_models import ModelCost, Variant, baseline_of, equal_cost_width
from benchmarks.study_report import BEGIN, END, ArenaSummary, markdown, plot, put_into_page
from benchmarks.study_runs import FIGURES, RANDOM, RunResult, StudyRun
from benchmarks.tree_crowns import rows_in_window, write_tree_crowns
from models.summary import summarize
from models.yolo import DetectionModel, load_architecture
from tests.end_to_end.scripts import environment
from tests.shared_data import REPOSITORY
from tests.small_dataset import write_small_dataset
from utils.config.dataset_yaml import read_dataset_yaml
from utils.dataset.detection_dataset import open_dataset
from utils.user_error import UsageError, UserError

BASELINE, SPD = "yolov5n", "yolov5n-spd"
NONE = dict.fromkeys(FIGURES, -1.0)


def test_low_resolution_images_keep_their_labels_as_shares(tmp_path: Path) -> None:
    spec = read_dataset_yaml(write_small_dataset(tmp_path / "source", train=2, val=4))  # 96 x 128 pixels
    written = read_dataset_yaml(write_low_resolution(spec, StudyData("small.yaml", 64), tmp_path / "low"))
    sources = parts_of(spec)
    for part, count in (("train", 2), ("val", 2), ("test", 2)):
        after = open_dataset(written.split(part), written.names)
        assert len(after) == len(sources[part]) == count
        assert [tuple(after.source_size(i)) for i in range(2)] == [(48, 64)] * 2
        for i, (before, number) in enumerate(sources[part]):
            np.testing.assert_allclose(after.source_labels(i).boxes, before.source_labels(number).boxes / 2, atol=1e-3)
            wanted = cv2.resize(before.source_image(number), (64, 48), interpolation=cv2.INTER_AREA)
            np.testing.assert_array_equal(after.source_image(i), wanted)
    assert written.names == spec.names
    assert low_resolution_yaml(tmp_path / "low") == written.file
    fewer = read_dataset_yaml(write_low_resolution(spec, StudyData("small.yaml", 64, most=1), tmp_path / "fewer"))
    assert [len(open_dataset(fewer.split(part), fewer.names)) for part in ("train", "val", "test")] == [1, 2, 2]


def test_no_image_is_in_two_parts(tmp_path: Path) -> None:
    spec = read_dataset_yaml(write_small_dataset(tmp_path / "source", train=10, val=3))
    parts = parts_of(replace(spec, val=spec.train))
    numbers = [[number for _, number in images] for images in parts.values()]
    assert numbers == [[0, 1, 2, 5, 6, 7], [3, 8], [4, 9]]
    assert [[number for _, number in images] for images in parts_of(spec).values()] == [list(range(10)), [0, 2], [1]]
    with_test = parts_of(replace(spec, test=spec.val))
    assert [len(images) for images in with_test.values()] == [10, 3, 3]


def test_a_window_has_the_boxes_that_it_holds_enough_of() -> None:
    """An image of 100 x 80; the window is its right lower quarter, from (50, 40)."""
    rows = np.array(
        [
            [1, 0.75, 0.75, 0.2, 0.1],  # wholly inside: 65 to 85, 56 to 64
            [2, 0.5, 0.75, 0.2, 0.1],  # half inside: 40 to 60 becomes 50 to 60
            [3, 0.41, 0.75, 0.2, 0.1],  # 31 to 51: a pixel of it
            [4, 0.25, 0.25, 0.2, 0.1],  # in another window
        ]
    )
    found = rows_in_window(rows, (100, 80), (50, 40, 100, 80))
    np.testing.assert_allclose(found, [[1, 0.5, 0.5, 0.4, 0.2], [2, 0.1, 0.5, 0.2, 0.2]])


def test_images_are_never_enlarged() -> None:
    assert low_resolution_size(480, 640, 160) == (120, 160)
    assert low_resolution_size(100, 50, 160) == (100, 50)


def test_the_wide_model_costs_what_the_spd_model_costs() -> None:
    with torch.device("meta"):
        spd = summarize(DetectionModel(load_architecture(SPD)), 640, 640).gflops
        wide = replace(load_architecture(BASELINE), width_multiple=equal_cost_width(BASELINE, spd))
        found = summarize(DetectionModel(wide), 640, 640).gflops
    assert found == pytest.approx(spd, rel=0.03)


def test_table_and_image_of_known_figures(tmp_path: Path) -> None:
    wide = f"wide-as-{SPD}"
    finished = [
        RunResult(
            StudyRun("cells-160", RANDOM, model, seed),
            {"val": NONE, "test": NONE | {"AP": ap + seed / 100, "AP50": 0.8, "AP_S": ap}},
            60.0,
        )
        for model, ap in ((BASELINE, 0.30), (SPD, 0.35), (wide, 0.34))
        for seed in (0, 1, 2)
    ]
    costs = {
        SPD: ModelCost(3_600_000, 0.5, 9.0, 80.0),
        BASELINE: ModelCost(1_870_000, 0.25, 6.0, 40.0),
        wide: ModelCost(3_000_000, 0.5, 9.5, 90.0),
    }
    summary = ArenaSummary.of(("cells-160", RANDOM), "test", finished, costs)
    text = markdown([summary], "A note.")
    assert "### cells-160, test, from random weights" in text
    assert f"| `{SPD}` | 3.60 M | 0.50 | 9.0 | 80.0 | 1.0 min | 36.0 ± 1.0 | 80.0 ± 0.0 | 35.0 ± 0.0 | - | 3 |" in text
    assert f"| `{SPD}` minus `{BASELINE}` | **+5.0 (+5.0 to +5.0)** | **+5.0 (+5.0 to +5.0)** |" in text
    assert f"| `{SPD}` minus `{wide}` | **+1.0 (+1.0 to +1.0)** |" in text
    assert text.index(f"| `{SPD}`") < text.index(f"| `{BASELINE}`")  # in the order of the models
    assert summary.front("AP") == [BASELINE, SPD]  # the wide model is slower and finds less
    plot(tmp_path / "study.png", [summary])
    image = cv2.imread(str(tmp_path / "study.png"))
    assert image is not None and image.std() > 10


def test_a_model_may_change_the_recipe() -> None:
    assert Variant.parse("yolov5n-u.yaml") == Variant("yolov5n-u", {}, {})
    assert Variant.parse("yolov5n+nwd=0.5+seed=3") == Variant("yolov5n", {"nwd": 0.5}, {"seed": 3})
    assert (baseline_of("yolov5s-u+nwd=0.5"), baseline_of("wide-as-yolov5n-u")) == ("yolov5s", "yolov5n")


@pytest.mark.parametrize("text", ["yolov5n+nwd", "yolov5n+nwd=x", "yolov5n+unknown=1", "yolov5n+seed=0.5"])
def test_any_other_change_is_a_line(text: str) -> None:
    with pytest.raises(UsageError, match="--models yolov5n"):
        Variant.parse(text)


@pytest.mark.parametrize("text", ["my.yaml", "my.yaml@", "@160", "my.yaml@16", "my.yaml@x", "my.yaml@64:0"])
def test_a_data_set_without_a_side_is_a_line(text: str) -> None:
    with pytest.raises(UsageError, match="--data"):
        StudyData.parse(text)


def test_a_data_set_and_its_side() -> None:
    assert StudyData.parse("a/my.yaml@160") == StudyData("a/my.yaml", 160)
    assert StudyData.parse("my.yaml@96:120").name == "my-96-120"


def test_a_study_needs_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["study", "--out", str(tmp_path)])
    with pytest.raises(UsageError, match="--cpu-budget"):
        main()


def test_a_root_without_a_name_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--root /data"):
        study_of(flags_of(["--root", "/data", "--out", str(tmp_path)]))


def test_data_sets_of_one_name_are_a_line(tmp_path: Path) -> None:
    """The images of the first would be taken for the second's."""
    with pytest.raises(UsageError, match=r"--data b/my\.yaml: my-64 is there already"):
        study_of(flags_of(["--data", "a/my.yaml@64", "b/my.yaml@64", "--out", str(tmp_path)]))


@pytest.mark.parametrize("flag", ["--steps", "--batch-size"])
def test_a_number_of_steps_or_images_that_cannot_be_is_a_line(flag: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{flag} -1: must be 1 or more"):
        study_of(flags_of([flag, "-1", "--out", str(tmp_path)]))


def test_the_table_goes_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n")
    put_into_page(page, "new\n")
    put_into_page(page, "newer\n")
    assert page.read_text() == f"# Title\n\n{BEGIN}\n\nnewer\n\n{END}\n\nafter\n"
    page.write_text("# Title\n")
    with pytest.raises(UserError, match=r"page\.md: has no lines"):
        put_into_page(page, "new\n")


@pytest.mark.slow
def test_a_study_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    yaml = write_small_dataset(tmp_path / "data", train=8, val=4)
    words = [sys.executable, "-m", "benchmarks.small_object_study", "--data", f"{yaml}@64", "--steps", "1"]
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    words += ["--models", BASELINE, SPD, "--seeds", "0", "1", "--out", str(tmp_path / "study")]

    def run(budget: str) -> str:
        done = subprocess.run(
            [*words, "--page", str(page), "--cpu-budget", budget],
            cwd=REPOSITORY,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = run("0.01m")  # less than any run takes: the first one is begun, as nothing is known about it yet
    assert first.count("begins") == 1
    assert "the budget ends before small-64--random--yolov5n-spd--seed0" in first
    kept = {path: path.read_bytes() for path in (tmp_path / "study" / "results").glob("*.json")}
    assert run("1h").count("begins") == 3
    assert all(path.read_bytes() == content for path, content in kept.items())
    table = (tmp_path / "study" / "study.md").read_text()
    assert "| `yolov5n-spd` | 3." in table and table.startswith("4 runs, 1 steps")
    assert (tmp_path / "study" / "study.png").is_file()
    assert table.strip() in page.read_text() and (tmp_path / "page-study.png").is_file()


def test_tree_crowns_become_windows_in_three_parts(tmp_path: Path) -> None:
    """An image of 640 x 320 is two windows; a crown of 40 pixels lies in the first, one of 20 in the second."""
    corners = "".join(f"<{key}>{{}}</{key}>" for key in ("xmin", "ymin", "xmax", "ymax"))
    box = f"<object><name>Tree</name><bndbox>{corners}</bndbox></object>"
    text = "<annotation>" + box.format(100, 100, 140, 140) + box.format(400, 200, 420, 220) + "</annotation>"
    pixels = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (320, 640, 3), dtype=np.uint8))[1]
    with zipfile.ZipFile(tmp_path / "deepforest.whl", "w") as wheel:
        for name in ("a", "b", "c"):
            wheel.writestr(f"deepforest/data/{name}.xml", text)
            wheel.writestr(f"deepforest/data/{name}.png", pixels.tobytes())
    write_tree_crowns(tmp_path / "deepforest.whl", tmp_path / "trees")
    whole = read_dataset_yaml(REPOSITORY / "data" / "tree-crowns.yaml")
    images = tmp_path / "trees" / "images"
    spec = replace(whole, train=(images / "train",), val=(images / "val",), test=(images / "test",))
    parts = {part: open_dataset(spec.split(part), spec.names) for part in ("train", "val", "test")}
    assert {part: len(images) for part, images in parts.items()} == {"train": 4, "val": 1, "test": 1}
    assert tuple(parts["train"].source_size(0)) == (320, 320)
    assert parts["train"].source_labels(0).boxes.tolist() == [pytest.approx([100, 100, 140, 140], abs=1e-3)]
    assert parts["val"].source_labels(0).boxes.tolist() == [pytest.approx([80, 200, 100, 220], abs=1e-3)]
    with pytest.raises(UserError, match="exists"):
        write_tree_crowns(tmp_path / "deepforest.whl", tmp_path / "trees")
    (tmp_path / "no.whl").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no\.whl: cannot be read as a wheel"):
        write_tree_crowns(tmp_path / "no.whl", tmp_path / "more")

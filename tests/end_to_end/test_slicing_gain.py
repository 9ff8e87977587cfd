"""Small objects in large images, with a model that is trained for it: what slicing gains, beside sahi."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks.large_images import large_scenes, ways_to_detect
from tests.end_to_end.scripts import run_script
from tests.shared_data import REPOSITORY
from utils.dataset.demo_scenes import NAMES, SceneSize, write_demo_scenes
from utils.evaluation.coco_average_precision import coco_figures, findings_from_detections, truth_from_labels


@pytest.mark.acceptance
def test_slicing_doubles_the_ap_of_small_objects_in_large_images(tmp_path: Path) -> None:
    names = f"names: [{', '.join(NAMES)}]\n"
    scenes = write_demo_scenes(tmp_path / "scenes", SceneSize(train=240, val=8))
    (tmp_path / "scenes.yaml").write_text(f"path: {scenes}\ntrain: images/train\nval: images/val\n{names}")
    images = large_scenes(tmp_path / "large", 4)
    (tmp_path / "large.yaml").write_text(f"path: {tmp_path}\ntrain: large\nval: large\n{names}")
    hyp = REPOSITORY / "data" / "hyps" / "hyp.demo.yaml"
    recipe = ("--weights", "", "--cfg", "yolov5n-spd.yaml", "--data", tmp_path / "scenes.yaml", "--hyp", hyp)
    further = ("--optimizer", "AdamW", "--img", 320, "--epochs", 10, "--batch-size", 8, "--workers", 0, "--noval")
    run_script("train.py", *recipe, *further, "--project", tmp_path, "--name", "train", folder=tmp_path)
    weights = tmp_path / "train" / "weights" / "last.pt"

    small = {}
    for name, flags in (("whole", ()), ("sliced", ("--slice", 640))):
        common = ("--weights", weights, "--data", tmp_path / "large.yaml", "--img", 640, "--workers", 0)
        run_script("val.py", *common, *flags, "--project", tmp_path, "--name", name, folder=tmp_path)
        small[name] = json.loads((tmp_path / name / "metrics.json").read_text())["AP_S"]
    assert small["sliced"] > 0.05
    assert small["sliced"] >= 2 * small["whole"], small

    if importlib.util.find_spec("sahi") is None:
        pytest.skip(f"sahi is not installed; sliced {small['sliced']:.4f}, whole {small['whole']:.4f}")
    truth = truth_from_labels([labels for _, labels in images])
    ways = ways_to_detect(weights, conf=0.01, batch_size=8)
    ap = {
        name: coco_figures(truth, findings_from_detections([detect(image) for image, _ in images])).summary.AP_S
        for name, detect in ways.items()
    }
    (of_sahi,) = (value for name, value in ap.items() if name.startswith("sahi"))
    assert round(ap["--slice 640 --slice-merge nms"], 3) >= round(of_sahi, 3), ap  # to the decimals that are reported

"""Official weights on real images: the figures of the original program, in fp32 and in half precision."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.end_to_end.test_val_flags import annotations_from_labels
from tests.shared_data import SHARED, needs_shared
from utils.dataset.image_lists import list_images
from utils.evaluation.coco_average_precision import CocoSummary

TOLERANCE = 0.001
REPOSITORY = Path(__file__).parents[2]


@needs_shared
@pytest.mark.acceptance
@pytest.mark.parametrize("batch_size", [1, 32])
@pytest.mark.parametrize(
    ("flags", "file"),
    [((), "yolov5n_coco128_metrics_fp32.json"), (("--half",), "yolov5n_coco128_metrics.json")],  # val.run: half
    ids=["fp32", "half"],
)
def test_figures_of_the_original_program(flags: tuple[str, ...], file: str, batch_size: int, tmp_path: Path) -> None:
    spec = (REPOSITORY / "data" / "coco128.yaml").read_text(encoding="utf-8").splitlines()
    root = f"path: {SHARED / 'data' / 'coco128'}"
    data = tmp_path / "coco128.yaml"
    data.write_text("\n".join(root if line.startswith("path:") else line for line in spec), encoding="utf-8")
    command = [sys.executable, "val.py", "--weights", str(SHARED / "weights" / "yolov5n.pt"), "--data", str(data)]
    command += ["--imgsz", "640", "--batch-size", str(batch_size), "--workers", "0", "--as-yolov5"]
    subprocess.run([*command, *flags, "--project", str(tmp_path), "--name", "val"], cwd=REPOSITORY, check=True)

    reference = json.loads((SHARED / "reference" / file).read_text())
    metrics = json.loads((tmp_path / "val" / "metrics.json").read_text())
    expected = reference[f"batch{batch_size}"]
    ours = {"P": "precision", "R": "recall", "mAP50": "map50", "mAP": "map50_95"}
    np.testing.assert_allclose([metrics[ours[key]] for key in expected], list(expected.values()), atol=TOLERANCE)
    assert (metrics["images"], metrics["objects"]) == (128, 929)
    if batch_size == 1:
        coco = reference["coco_stats_batch1"]
        np.testing.assert_allclose([metrics[key] for key in coco], list(coco.values()), atol=TOLERANCE)


@needs_shared
@pytest.mark.acceptance
def test_the_same_figures_through_every_path(tmp_path: Path) -> None:
    """Labels, an annotation file made from them, and results that pycocotools evaluates by hand."""
    root = SHARED / "data" / "coco128"
    images = list_images((root / "images" / "train2017",))
    (tmp_path / "instances.json").write_text(json.dumps(annotations_from_labels(images)))
    spec = (REPOSITORY / "data" / "coco128.yaml").read_text(encoding="utf-8").splitlines()
    text = "\n".join(f"path: {root}" if line.startswith("path:") else line for line in spec)
    (tmp_path / "labels.yaml").write_text(text)
    (tmp_path / "annotated.yaml").write_text(f"{text}\nannotations: {tmp_path / 'instances.json'}\n")
    metrics = {}
    for name in ("labels", "annotated"):
        command = [sys.executable, "val.py", "--weights", str(SHARED / "weights" / "yolov5n.pt"), "--save-json"]
        command += [
            "--data",
            str(tmp_path / f"{name}.yaml"),
            "--batch-size",
            "1",
            "--workers",
            "0",
            "--as-yolov5",
            "--half",
        ]
        subprocess.run([*command, "--project", str(tmp_path), "--name", name], cwd=REPOSITORY, check=True)
        metrics[name] = json.loads((tmp_path / name / "metrics.json").read_text())
    keys = CocoSummary._fields
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(tmp_path / "instances.json"))
        found = known.loadRes(str(tmp_path / "annotated" / "yolov5n_predictions.json"))
        evaluator = COCOeval(known, found, "bbox")
        evaluator.params.imgIds = sorted(int(path.stem) for path in images)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    reference = json.loads((SHARED / "reference" / "yolov5n_coco128_metrics.json").read_text())
    for way in ([metrics["labels"][key] for key in keys], [metrics["annotated"][key] for key in keys], evaluator.stats):
        np.testing.assert_allclose(way, evaluator.stats, atol=2e-4)
        for key, value in reference["coco_stats_batch1"].items():
            assert dict(zip(keys, way, strict=True))[key] == pytest.approx(value, abs=TOLERANCE), key
    for key in ("precision", "recall", "map50", "map50_95"):
        # Two processes' sums may differ in the last bits; one detection of 929 more is 0.001.
        assert metrics["annotated"][key] == pytest.approx(metrics["labels"][key], abs=1e-4)

"""Official weights on real pictures: the figures of the original program, which computes them in half precision."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.shared_data import SHARED, needs_shared

TOLERANCE = 0.001
REPOSITORY = Path(__file__).parents[2]


@needs_shared
@pytest.mark.acceptance
@pytest.mark.parametrize("batch_size", [1, 32])
def test_figures_of_the_original_program(batch_size: int, tmp_path: Path) -> None:
    spec = (REPOSITORY / "data" / "coco128.yaml").read_text(encoding="utf-8").splitlines()
    root = f"path: {SHARED / 'data' / 'coco128'}"
    data = tmp_path / "coco128.yaml"
    data.write_text("\n".join(root if line.startswith("path:") else line for line in spec), encoding="utf-8")
    command = [sys.executable, "val.py", "--weights", str(SHARED / "weights" / "yolov5n.pt"), "--data", str(data)]
    command += ["--imgsz", "640", "--batch-size", str(batch_size), "--workers", "0", "--as-yolov5"]
    subprocess.run([*command, "--project", str(tmp_path), "--name", "val"], cwd=REPOSITORY, check=True)

    reference = json.loads((SHARED / "reference" / "yolov5n_coco128_metrics.json").read_text())
    metrics = json.loads((tmp_path / "val" / "metrics.json").read_text())
    expected = reference[f"batch{batch_size}"]
    ours = {"P": "precision", "R": "recall", "mAP50": "map50", "mAP": "map50_95"}
    np.testing.assert_allclose([metrics[ours[key]] for key in expected], list(expected.values()), atol=TOLERANCE)
    assert (metrics["images"], metrics["objects"]) == (128, 929)
    if batch_size == 1:
        coco = reference["coco_stats_batch1"]
        np.testing.assert_allclose([metrics[key] for key in coco], list(coco.values()), atol=TOLERANCE)

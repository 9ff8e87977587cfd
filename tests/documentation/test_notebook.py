"""The notebook is one that Jupyter opens, is stored without outputs, and its cells run, at the smallest sizes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.scripts import environment
from tests.shared_data import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "first_detector.ipynb"
TINY = {"IMAGES": 10, "SIDE": 64, "EPOCHS": 1}  # what the first cell of code sets


def notebook() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return content


def code_cells() -> list[str]:
    return ["".join(cell["source"]) for cell in notebook()["cells"] if cell["cell_type"] == "code"]


def test_it_has_the_form_of_nbformat_4_5_and_no_outputs() -> None:
    content = notebook()
    assert set(content) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"]["kernelspec"]["language"] == "python"
    for cell in content["cells"]:
        further = {"code": {"execution_count", "outputs"}, "markdown": set()}[cell["cell_type"]]
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | further
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
        assert cell["source"] and all(isinstance(line, str) for line in cell["source"])
        assert not cell.get("outputs") and cell.get("execution_count") is None
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids)


def test_it_is_plain_python_and_its_links_lead_somewhere() -> None:
    for code in code_cells():
        compile(code, NOTEBOOK.name, "exec")  # no magics
    text = "".join(line for cell in notebook()["cells"] if cell["cell_type"] == "markdown" for line in cell["source"])
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and [link for link in links if not (NOTEBOOK.parent / link).exists()] == []


@pytest.mark.slow
def test_its_cells_run(tmp_path: Path) -> None:
    first, *others = code_cells()
    assert re.findall(r"^(\w+) = ", first, re.MULTILINE) == list(TINY)
    program = tmp_path / "cells.py"
    small = "".join(f"{name} = {value}\n" for name, value in TINY.items())
    program.write_text("\n\n".join([first, small, *others]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=NOTEBOOK.parent,
        env=environment() | {"TMPDIR": os.fspath(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (made,) = tmp_path.glob("first-detector-*")
    for file in ("parts/report.html", "inspect/exp/report.html", "val/exp/report.html", "detect/exp/villages.jpg"):
        assert (made / file).is_file(), file
    assert (made / "train" / "exp" / "weights" / "best.onnx").is_file()
    # At 64 px: 3 anchors in each cell of 8, 4 and 2 cells to a side.
    shape = (1, 3 * (8**2 + 4**2 + 2**2), 5 + 3)
    lines = done.stdout.splitlines()
    assert any(line.startswith(str(shape)) and "vehicle" in line for line in lines), lines[-8:]
    assert sum(line.startswith("class ") for line in lines) == 5

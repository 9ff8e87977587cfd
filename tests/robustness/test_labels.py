"""Label files with every kind of mistake, through val.py: good rows are used, bad ones listed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.robustness.running import Outcome, slug, succeeds

pytestmark = pytest.mark.slow
AREA = "Labels"
GOOD = "1 0.5 0.5 0.2 0.2\n"

# case, content of the file, objects of it that are used, what problems.txt says of it ('' nothing)
FILES: tuple[tuple[str, str | bytes, int, str], ...] = (
    ("four columns", GOOD + "0 0.5 0.5 0.2\n", 1, "0.txt:2: 4 columns"),
    ("six columns", GOOD + "0 0.5 0.5 0.2 0.2 0.9\n", 1, "0.txt:2: 6 columns"),
    ("one column", "0\n" + GOOD, 1, "0.txt:1: 1 column;"),
    ("an outline of an odd number of coordinates", GOOD + "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4\n", 1, "0.txt:2: 8 columns"),
    ("commas between numbers", GOOD + "0,0.5,0.5,0.2,0.2\n", 1, "0.txt:2: 1 column;"),
    ("decimal commas", GOOD + "0 0,5 0,5 0,2 0,2\n", 1, "0.txt:2: '0,5' is not a number"),
    ("a class name for its number", GOOD + "cat 0.5 0.5 0.2 0.2\n", 1, "0.txt:2: 'cat' is not a number"),
    ("nan", GOOD + "0 nan 0.5 0.2 0.2\n", 1, "0.txt:2: 'nan' is not a finite number"),
    ("infinite", GOOD + "0 0.5 0.5 inf 0.2\n", 1, "0.txt:2: 'inf' is not a finite number"),
    ("negative coordinate", GOOD + "0 -0.1 0.5 0.2 0.2\n", 1, "0.txt:2: -0.1 is outside 0 to 1"),
    ("coordinate above 1 (pixels)", GOOD + "0 320 240 50 60\n", 1, "0.txt:2: 320 is outside 0 to 1"),
    ("zero width", GOOD + "0 0.5 0.5 0 0.2\n", 1, "0.txt:2: width 0"),
    ("negative height", GOOD + "0 0.5 0.5 0.2 -0.2\n", 1, "0.txt:2: -0.2 is outside"),
    ("an outline without area", GOOD + "0 0.1 0.1 0.2 0.1 0.3 0.1\n", 1, "0.txt:2: width"),
    ("class beyond the names", GOOD + "3 0.5 0.5 0.2 0.2\n", 1, "0.txt:2: class 3, but the classes are 0 to 2"),
    ("negative class", GOOD + "-1 0.5 0.5 0.2 0.2\n", 1, "0.txt:2: class -1 is not a whole number"),
    ("class that is no whole number", GOOD + "0.5 0.5 0.5 0.2 0.2\n", 1, "0.txt:2: class 0.5 is not a whole number"),
    ("absurd class", GOOD + "1e300 0.5 0.5 0.2 0.2\n", 1, "0.txt:2: class 1e300 is not a whole number"),
    ("class written 1.0", "1.0 0.5 0.5 0.2 0.2\n", 1, ""),
    ("repeated rows", GOOD * 3, 1, ""),
    ("empty file", "", 0, ""),
    ("blank lines", "\n \n" + GOOD + "\n\n", 1, ""),
    ("Windows line ends", GOOD.replace("\n", "\r\n") * 1 + "0 0.3 0.3 0.1 0.1\r\n", 2, ""),
    ("Windows line ends beside a mistake", GOOD.replace("\n", "\r\n") + "0 0.5\r\n", 1, "0.txt:2: 2 columns"),
    ("byte order mark", b"\xef\xbb\xbf" + GOOD.encode(), 1, ""),
    ("UTF-16", GOOD.encode("utf-16"), 0, "0.txt: not a text file"),
    ("an image called .txt", b"\x89PNG\r\n\x1a\n\x00\xff", 0, "0.txt: not a text file"),
    ("zero bytes", bytes(50), 0, "0.txt:1: 1 column;"),
    ("tabs between numbers", GOOD.replace(" ", "\t"), 1, ""),
    ("box and outline rows in one file", GOOD + "0 0.1 0.1 0.4 0.1 0.4 0.4\n", 2, ""),
    ("a million digits", GOOD + "0 0." + "5" * 1_000_000 + " 0.5 0.2 0.2\n", 2, ""),
    ("a box that reaches over the edge", "0 0.95 0.5 0.4 0.2\n", 1, ""),
    ("no line end at the end", GOOD.strip(), 1, ""),
    ("underscores in a number", GOOD + "0 0.5 0.5 0.2 0_1\n", 1, "0.txt:2:"),
)


def write_set(folder: Path, content: str | bytes) -> None:
    """Two images, of which the second has one sound label."""
    for kind in ("images", "labels"):
        (folder / "set" / kind).mkdir(parents=True)
    for name in ("0", "1"):
        cv2.imwrite(str(folder / "set" / "images" / f"{name}.png"), np.full((48, 64, 3), 90, np.uint8))
    (folder / "set" / "labels" / "0.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "set" / "labels" / "1.txt").write_text(GOOD, encoding="utf-8")
    (folder / "d.yaml").write_text("path: set\ntrain: images\nval: images\nnames: [a, b, c]\n", encoding="utf-8")


def evaluate(folder: Path, weights: Path, name: str = "v") -> tuple[Outcome, int, Path]:
    """val.py's outcome, the number of objects that it used, and its list of problems."""
    outcome = succeeds(
        "val", "--weights", weights, "--data", "d.yaml", "--img", 64, "--workers", 0, "--name", name, folder=folder
    )
    run = folder / "runs" / "val" / name
    return outcome, json.loads((run / "metrics.json").read_text(encoding="utf-8"))["objects"], run / "problems.txt"


@pytest.fixture(autouse=True)
def _without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.verbs.evaluate.write_evaluation_plots", lambda *_: None)  # the same for all


@pytest.mark.parametrize(
    ("content", "used", "line"),
    [
        pytest.param(
            content, used, line, id=slug(case),
            marks=pytest.mark.case(AREA, case, f"{used} used" + (f", listed: “{line}”" if line else "")),
        )
        for case, content, used, line in FILES
    ],
)  # fmt: skip
def test_a_label_file(content: str | bytes, used: int, line: str, tmp_path: Path, weights: Path) -> None:
    write_set(tmp_path, content)
    outcome, objects, problems = evaluate(tmp_path, weights)
    assert objects == used + 1
    assert problems.exists() == bool(line), outcome.output
    if line:
        listed = problems.read_text(encoding="utf-8").splitlines()
        assert len(listed) == 1 and line in listed[0] and len(listed[0]) < 400
        assert "WARNING: 1 problem in the data set is listed in runs/val/v/problems.txt:\n  " in outcome.output
        assert f"\n  {listed[0]}\n" in outcome.output


@pytest.mark.case(AREA, "many mistakes at once", "every one listed with file and line, five of them on the terminal")
def test_every_problem_is_counted_and_listed(tmp_path: Path, weights: Path) -> None:
    write_set(tmp_path, "".join(f"{kind} 0.5 0.5 0.1 0.1\n" for kind in range(200)))
    outcome, objects, problems = evaluate(tmp_path, weights)
    assert objects == 3 + 1
    lines = problems.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 197 and "0.txt:200: class 199" in lines[-1]
    assert outcome.output.count("problems in the data set are listed in") == 1
    said = outcome.output.split("problems in the data set are listed in runs/val/v/problems.txt:\n")[1].splitlines()
    assert [line.strip() for line in said[:6]] == [*lines[:5], "and 192 more"]
    assert "197 bad label rows left out" in outcome.output


@pytest.mark.case(AREA, "edited without another size or modification time", "seen (change time)")
def test_an_edited_label_is_seen(tmp_path: Path, weights: Path) -> None:
    write_set(tmp_path, GOOD)
    file = tmp_path / "set" / "labels" / "0.txt"
    before = file.stat()
    assert evaluate(tmp_path, weights, "first")[1] == 2
    file.write_text(GOOD.replace("1 0.5", "9 0.5"), encoding="utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size and file.stat().st_mtime_ns == before.st_mtime_ns
    _, objects, problems = evaluate(tmp_path, weights, "second")
    assert objects == 1 and "class 9" in problems.read_text(encoding="utf-8")


@pytest.mark.case(AREA, "a folder in the place of a label file", "listed, the rest is evaluated")
def test_a_folder_named_like_a_label_file(tmp_path: Path, weights: Path) -> None:
    write_set(tmp_path, GOOD)
    (tmp_path / "set" / "labels" / "0.txt").unlink()
    (tmp_path / "set" / "labels" / "0.txt").mkdir()
    _, objects, problems = evaluate(tmp_path, weights)
    assert objects == 1 and "0.txt: cannot be read: Is a directory" in problems.read_text(encoding="utf-8")


@pytest.mark.case(AREA, "no label files at all", "background images; the log says how many")
def test_no_labels(tmp_path: Path, weights: Path) -> None:
    write_set(tmp_path, GOOD)
    for name in ("0", "1"):
        (tmp_path / "set" / "labels" / f"{name}.txt").unlink()
    outcome, objects, _ = evaluate(tmp_path, weights)
    assert objects == 0 and "2 without labels" in outcome.output

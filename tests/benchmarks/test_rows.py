"""The runner: every row gives a table at a tiny size, and a wrong command line is one line."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import re
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks import formats, large_images, measuring, rows
from benchmarks.__main__ import FLAGS, main
from benchmarks.measuring import Command, Cost, Further, Timed, cost_rows, measured, python
from benchmarks.rows import ROWS
from models.weights import checkpoint_fields
from models.yolo import DetectionModel, load_architecture
from tests.small_classes import write_small_classes
from tests.small_dataset import NAMES, write_small_dataset
from utils.user_error import UsageError, UserError

SCRIPT = "--weights nano.pt --data data/small.yaml --img 64 --batch-size 2 --workers 0 --rounds 1"
TICKS = itertools.count(1)
TINY = {  # in the folder of `inputs`
    "nms": "--img 64 --rounds 1",
    "loss": "--img 64 --batch-size 2 --rounds 1",
    "augmentation": "--data data/images/train --img 64 --samples 2 --rounds 1",
    "training_step": "--img 32 --batch-size 2 --rounds 1",
    "training_overhead": SCRIPT,
    "training_epoch": f"{SCRIPT} --epochs 2 --precision fp32",
    "validation": f"{SCRIPT} --precision fp32",
    "detection_start": "--weights nano.pt --source data/images/val/000.png --rounds 1",
    "detection_video": "--weights nano.pt --img 64 --images 2 --rounds 1",
    "shared_machine": "--weights nano.pt --data data/small.yaml --source data/images/val/000.png --img 64 --tile 64"
    " --rounds 1 --only detect --spins 3000 --processes 1",
    "coco_evaluation": "--images 4",
    "roofline": "--share 0.1 --rounds 1",
    "dataset_index": "--images 4 --boxes 20",
    "cost_growth": "--only loss nms --share 0.4 --plots plots",
    "memory_over_time": "--only detect-video --share 0.00001",
    "formats": "--weights nano.pt --cfg yolov5n-spd.yaml --data data/small.yaml --img 64 --threads 1 --rounds 1",
    "slicing": "--weights nano.pt --images 1 --conf 0.9",
    "tiled_training": "--train 3 --val 1 --tile 64 --shrunk 96 --epochs 1",
    "classification_study": "--data classes --models yolov5n-spd-cls --seeds 0 --epochs 1",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    write_small_dataset(folder / "data", train=8, val=2)
    write_small_classes(folder / "classes", train=1, evaluated=1)
    torch.save(checkpoint_fields(DetectionModel(load_architecture("yolov5n"), names=NAMES)), folder / "nano.pt")
    return folder


def finished_here(command: Command) -> tuple[str, Cost]:
    """As ``Command.finished``, in this process: starting one takes longer than a tiny measurement."""
    words, said, code = command.words[1:], io.StringIO(), None
    arguments, path = sys.argv, list(sys.path)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.chdir(command.folder):
        try:
            if words[0] == "-m":
                measuring.main(words[2:])
            elif words[0] == "-c":
                for module in words[1].removeprefix("import ").split(", "):
                    importlib.import_module(module)
            else:
                sys.argv, sys.path[:0] = list(words), [str(Path(words[0]).parent)]
                runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
        finally:
            sys.argv, sys.path[:] = arguments, path
    assert not code, said.getvalue()
    return said.getvalue(), Cost(*[float(next(TICKS))] * 3)


def printed_by(words: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    main()
    return capsys.readouterr().out


@pytest.mark.parametrize("row", ROWS)
def test_a_row_gives_a_table(
    row: str, inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(inputs)
    monkeypatch.setattr(Command, "finished", finished_here)
    monkeypatch.setattr(formats, "EXPORTED", {"TorchScript": ("torchscript", "fp32")})
    for name, value in (("TILED_SIDE", 96), ("SLICED_SIDE", 128), ("TILE", 64), ("DENSITY", 8.0)):
        monkeypatch.setattr(large_images, name, value)
    monkeypatch.setattr(formats, "LAYER_REPEATS", 1)
    monkeypatch.setattr(rows, "VIDEO_SIZE", (48, 64))
    threads = torch.get_num_threads()
    lines = printed_by([row, *shlex.split(TINY[row])], monkeypatch, capsys).splitlines()
    torch.set_num_threads(threads)
    assert "processors" in lines[0]
    cells = [line.split("|")[2:-1] for line in lines if line.startswith("|")]
    figures = [row for row in cells if not set("".join(row)) <= set("-: ")]
    assert any(re.search(r"\d", "".join(row)) for row in figures)
    assert "nan" not in str(figures) and "inf" not in str(figures), lines


def test_formats_are_made_and_evaluated_once_in_a_folder(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(inputs)
    monkeypatch.setattr(formats, "EXPORTED", {"TorchScript": ("torchscript", "fp32")})
    words = ["formats", *shlex.split(TINY["formats"].replace("--cfg yolov5n-spd.yaml", "--folder kept"))]
    threads = torch.get_num_threads()
    first = known_of_forms(printed_by(words, monkeypatch, capsys))
    for name in ("export_model", "compare"):
        monkeypatch.setattr(formats, name, lambda *_: pytest.fail("a second time"))
    assert known_of_forms(printed_by([*words, "--no-ap"], monkeypatch, capsys)) == first
    torch.set_num_threads(threads)
    size, pixels, probability, ap, _ = map(float, first["TorchScript"])
    assert size > 0 and pixels < 0.05 and probability < 5e-4 and ap >= 0
    words[words.index("64")] = "96"
    with pytest.raises(
        UserError, match=r"^kept/facts.json: is of another detector \(img differs\); take another --folder$"
    ):
        printed_by(words, monkeypatch, capsys)


def known_of_forms(printed: str) -> dict[str, list[str]]:
    """Size, differences and AP of each form."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    begin = next(number for number, row in enumerate(rows) if row[0] == "form")
    return {row[0]: row[1:6] for row in rows[begin + 2 :] if len(row) == len(rows[begin])}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nsm", "nsm: no row of benchmarks; did you mean nms?"),
        ("nms --samples 3", "--samples: not a flag of nms"),
        ("nms augmentation", "augmentation: needs --data"),
        (
            "classification_study --data x --precision fp32 bf16",
            "--precision fp32 bf16: classification_study takes one",
        ),
        ("cost_growth --only sides", "--only sides: cost_growth has side, batch"),
    ],
)
def test_a_wrong_command_line_is_a_line(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        printed_by(words.split(), monkeypatch, capsys)
    assert str(caught.value).startswith(message)


def test_the_rows_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    listed = printed_by(["--list"], monkeypatch, capsys)
    assert [line for line in listed.splitlines() if not line.startswith(" ")] == list(ROWS)
    assert {flag for row in ROWS.values() for flag in row.flags} == set(FLAGS)


def test_medians_and_ratios_by_hand() -> None:
    class Steps:
        def __init__(self, *walls: float) -> None:
            self.walls = iter(walls)

        def run(self) -> dict[str, Cost]:
            return {"": Cost(next(self.walls), 1.5, 100.0)}

    costs = measured({"ours": Steps(1.0, 9.0, 2.0), "peer": Steps(4.0, 4.0, 5.0)}, rounds=3)
    assert costs == {"": {"ours": Cost(2.0, 1.5, 100.0), "peer": Cost(4.0, 1.5, 100.0)}}
    assert cost_rows("work", costs[""]) == [
        ("work", "ours", "2000", "0.500", "1500", "1.000", "100", "1.00"),
        ("work", "peer", "4000", "1.000", "1500", "1.000", "100", "1.00"),
    ]


def test_a_process_is_measured_from_its_start_to_its_end(tmp_path: Path) -> None:
    script = "import json, time; time.sleep(0.1); print(json.dumps({'a': [[1, 2], [5, 3], [2, 7]]})); print('warning')"
    cost = Timed(python("-c", script, folder=tmp_path)).run()["a"]
    assert (cost.wall, cost.cpu) == (2, 3)
    assert cost.mib > 1
    assert python("-c", script, folder=tmp_path).run()[""].wall > 0.1
    with pytest.raises(RuntimeError, match=r"(?s)in /.*failed:.*ZeroDivisionError"):
        python("-c", "1 / 0").run()


def test_an_epoch_is_the_difference_of_a_long_and_a_short_run(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {"1": Cost(10.0, 4.0, 50.0), "3": Cost(16.0, 7.0, 60.0)}
    monkeypatch.setattr(Command, "finished", lambda command: ("", costs[command.words[-1]]))
    assert Further(python("1"), python("3"), 2).run() == {"": Cost(3.0, 1.5, 60.0)}


@pytest.mark.slow
def test_the_other_side_runs_in_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "general.py").write_text("def non_max_suppression(*_, **settings): assert settings\n")
    said = printed_by(["nms", "--img", "64", "--rounds", "1", "--peer", str(tmp_path)], monkeypatch, capsys)
    assert [line.split(" | ")[1] for line in said.splitlines()[-2:]] == ["ours", "peer"]

"""Every shell command of README and docs is one that the program takes, and does what it is meant to at tiny size."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

from benchmarks.__main__ import parser, selected
from tests.documentation.commands import KNOWN_NEEDS, DocCommand, all_commands, commands_in, made_by_make, pages
from tests.documentation.tiny import MODULES, SCRIPTS, made_tiny, module_of, parsed
from tests.end_to_end.scripts import environment
from tests.shared_data import REPOSITORY

COMMANDS = all_commands()
OTHER_PROGRAMS = (
    "pip",
    "git",
    "cd",
    "find",
    "ffmpeg",
    "docker",
    "trtexec",
)  # of other projects; there is nothing of ours to hold them to


def name_of(command: DocCommand) -> str:
    return f"{command.place} {command.text}"


@cache
def recipe(target: str) -> str:
    done = subprocess.run(["make", "-n", "-B", target], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def runnable() -> list[str]:
    """What is run: each command once, those of ``make demo`` too."""
    commands = [one for one in COMMANDS if not one.needs] + made_by_make("demo", [recipe("demo")])
    return list(dict.fromkeys(tiny for one in commands if (tiny := made_tiny(one)) is not None))


def test_pages_without_a_command_are_no_surprise() -> None:
    """Guards the search itself: these pages have commands."""
    with_commands = {command.file for command in COMMANDS}
    assert {"README.md", "custom-data.md", "evaluation.md", "small-objects.md"} <= with_commands
    assert len(pages()) >= len(with_commands)


@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_the_program_takes_it(command: DocCommand) -> None:
    assert set(command.needs) <= KNOWN_NEEDS, f"{command.place}: says that it needs {command.needs}"
    if command.script in SCRIPTS:
        parsed(command)
    elif command.script.startswith("-m "):
        assert importlib.util.find_spec(command.script.removeprefix("-m ")) is not None
    elif command.script == "make":
        assert recipe(command.words[-1])
    elif command.words[0] == "python":
        assert (REPOSITORY / command.script).is_file(), f"{command.place}: {command.text}: no such script"
    else:
        assert command.words[0] in OTHER_PROGRAMS, f"{command.place}: {command.text}: what is this?"


MODULES_WITH_FLAGS = sorted(
    {one.script.removeprefix("-m ") for one in COMMANDS if one.script.startswith("-m ") and "--" in one.text}
)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES_WITH_FLAGS)
def test_a_module_knows_the_flags_it_is_given(module: str) -> None:
    words = [word for one in COMMANDS if one.script == f"-m {module}" for word in one.arguments]
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=REPOSITORY, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [word for word in words if word.startswith("--") and word.split("=")[0] not in done.stdout] == []


def test_rows_of_the_benchmarks_take_the_flags_they_are_given() -> None:
    for command in (one for one in COMMANDS if one.script == "-m benchmarks"):
        given = vars(parser().parse_args(command.arguments))
        rows, listed = given.pop("rows"), given.pop("list")
        assert rows or listed, f"{command.place}: names no row"
        selected(rows, given)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of every command that runs here, by its tiny form."""
    commands = runnable()
    done = subprocess.run(
        [sys.executable, "-m", "tests.documentation.workspace", str(tmp_path_factory.mktemp("reader"))],
        cwd=REPOSITORY,
        env=environment(),
        input=json.dumps(commands),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(commands, json.loads(done.stdout), strict=True))


@pytest.mark.slow
def test_they_run(outcomes: dict[str, Any]) -> None:
    failed = [f"{one}\n{outcome['said']}" for one, outcome in outcomes.items() if outcome["code"] != 0]
    assert not failed, f"{len(failed)} of {len(outcomes)} commands fail:\n\n" + "\n\n".join(failed)
    assert len(outcomes) > 30
    assert not [one for one, outcome in outcomes.items() if "Traceback" in outcome["said"]]


def test_what_the_search_finds() -> None:
    text = """A sentence with `python val.py --half` and `something else`.

<!-- needs: GPU, COCO -->
```sh
VENV=x make demo
python train.py --data my.yaml \\
    --epochs 3   # three
```

```bash
$ torchrun --nproc_per_node 2 train.py --img 64 && python -m models --cfg a.yaml
```

```yaml
python: no command
```
"""
    found = [(one.line, one.script, one.arguments, one.needs) for one in commands_in("page.md", text)]
    assert found == [
        (1, "val.py", ("--half",), ()),
        (5, "make", ("demo",), ("GPU", "COCO")),
        (7, "train.py", ("--data", "my.yaml", "--epochs", "3"), ("GPU", "COCO")),
        (11, "train.py", ("--img", "64"), ()),
        (11, "-m models", ("--cfg", "a.yaml"), ()),
    ]


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        ("--weights a.pt --device 0", ("GPU",)),
        ("--weights a.pt --device cpu --source images/", ()),
        ("--weights a.engine", ("GPU",)),
        ("--source rtsp://camera/1", ("camera",)),
        ("--source 0", ("camera",)),
        ("--source https://host/a.jpg", ("internet",)),
        ("--source 'screen 1'", ("screen",)),
    ],
)
def test_what_a_command_says_of_its_needs(arguments: str, needs: tuple[str, ...]) -> None:
    (command,) = commands_in("x", f"```sh\npython detect.py {arguments}\n```")
    assert command.needs == needs


def test_tiny_settings_keep_what_is_not_size() -> None:
    (command,) = commands_in(
        "x", "```sh\npython train.py --weights a.pt --cfg yolov5s-spd.yaml --hyp h.yaml --img 640\n```"
    )
    tiny = made_tiny(command)
    assert tiny is not None
    words = tiny.split()
    assert words[:2] == ["python", "train.py"]
    for pair in (
        "--weights a.pt",
        "--cfg yolov5n-spd.yaml",
        "--hyp h.yaml",
        "--imgsz 64",
        "--epochs 1",
        "--data my.yaml",
    ):
        assert pair in tiny
    assert set(MODULES) <= {module_of(one) for one in COMMANDS} | {"utils.dataset.demo_scenes"}


def test_make_demo_is_read_out_of_the_makefile() -> None:
    found = made_by_make("demo", [recipe("demo")])
    assert [one.script for one in found][:3] == ["-m utils.dataset.demo_scenes", "train.py", "val.py"]
    for one in found:
        if one.script in SCRIPTS:
            parsed(one)

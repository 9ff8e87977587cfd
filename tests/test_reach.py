"""A script can be read from its first line down in reasonable time: what it pulls in, and the files, have ceilings."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.shared_data import REPOSITORY

CEILINGS = {"train": 17_200, "val": 14_200, "detect": 10_500, "classify.predict": 8_500}  # lines, imports included
MOST_MODULES = 228
FOLDERS = ("benchmarks", "classify", "models", "utils")


def modules_of(repository: Path) -> dict[str, Path]:
    """Every module that is no test, by its dotted name; a package is its ``__init__.py``."""
    files = [*repository.glob("*.py"), *(file for name in FOLDERS for file in (repository / name).rglob("*.py"))]
    return {_dotted(file.relative_to(repository)): file for file in sorted(files)}


def _dotted(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def imported_by(source: str, known: set[str]) -> set[str]:
    """Modules out of ``known`` that a source imports, in functions too, with the packages that they lie in.

    What only type checkers import does not count.
    """
    tree = ast.parse(source)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names]
    return {".".join(part[:end]) for part in parts for end in range(1, len(part) + 1)} & known


def reached_from(script: str, modules: dict[str, Path]) -> set[str]:
    """The script, what it imports, what that imports, and so on."""
    reached: set[str] = set()
    waiting = [script]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imported_by(modules[module].read_text(encoding="utf-8"), set(modules))
    return reached


def lines_reached(script: str, modules: dict[str, Path]) -> int:
    return sum(modules[name].read_text(encoding="utf-8").count("\n") for name in reached_from(script, modules))


@pytest.mark.parametrize(("script", "most"), CEILINGS.items())
def test_what_a_script_reaches_stays_below_its_ceiling(script: str, most: int) -> None:
    assert lines_reached(script, modules_of(REPOSITORY)) <= most


def test_there_are_no_more_modules_than_can_be_known() -> None:
    assert 100 < len(modules_of(REPOSITORY)) <= MOST_MODULES


def test_the_count_follows_functions_and_packages_but_no_types(tmp_path: Path) -> None:
    content = {
        "train.py": "from __future__ import annotations\nfrom models.a import X\n",
        "models/__init__.py": "\n" * 10,
        "models/a.py": "def f():\n    from utils import b\n",
        "utils/__init__.py": "",
        "utils/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import utils.c\n",
        "utils/c.py": "\n" * 1000,
    }
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    modules = modules_of(tmp_path)
    assert set(modules) == {"train", "models", "models.a", "utils", "utils.b", "utils.c"}
    assert reached_from("train", modules) == {"train", "models", "models.a", "utils", "utils.b"}
    assert lines_reached("train", modules) == 2 + 10 + 2 + 0 + 3

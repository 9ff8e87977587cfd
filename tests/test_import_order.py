"""A module imports only modules to its left in the order of the rooms, imports inside functions included."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.shared_data import REPOSITORY

ORDER = (
    "utils.user_error",
    "utils.geometry",
    "utils.runtime",
    "utils.config",
    "models",
    "utils.dataset",
    "utils.loss",
    "utils.inference",
    "utils.evaluation",
    "utils.reporting",
    "utils.training",
    "utils.exporting",
    "utils.verbs",
)
SCRIPTS = ("classify", "train", "val", "detect", "export", "hubconf")
MODELS_MAY_IMPORT = {"utils.user_error", "utils.geometry", "models"}


def room_of(module: str) -> str | None:
    """The room that a dotted name lies in; None for libraries."""
    parts = module.split(".")
    if parts[0] in SCRIPTS:
        return parts[0]
    name = parts[0] if parts[0] == "models" else ".".join(parts[:2])
    return name if name in ORDER else None


def imported_modules(tree: ast.AST) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def is_script(path: Path, tree: ast.AST) -> bool:
    """Files run with ``python -m`` or from the top level parse and call; they count at the right end."""
    in_place = path.parent in (REPOSITORY, REPOSITORY / "classify")
    return in_place or path.name == "__main__.py"


def violations(path: Path, source: str) -> list[str]:
    tree = ast.parse(source)
    if is_script(path, tree):
        own_rank, own = len(ORDER), path.stem
    else:
        own = room_of(".".join(path.relative_to(REPOSITORY).with_suffix("").parts)) or ""
        if own not in ORDER:
            return []
        own_rank = ORDER.index(own)
    found = []
    for line, module in imported_modules(tree):
        room = room_of(module)
        if room is None:
            continue
        to_the_right = room in SCRIPTS or ORDER.index(room) > own_rank
        if to_the_right or (own == "models" and own_rank < len(ORDER) and room not in MODELS_MAY_IMPORT):
            found.append(f"{path.relative_to(REPOSITORY)}:{line} imports {module}")
    return found


def own_files() -> list[Path]:
    folders = [REPOSITORY / name for name in ("classify", "models", "utils")]
    return sorted(REPOSITORY.glob("*.py")) + sorted(file for folder in folders for file in folder.rglob("*.py"))


def test_every_import_goes_left() -> None:
    files = own_files()
    assert len(files) > 30
    assert [problem for path in files for problem in violations(path, path.read_text(encoding="utf-8"))] == []


def test_the_check_finds_an_import_to_the_right() -> None:
    path = REPOSITORY / "utils" / "geometry" / "boxes.py"
    inside_a_function = "def f():\n    from utils.loss.detection_loss import DetectionLoss\n"
    assert violations(path, inside_a_function) == [
        "utils/geometry/boxes.py:2 imports utils.loss.detection_loss.DetectionLoss"
    ]
    assert violations(REPOSITORY / "models" / "yolo.py", "import utils.config.shared_flags") != []
    assert violations(REPOSITORY / "train.py", "import val") != []

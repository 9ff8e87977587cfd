"""The scripts, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.shared_data import REPOSITORY


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(REPOSITORY / script), *map(str, arguments)]


def environment() -> dict[str, str]:
    """The tests' own, with the repository's packages findable for `python -m`, and one thread of arithmetic."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def run_script(script: str, *arguments: object, folder: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run ``python SCRIPT ARGUMENTS`` in ``folder`` and check its exit code."""
    result = subprocess.run(
        command(script, *arguments), cwd=folder, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert result.returncode == expect, f"exit {result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    assert "Traceback" not in result.stderr, result.stderr
    return result

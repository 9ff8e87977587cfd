"""Runs scripts one after another under ``pretend_cuda.py``, each in a process forked after torch is loaded.

    python pretend_cuda.py tests/cuda/forked_runs.py

Loading torch takes longer than most of the runs. A line of JSON comes in for each run, a line goes out when it has
ended; what it said and what the tool noted of it lie beside ``report``.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any


def forked_run(words: list[str], folder: str, report: str) -> None:
    """In a process of its own: run ``words`` in ``folder``, then write the notes to ``report``."""
    pretend_cuda: Any = importlib.import_module("pretend_cuda")
    from tests.documentation.workspace import run

    with Path(report).with_suffix(".txt").open("wb") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.chdir(folder)
    os.environ["PRETEND_REPORT"] = report
    pretend_cuda.NOTES.clear()
    pretend_cuda.BYTES.clear()
    code = 1
    try:
        code = run(words)
    finally:
        pretend_cuda.report()
    sys.exit(code)


def load_what_scripts_need() -> None:
    verbs = ("compare", "evaluate_classifier", "export", "train", "train_classifier")
    for name in ("matplotlib.pyplot", "pandas", "hubconf", *(f"utils.verbs.{verb}" for verb in verbs)):
        importlib.import_module(name)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, instead of this folder
    load_what_scripts_need()
    forks = multiprocessing.get_context("fork")
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        process = forks.Process(target=forked_run, kwargs=request)
        process.start()
        process.join()
        print(json.dumps({"code": process.exitcode}), flush=True)


if __name__ == "__main__":
    main()

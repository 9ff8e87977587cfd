"""Runs scripts one after another under ``pretend_cuda.py``, each in a process forked after torch is loaded.

    python pretend_cuda.py tests/cuda/forked_runs.py                      scripts named on standard input
    python pretend_cuda.py tests/cuda/forked_runs.py train.py FLAGS...    one script, in this process

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

import torch


def forked_run(words: list[str], folder: str, report: str) -> None:
    """In a process of its own: run ``words`` in ``folder``, then write the notes to ``report``."""
    tool = pretended_cuda()
    from tests.documentation.workspace import run

    with Path(report).with_suffix(".txt").open("wb") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.chdir(folder)
    os.environ["PRETEND_REPORT"] = report
    tool.NOTES.clear()
    tool.BYTES.clear()
    code = 1
    try:
        code = run(words)
    finally:
        tool.report()
    sys.exit(code)


def pretended_cuda() -> Any:
    return importlib.import_module("pretend_cuda")


def accept_zeros_of_the_engine(tool: Any) -> None:
    """Autograd makes zeros for unused parts of a split: on the GPU, but here where C++ thinks that the tensor is."""
    refuse = tool.refuse_mixture

    def refuse_others(func: Any, name: str, args: Any, on_cpu: list[torch.Tensor]) -> None:
        in_backward = torch._C._current_graph_task_id() >= 0
        if not (name == "cat" and in_backward and not any(bool(one.any()) for one in on_cpu)):
            refuse(func, name, args, on_cpu)

    tool.refuse_mixture = refuse_others


def give_streams(tool: Any) -> None:
    """The tool has none. What is ordered on these happens at once, and memory that they share is noted."""
    from tests.runtime.stand_in_streams import StandInStreams

    streams = StandInStreams()
    streams.install(setattr)

    def shared(tensor: torch.Tensor, stream: object) -> None:
        assert stream is streams.computing and streams.current is streams.computing
        tool.note("memory kept for another stream", tensor.nbytes)

    tool.PretendCuda.record_stream = shared
    torch.compile = lambda network, **_: network  # type: ignore[assignment]  # it cannot look into the tool's tensors


def load_what_scripts_need() -> None:
    verbs = ("compare", "evaluate_classifier", "export", "train", "train_classifier")
    for name in ("matplotlib.pyplot", "pandas", "hubconf", *(f"utils.verbs.{verb}" for verb in verbs)):
        importlib.import_module(name)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, instead of this folder
    accept_zeros_of_the_engine(pretended_cuda())
    give_streams(pretended_cuda())
    if sys.argv[1:]:
        from tests.documentation.workspace import run

        sys.exit(run(["python", *sys.argv[1:]]))
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

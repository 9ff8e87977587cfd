"""``benchmarks.gpu_check``, whole and tiny, on a pretended GPU."""

from __future__ import annotations

import re

import pytest

from benchmarks.gpu_check import CHECKS
from tests.cuda.pretended import PretendedGpu, needs_tool

pytestmark = [pytest.mark.slow, needs_tool]


def test_every_check_runs(gpu: PretendedGpu) -> None:
    gpu.run("tests/cuda/checked_gpu.py", gpu.folder)
    lines = (gpu.folder / "gpu-check.md").read_text().splitlines()
    assert "processors" in lines[0] and lines[1] == "Pretend GPU, 16 GiB"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")][2:]
    assert [name for name, *_ in rows] == list(CHECKS)
    results = {name: result for name, result, *_ in rows}
    assert "FAILED" not in results.values(), "\n".join(lines)
    assert [name for name, result in results.items() if result == "not run"] == [
        *("TensorRT", "TensorRT, FP16, free sides", "two GPUs", "two GPUs, --sync-bn")
    ]
    figures = {name: text for name, _, text, _ in rows}
    assert figures["training, fp32, beside the CPU"] == "losses of an epoch within 0.00 % of the CPU's"
    assert re.fullmatch(r"0 of [1-9]\d* boxes .*", figures["detect.py, fp32"])
    assert sum(bool(milliseconds) for *_, milliseconds in rows) >= 9

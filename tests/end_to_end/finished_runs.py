"""What training runs left behind, compared, and a run that is killed in the middle of an epoch."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.end_to_end.scripts import environment


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint of the run's folder."""
    state: dict[str, torch.Tensor] = torch.load(run / "weights" / name, weights_only=True)["model"]
    return state


def assert_same_run(first: Path, second: Path) -> None:
    """Both runs ended with the same weights, bit for bit, and the same table."""
    for name in ("last.pt", "best.pt"):
        one, other = weights(first, name), weights(second, name)
        assert one.keys() == other.keys() and len(one) > 30
        assert [key for key in one if not torch.equal(one[key], other[key])] == []
    assert (first / "results.csv").read_text() == (second / "results.csv").read_text()


def killed_when(words: Sequence[str], shown: str, folder: Path) -> None:
    """Start a command in ``folder`` and kill it when its progress bar shows what the pattern ``shown`` matches."""
    every_step = environment() | {"TQDM_MININTERVAL": "0"}  # a bar drawn ten times a second may skip a short epoch
    with subprocess.Popen(
        words, cwd=folder, env=every_step, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        text = ""
        while not re.search(shown, text):
            character = process.stderr.read(1)
            assert character, f"the run ended before it could be killed:\n{text}"
            text += character
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

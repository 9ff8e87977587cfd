"""What training runs left behind, compared, and a run that is killed in the middle of an epoch."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.end_to_end.scripts import environment


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint of the run's folder."""
    state: dict[str, torch.Tensor] = torch.load(run / "weights" / name, weights_only=True)["model"]
    return state


def thresholds(run: Path, name: str) -> dict[str, object] | None:
    """The confidences worth working at in a checkpoint of the run's folder; None in a classifier's."""
    stored: dict[str, object] | None = torch.load(run / "weights" / name, weights_only=True)["thresholds"]
    return stored


def assert_same_run(first: Path, second: Path) -> None:
    """Both runs ended with the same weights, bit for bit, and the same table."""
    for name in ("last.pt", "best.pt"):
        one, other = weights(first, name), weights(second, name)
        assert one.keys() == other.keys() and len(one) > 30
        assert [key for key in one if not torch.equal(one[key], other[key])] == []
        assert thresholds(first, name) == thresholds(second, name)
    assert (first / "results.csv").read_text() == (second / "results.csv").read_text()


def killed_when(words: Sequence[str], shown: str, folder: Path) -> None:
    """Start a command in ``folder`` and kill it when its progress bar shows what the pattern ``shown`` matches."""
    every_step = environment() | {"TQDM_MININTERVAL": "0"}  # a bar drawn ten times a second may skip a short epoch
    screen, terminal = pty.openpty()  # without a terminal there is no bar, nor on one of no columns
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with subprocess.Popen(words, cwd=folder, env=every_step, stdout=subprocess.DEVNULL, stderr=terminal) as process:
        os.close(terminal)
        text = ""
        while not re.search(shown, text):
            with contextlib.suppress(OSError):  # a terminal that nobody writes to any more
                text += os.read(screen, 1024).decode(errors="replace")
            assert process.poll() is None, f"the run ended before it could be killed:\n{text}"
        process.send_signal(signal.SIGKILL)
    os.close(screen)
    assert process.returncode == -signal.SIGKILL

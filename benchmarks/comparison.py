"""The command line of a benchmark whose two sides are child processes: ours and a checkout's."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.measuring import alternate_children, print_ratios, python


def compare_children(name: str, title: str, own_side: Callable[[], None], arguments: Sequence[str]) -> None:
    """Run ``benchmarks.<name>`` and ``peer_side/<name>.py`` in turn and print the ratio.

    Args:
        own_side: prints its seconds as a JSON list; called in the child process that is started for it.
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(prog=f"benchmarks.{name}")
    parser.add_argument("--peer", type=Path, help="folder of a YOLOv5 checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--own", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args(arguments)
    if flags.own:
        own_side()
        return
    commands = {"ours": python("-m", f"benchmarks.{name}", "--own")}
    if flags.peer:
        script = Path(__file__).parent / "peer_side" / f"{name}.py"
        commands["peer"] = python(script, folder=flags.peer)
    seconds = alternate_children(commands, flags.rounds)
    milliseconds = {side: 1000 * value for side, value in seconds.items()}
    print_ratios(title, milliseconds, list(milliseconds)[-1], unit="ms")

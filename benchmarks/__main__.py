"""Measurements: run rows of the table, print what they find with the machine.

    python -m benchmarks                                         the rows and their flags
    python -m benchmarks nms loss --peer ~/yolov5                beside a YOLOv5 checkout; without --peer ours alone
    OMP_NUM_THREADS=1 python -m benchmarks roofline

Ratios are to the last side of a group. Run with OMP_NUM_THREADS=1 for the processor time of one thread.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Mapping, Sequence

from benchmarks.measuring import machine
from benchmarks.rows import NEEDED, ROWS, Row
from utils.runtime.console_log import run_verb
from utils.user_error import UsageError

FLAGS: dict[str, tuple[type, str]] = {  # with the kind of a value
    "peer": (str, "folder of a YOLOv5 checkout to compare with"),
    "weights": (str, "detector; of slicing one of the demo scenes (make demo), of tiled_training what to begin with"),
    "data": (str, "dataset YAML, beside a checkout one whose path: is absolute; or a folder of images"),
    "source": (str, "image"),
    "cfg": (str, "architecture"),
    "hyp": (str, "hyperparameters"),
    "img": (int, "pixels"),
    "batch_size": (int, "images or tiles of a batch"),
    "workers": (int, "loading processes"),
    "precision": (str, "of ours"),
    "epochs": (int, "of the longest training"),
    "rounds": (int, "how often the sides take turns"),
    "at_once": (bool, "sides of a round side by side, for processor time on a busy machine"),
    "cache": (bool, "images in memory on both sides: no decoding"),
    "samples": (int, "per measurement"),
    "images": (int, "how many"),
    "boxes": (int, "how many"),
    "only": (str, "parts to measure"),
    "share": (float, "of the usual counts"),
    "plots": (str, "folder for a plot"),
    "threads": (int, "one table each"),
    "no_ap": (bool, "latency only"),
    "folder": (str, "for generated images and runs, kept"),
    "conf": (float, "lowest score of a detection"),
    "train": (int, "images to learn from"),
    "val": (int, "images to evaluate on"),
    "tile": (int, "pixels"),
    "spins": (int, "turns of a waiting loop"),
    "processes": (int, "how many at once, one row each"),
    "shrunk": (int, "pixels"),
    "models": (str, "networks"),
    "seeds": (int, "of trainings"),
    "project": (str, "folder of the runs; those that are finished are not run again"),
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("benchmarks", None, __doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("rows", nargs="*", metavar="ROW", help="first of all; none: list them")
    made.add_argument("--list", action="store_true", help="the rows and their flags")
    for name, (kind, explained) in FLAGS.items():
        takes_several = any(isinstance(row.flags.get(name), tuple) for row in ROWS.values())
        how = {"action": "store_true"} if kind is bool else {"type": kind, "nargs": "+" if takes_several else None}
        made.add_argument(_flag(name), default=argparse.SUPPRESS, help=explained, **how)
    return made


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def settings(name: str, row: Row, given: Mapping[str, object]) -> argparse.Namespace:
    """The flags of a row.

    Raises:
        UsageError: one is missing, or has more values than the row takes.
    """
    flags = dict(row.flags) | {flag: value for flag, value in given.items() if flag in row.flags}
    for flag, value in flags.items():
        if value is NEEDED:
            raise UsageError(f"{name}: needs {_flag(flag)}")
        if isinstance(value, list) and not isinstance(row.flags[flag], tuple):
            if len(value) > 1:
                raise UsageError(f"{_flag(flag)} {' '.join(map(str, value))}: {name} takes one")
            flags[flag] = value[0]
    known = row.flags.get("only", ())
    if wrong := [one for one in flags.get("only", ()) if one not in known]:  # type: ignore[attr-defined, operator]
        raise UsageError(f"--only {wrong[0]}: {name} has {', '.join(known)}")  # type: ignore[arg-type]
    return argparse.Namespace(**flags)


def selected(names: Sequence[str], given: Mapping[str, object]) -> list[tuple[Row, argparse.Namespace]]:
    """The rows and their settings.

    Raises:
        UsageError: there is no such row, or none of them takes a flag.
    """
    for name in names:
        if name not in ROWS:
            near = difflib.get_close_matches(name, ROWS, n=1, cutoff=0.0)[0]
            raise UsageError(f"{name}: no row of benchmarks; did you mean {near}?")
    if unused := [flag for flag in given if not any(flag in ROWS[name].flags for name in names)]:
        raise UsageError(f"{_flag(unused[0])}: not a flag of {', '.join(names)}")
    return [(ROWS[name], settings(name, ROWS[name], given)) for name in names]


def main() -> None:
    given = vars(parser().parse_args())
    names, listed = given.pop("rows"), given.pop("list")
    if listed or not names:
        for name, row in ROWS.items():
            print(f"{name}\n    {row.what}\n    {' '.join(map(_flag, row.flags))}")
        return
    rows = selected(names, given)
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    head: Sequence[str] = ()
    for row, flags in rows:
        for table in row.tables(flags):
            table.print(continued=table.head == head and not table.title)
            head = table.head


if __name__ == "__main__":
    sys.exit(run_verb(main))

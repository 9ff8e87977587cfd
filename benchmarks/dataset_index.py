"""The label index at COCO's scale: seconds of the first scan and of the second, memory of the program and its workers.

A temporary folder gets 118 000 images with 860 000 boxes: real label files, and tiny images, as only headers are
read. The page cache is warm in both scans. Beside ours, what one list of arrays per image costs.

python -m benchmarks.dataset_index
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measuring import machine, python
from utils.dataset.label_cache import read_label_index
from utils.dataset.label_files import read_label_file
from utils.dataset.label_index import LabelIndex

IMAGES, BOXES, CLASSES = 118_000, 860_000, 80
MIB = 2**20


def write_set(folder: Path, images: int, boxes: int) -> None:
    """Label files of COCO's statistics with an image of 8 x 8 pixels each, a thousand to a folder."""
    rng = np.random.default_rng(0)
    image = cv2.imencode(".jpg", np.full((8, 8, 3), 128, np.uint8))[1].tobytes()
    counts = rng.multinomial(boxes, rng.dirichlet(np.full(images, 0.8)))
    for number, count in enumerate(counts.tolist()):
        part = f"{number // 1000:03d}"
        if number % 1000 == 0:
            for kind in ("images", "labels"):
                (folder / kind / part).mkdir(parents=True)
        (folder / "images" / part / f"{number:012d}.jpg").write_bytes(image)
        sides = rng.uniform(0.01, 0.3, (count, 2))
        rows = np.column_stack((rng.integers(0, CLASSES, count), rng.uniform(sides / 2, 1 - sides / 2), sides))
        text = "".join(f"{int(k)} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for k, x, y, w, h in rows.tolist())
        (folder / "labels" / part / f"{number:012d}.txt").write_text(text)


def own_memory() -> int:
    """Bytes of this process that it shares with no other."""
    private = 0
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            private += int(line.split()[1]) * 1024
    return private


def worker_cost(touch: Callable[[], object]) -> float:
    """MiB that a forked worker comes to own by reading every image's labels."""
    context = get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def work() -> None:
        gc.disable()  # its marks would copy the heap of all modules, whatever the index is
        before = own_memory()
        touch()
        send.send((own_memory() - before) / MIB)

    process = context.Process(target=work)
    process.start()
    cost: float = receive.recv()
    process.join()
    return cost


def scan(folder: Path) -> None:
    """One scan in this process; prints seconds, those of the processor, MiB of the index, MiB per worker as JSON."""
    gc.collect()
    start, used = time.perf_counter(), time.process_time()
    index = read_label_index((folder / "images",), [str(i) for i in range(CLASSES)], cache_folder=folder)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    assert not index.problems
    size = sum(array.nbytes for array in arrays_of(index)) / MIB
    cost = worker_cost(lambda: deque((index.labels(row) for row in range(len(index))), maxlen=0))
    print(json.dumps([seconds, used, size, cost, len(index), len(index.rows)]))


def arrays_of(index: LabelIndex) -> list[np.ndarray]:
    own = (getattr(index, name) for name in index.__dataclass_fields__)
    return [*(item for item in own if isinstance(item, np.ndarray)), index.paths._bytes, index.paths._ends]


def lists(folder: Path) -> None:
    """The same labels as a list of arrays; prints MiB of the list and MiB per worker as JSON."""
    files = sorted(str(file) for file in (folder / "labels").rglob("*.txt"))
    before = own_memory()
    table: list[Any] = [(file, read_label_file(Path(file)).rows) for file in files]
    size = (own_memory() - before) / MIB
    cost = worker_cost(lambda: deque((rows.sum() for _, rows in table), maxlen=0))
    print(json.dumps([size, cost]))


def main() -> None:
    """Write the set, scan it twice in processes of their own, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--boxes", type=int, default=BOXES)
    parser.add_argument("--scan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lists", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.scan or flags.lists:
        scan(flags.scan) if flags.scan else lists(flags.lists)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print(f"writing {flags.images} label files with {flags.boxes} boxes", file=sys.stderr)
        write_set(folder, flags.images, flags.boxes)
        first, second = (python("-m", "benchmarks.dataset_index", "--scan", folder).json_line() for _ in range(2))
        changed = folder / "labels" / "000" / "000000000000.txt"
        changed.write_text("0 0.5 0.5 0.5 0.5\n")
        third = python("-m", "benchmarks.dataset_index", "--scan", folder).json_line()
        as_lists = python("-m", "benchmarks.dataset_index", "--lists", folder).json_line()
        cache = sum(file.stat().st_size for file in folder.glob("*.cache.npz")) / MIB
    print(f"\n{int(first[4])} images, {int(first[5])} boxes ({machine()}, load {os.getloadavg()[0]:.1f})\n")
    scans = {"first scan": first, "second scan": second, "after a change to one label file": third}
    for name, (seconds, used, *_) in scans.items():
        print(f"| {name} | {seconds:.1f} s, {used:.1f} s of the processor |")
    print(f"| cache file | {cache:.0f} MiB |\n| index in memory | {first[2]:.0f} MiB |")
    print(f"| index, more in each worker that reads all of it | {first[3]:.1f} MiB |")
    print(f"| list of arrays in memory | {as_lists[0]:.0f} MiB |")
    print(f"| list of arrays, more in each worker that reads all of it | {as_lists[1]:.1f} MiB |")


if __name__ == "__main__":
    main()

"""The label index at COCO's scale: seconds of the first scan and of the second, memory of the program and its workers.

A temporary folder gets 118 000 images with 860 000 boxes: real label files, and tiny images, as only headers are
read. The page cache is warm in both scans. Beside ours, what one list of arrays per image costs.
"""

from __future__ import annotations

import gc
import tempfile
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from benchmarks.measuring import Table, in_child
from utils.dataset.label_cache import read_label_index
from utils.dataset.label_files import read_label_file

CLASSES = 80
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


def own_memory() -> float:
    """MiB of this process that it shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    private = [line for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:"))]
    return sum(int(line.split()[1]) for line in private) * 1024 / MIB


def worker_cost(touch: Callable[[], object]) -> float:
    """MiB that a forked worker comes to own by reading every image's labels."""
    context = get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def work() -> None:
        gc.disable()  # its marks would copy the heap of all modules, whatever the index is
        before = own_memory()
        touch()
        send.send(own_memory() - before)

    process = context.Process(target=work)
    process.start()
    cost: float = receive.recv()
    process.join()
    return cost


def scan(folder: str) -> list[float]:
    """One scan in this process: seconds, those of the processor, MiB of the index, MiB more in a worker."""
    gc.collect()
    start, used = time.perf_counter(), time.process_time()
    index = read_label_index((Path(folder) / "images",), [str(i) for i in range(CLASSES)], cache_folder=Path(folder))
    seconds, used = time.perf_counter() - start, time.process_time() - used
    assert not index.problems
    arrays = [item for item in (getattr(index, name) for name in index.__dataclass_fields__) if hasattr(item, "nbytes")]
    size = sum(array.nbytes for array in (*arrays, index.paths._bytes, index.paths._ends)) / MIB
    return [seconds, used, size, worker_cost(lambda: deque((index.labels(row) for row in range(len(index))), maxlen=0))]


def lists(folder: str) -> list[float]:
    """The same labels as a list of arrays: MiB of the list, MiB more in a worker."""
    files = sorted(str(file) for file in (Path(folder) / "labels").rglob("*.txt"))
    before = own_memory()
    table = [(file, read_label_file(Path(file)).rows) for file in files]
    return [own_memory() - before, worker_cost(lambda: deque((rows.sum() for _, rows in table), maxlen=0))]


def tables(flags: Namespace) -> Iterator[Table]:
    """Write the set, scan it in processes of their own."""
    yield Table((f"{flags.images} images, {flags.boxes} boxes", "figure"), _rows(flags.images, flags.boxes))


def _rows(images: int, boxes: int) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_set(folder, images, boxes)
        for name in ("first scan", "second scan", "after a change to one label file"):
            if name.startswith("after"):
                (folder / "labels" / "000" / "000000000000.txt").write_text("0 0.5 0.5 0.5 0.5\n")
            seconds, used, size, cost = in_child(scan, folder=folder).result()
            yield name, f"{seconds:.2f} s, {used:.2f} s of the processor"
        yield "cache file", f"{sum(file.stat().st_size for file in folder.glob('*.cache.npz')) / MIB:.1f} MiB"
        yield "index in memory", f"{size:.1f} MiB"
        yield "index, more in each worker that reads all of it", f"{cost:.1f} MiB"
        size, cost = in_child(lists, folder=folder).result()
        yield "list of arrays in memory", f"{size:.1f} MiB"
        yield "list of arrays, more in each worker that reads all of it", f"{cost:.1f} MiB"

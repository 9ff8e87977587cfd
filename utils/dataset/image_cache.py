"""Decoded images kept for the epochs to come: in memory, or in one file that every process maps.

An image is kept at its size on disk, or reduced by 2, 4 or 8 where that leaves its longer side the training size.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import torch

from utils.dataset.detection_dataset import DetectionDataset, ImageCache
from utils.dataset.image_files import read_image
from utils.dataset.label_cache import cache_folder_of
from utils.dataset.label_index import LabelIndex, PathList
from utils.runtime.console_log import with_progress
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)
CacheKind = Literal["ram", "disk"]
MEMORY_SHARE = 0.8  # of the free memory that the images may take
_READERS = 8
_MIB, _GIB = 2**20, 2**30
_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


class ImageLayout(NamedTuple):
    """Where each of F images lies in a row of bytes."""

    sizes: np.ndarray  # (F, 2) int64 height, width as kept
    starts: np.ndarray  # (F,) int64
    reductions: np.ndarray  # (F,) int64: 1, 2, 4 or 8
    total: int  # bytes

    def place(self, index: int) -> tuple[int, tuple[int, int, int]]:
        """First byte and shape of an image."""
        height, width = self.sizes[index].tolist()
        return int(self.starts[index]), (height, width, 3)


def image_layout(sizes: np.ndarray, long_side: int | None) -> ImageLayout:
    """Layout of images of ``sizes`` (F, 2) whose longer side may shrink to no less than ``long_side`` pixels.

    Without ``long_side`` they are kept as they are on disk.
    """
    longest = sizes.max(axis=1)
    reductions = np.ones(len(sizes), dtype=np.int64)
    for reduction in (2, 4, 8) if long_side else ():
        reductions[longest >= reduction * (long_side or 0)] = reduction
    kept = -(-sizes.astype(np.int64) // reductions[:, None])
    bytes_each = kept.prod(axis=1) * 3
    ends = np.cumsum(bytes_each)
    return ImageLayout(kept, ends - bytes_each, reductions, int(ends[-1]) if len(ends) else 0)


@dataclass(frozen=True, slots=True)
class MemoryImages:
    """Images in one array; a tensor, as worker processes share its memory however they are started."""

    layout: ImageLayout
    pixels: torch.Tensor  # (total,) uint8

    def image(self, index: int) -> np.ndarray:
        start, shape = self.layout.place(index)
        image = self.pixels[start : start + math.prod(shape)].numpy().reshape(shape)
        image.flags.writeable = False
        return image


class MappedImages:
    """Images in one file, mapped into memory as they are asked for.

    The file is held open, so that its content stays whoever removes it, and locked for as long: see `_remove_unused`.
    """

    def __init__(self, layout: ImageLayout, file: Path) -> None:
        self.layout = layout
        self.file = file
        self._opened: BinaryIO = file.open("rb")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._opened, fcntl.LOCK_SH)

    def __reduce__(self) -> tuple[type[MappedImages], tuple[ImageLayout, Path]]:
        return MappedImages, (self.layout, self.file)  # a worker that was not forked opens it for itself

    def image(self, index: int) -> np.ndarray:
        start, shape = self.layout.place(index)
        return np.asarray(np.memmap(self._opened, np.uint8, "r", offset=start, shape=shape))


def cached_dataset(
    dataset: DetectionDataset, kind: CacheKind, *, long_side: int | None = None, title: str = ""
) -> DetectionDataset:
    """The same split with its images decoded once and kept; see `cache_images`.

    Windows are cut out of cached images: a `TiledDataset` is made of what this gives, not given to it.
    """
    folder = cache_folder_of(dataset.index.paths[0])
    cache = cache_images(dataset.index, kind, folder, long_side=long_side, title=title)
    return DetectionDataset(dataset.index, dataset.names, cache, dataset.annotations)


def cache_images(
    index: LabelIndex, kind: CacheKind, folder: Path, *, long_side: int | None = None, title: str = ""
) -> ImageCache:
    """Decode all images of a split once, or take the file of an earlier run if no image has changed since.

    Args:
        index: the split.
        kind: ``ram`` or ``disk``.
        folder: where the file of ``disk`` lies.
        long_side: see `image_layout`.
        title: text of the progress bar; without it there is none.

    Raises:
        UserError: the images do not fit into the free memory or onto the disk; an image cannot be read.
    """
    layout = image_layout(index.sizes, long_side)
    if kind == "ram":
        free = int(free_memory() * MEMORY_SHARE)
        if layout.total > free:
            raise UserError(
                f"--cache ram: {title or 'the'} images take {layout.total / _GIB:.2f} GiB decoded, "
                f"{free / _GIB:.2f} GiB may be used; take --cache disk"
            )
        pixels = torch.empty(layout.total, dtype=torch.uint8)
        target = pixels.numpy()
        for start, image in zip(layout.starts.tolist(), _decoded(index.paths, layout, title), strict=True):
            target[start : start + image.size] = image.reshape(-1)
        LOGGER.info("%s: %.0f MiB of images in memory", title, layout.total / _MIB)
        return MemoryImages(layout, pixels)
    file = _mapped_file(index.paths, layout, folder)
    images: MappedImages | None = None
    while images is None or not file.is_file():
        if not (file.is_file() and file.stat().st_size == layout.total):
            _write_mapped(index.paths, layout, file, title)
        with suppress(FileNotFoundError):  # another run took it for unused in this moment
            images = MappedImages(layout, file)
    LOGGER.info("%s: %.0f MiB of images in %s", title, layout.total / _MIB, file)
    return images


def _decoded(paths: PathList, layout: ImageLayout, title: str) -> Iterator[np.ndarray]:
    """The images in order, as the layout keeps them."""

    def decode(index: int) -> np.ndarray:
        image = read_image(paths[index], int(layout.reductions[index]))
        if image.shape != layout.place(index)[1]:
            raise UserError(f"{paths[index]}: its size has changed since it was indexed")
        return image

    with ThreadPoolExecutor(_READERS) as pool:
        images = pool.map(decode, range(len(paths)))
        yield from with_progress(images, len(paths), "image", f"decoding {title}", shown=bool(title))


def _mapped_file(paths: PathList, layout: ImageLayout, folder: Path) -> Path:
    """The file's name tells the split and, behind it, the state of its images and how they are kept."""
    split, state = hashlib.sha256(), hashlib.sha256(layout.reductions.tobytes())
    for i in range(len(paths)):
        path = paths[i]
        split.update(os.fsencode(path) + b"\0")
        status = path.stat()
        state.update(np.array([status.st_size, status.st_mtime_ns, status.st_ino], dtype=np.int64).tobytes())
    return folder / f"images-{split.hexdigest()[:12]}-{state.hexdigest()[:12]}.cache.bin"


def _write_mapped(paths: PathList, layout: ImageLayout, file: Path, title: str) -> None:
    """Write the file whole or not at all."""
    temporary: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(file.parent).free
        if layout.total > free:
            raise UserError(
                f"--cache disk: {title or 'the'} images take {layout.total / _GIB:.2f} GiB decoded, "
                f"{file.parent} has {free / _GIB:.2f} GiB free"
            )
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as out:
            temporary = Path(out.name)
            for image in _decoded(paths, layout, title):
                out.write(image.tobytes())
        temporary.replace(file)
        temporary = None
        _remove_unused(file)
    except OSError as error:
        raise UserError(f"--cache disk: {file}: cannot be written: {error.strerror}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _remove_unused(file: Path) -> None:
    """Remove the files of the same split in other states, sizes kept included, that nobody reads.

    Whoever reads one, this process or another, holds a shared lock on it, which ends with its last process.
    """
    for other in file.parent.glob(f"{file.name.rsplit('-', 1)[0]}-*.cache.bin"):
        if other != file:
            # Locked, gone, in a folder that is not ours to change, or on a file system without locks: it stays.
            with suppress(OSError), other.open("r+b") as opened:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                other.unlink()


def free_memory(meminfo: Path = _MEMINFO, group: Path = _GROUP) -> int:
    """Bytes available without swapping: the machine's, or what the container's limit (cgroup) leaves if that is less.

    Args:
        meminfo: the kernel's table; where there is none (not Linux), free physical pages are counted.
        group: folder of the process's control group, version 2 or 1.
    """
    if meminfo.is_file():
        table = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
        machine = int(table["MemAvailable"].split()[0]) * 1024
    else:
        machine = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit, used in (
        (group / "memory.max", group / "memory.current"),
        (group / "memory" / "memory.limit_in_bytes", group / "memory" / "memory.usage_in_bytes"),
    ):
        if limit.is_file() and used.is_file():
            most = limit.read_text(encoding="ascii").strip()
            if most != "max":
                return max(min(machine, int(most) - int(used.read_text(encoding="ascii"))), 0)
    return machine

"""Files of ``torch.save`` before release 1.6: a stream of pickles with the storages behind it, and before 0.1.10 a tar.

Read with the same restricted unpickler as today's archives; storages stay on the disk until a tensor is asked for.
"""

from __future__ import annotations

import pickle
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from models.restricted_unpickler import RestrictedUnpickler, StorageRecord, StorageType, TensorRecord

STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STREAM_PROTOCOL = 1001


class StorageSource(Protocol):
    """Gives the raw little-endian bytes of a storage."""

    def read(self, key: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class FileSpan:
    """Bytes ``start`` to ``start + length`` of a file."""

    start: int
    length: int


class SpannedStorages:
    """Storages that lie one after the other in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spans: dict[str, FileSpan] = {}

    def take(self, stream: BinaryIO, key: str, element_bytes: int) -> int:
        """Notes the storage at the stream's position, moves past it and gives its number of elements."""
        (elements,) = struct.unpack("<q", stream.read(8))
        here = stream.tell()
        length = elements * element_bytes
        if elements < 0 or here + length > self._path.stat().st_size:
            raise pickle.UnpicklingError(f"a storage of {elements} values does not fit into the file")
        self._spans[key] = FileSpan(here, length)
        stream.seek(length, 1)
        return int(elements)

    def shift(self, offset: int) -> None:
        """Counts the spans from the start of the file instead of from ``offset``."""
        self._spans = {key: FileSpan(each.start + offset, each.length) for key, each in self._spans.items()}

    def read(self, key: str) -> bytes:
        span = self._spans[key]
        with self._path.open("rb") as stream:
            stream.seek(span.start)
            return stream.read(span.length)


def read_legacy_stream(path: Path) -> tuple[Any, StorageSource]:
    """Content and storages of a file of torch 0.1.10 to 1.5: magic number, protocol, system, object, keys, storages."""
    storages = SpannedStorages(path)
    with path.open("rb") as stream:
        magic, protocol, system = (RestrictedUnpickler(stream).load() for _ in range(3))
        if magic != STREAM_MAGIC or protocol != STREAM_PROTOCOL:
            raise pickle.UnpicklingError("neither a zip archive nor an older file of torch.save")
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise pickle.UnpicklingError("written on a big-endian machine")
        unpickler = _StreamUnpickler(stream)
        content = unpickler.load()
        keys = RestrictedUnpickler(stream).load()
        if not isinstance(keys, list):
            raise pickle.UnpicklingError("no list of storages")
        for key in keys:
            storages.take(stream, str(key), unpickler.element_bytes[str(key)])
    return content, storages


class _StreamUnpickler(RestrictedUnpickler):
    """Remembers how wide the elements of each storage are: the storages themselves do not say."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.element_bytes: dict[str, int] = {}

    def persistent_load(self, pid: Any) -> Any:
        record = super().persistent_load(pid)
        if isinstance(record, StorageRecord):
            self.element_bytes[record.key] = record.dtype.itemsize
        return record


class _TarUnpickler(RestrictedUnpickler):
    """The pickle inside the tar refers to tensors by number and to classes by ``(class, source file, source)``."""

    def __init__(self, stream: BinaryIO, tensors: dict[int, TensorRecord]) -> None:
        super().__init__(stream)
        self._tensors = tensors

    def persistent_load(self, pid: Any) -> Any:
        return pid[0] if isinstance(pid, tuple) else self._tensors[int(pid)]


def read_legacy_tar(path: Path) -> tuple[Any, StorageSource]:
    """Content and storages of a tar file with the members ``storages``, ``tensors`` and ``pickle``."""
    with tarfile.open(path, "r:") as archive:
        storages, records = _tar_storages(path, archive)
        tensors = _tar_tensors(_member(archive, "tensors"), records)
        return _TarUnpickler(_member(archive, "pickle"), tensors).load(), storages


def _member(archive: tarfile.TarFile, name: str) -> BinaryIO:
    member = archive.extractfile(name)
    if member is None:
        raise pickle.UnpicklingError(f"'{name}' is not a file of the archive")
    return member  # type: ignore[return-value]


def _tar_storages(path: Path, archive: tarfile.TarFile) -> tuple[SpannedStorages, dict[int, StorageRecord]]:
    storages, records = SpannedStorages(path), {}
    stream = _member(archive, "storages")
    for _ in range(_count(RestrictedUnpickler(stream).load())):
        key, _, kind = RestrictedUnpickler(stream).load()
        if not isinstance(kind, StorageType):
            raise pickle.UnpicklingError("a storage of unknown type")
        records[int(key)] = StorageRecord(str(key), kind.dtype, storages.take(stream, str(key), kind.dtype.itemsize))
    storages.shift(archive.getmember("storages").offset_data)
    for key, root, start, elements in RestrictedUnpickler(stream).load():
        records[int(key)] = StorageRecord(records[int(root)].key, records[int(root)].dtype, int(elements), int(start))
    return storages, records


def _tar_tensors(stream: BinaryIO, storages: dict[int, StorageRecord]) -> dict[int, TensorRecord]:
    tensors = {}
    for _ in range(_count(RestrictedUnpickler(stream).load())):
        key, storage, _ = RestrictedUnpickler(stream).load()
        dimensions, _ = struct.unpack("<ii", stream.read(8))  # the second half is padding
        if not 0 <= dimensions <= 16:
            raise pickle.UnpicklingError(f"a tensor of {dimensions} dimensions")
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", stream.read(8 * (2 * dimensions + 1)))
        size, stride, offset = numbers[:dimensions], numbers[dimensions:-1], numbers[-1]
        if min(numbers) < 0:
            raise pickle.UnpicklingError("a tensor of negative size")
        tensors[int(key)] = TensorRecord(storages[int(storage)], offset, size, stride)
    return tensors


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1_000_000:
        raise pickle.UnpicklingError(f"{value!r} is no number of entries")
    return value

"""Restricted reader of ``.pt`` files: nothing that a file names is ever imported or run.

YOLOv5 publishes its weights as pickled modules. This reader gives their tensors, attributes and plain values back
without running anything (see models/restricted_unpickler.py). It opens this project's own checkpoints too, which hold
tensors and plain values only.

Formats: a zip archive ``<root>/data.pkl`` and ``<root>/data/<key>`` raw little-endian storages (torch.save since 1.6);
a stream of pickles with the storages behind it (before 1.6); and a tar (before 0.1.10). Storages stay on the disk until
a tensor is asked for.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from models.restricted_unpickler import (
    RefusedNameError,
    RestrictedUnpickler,
    StandIn,
    StorageRecord,
    StorageType,
    TensorRecord,
)
from utils.user_error import UserError

STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STREAM_PROTOCOL = 1001
# What unpickling damaged or hostile bytes can raise, besides the refusals of this module.
DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    OverflowError,
    ImportError,
    MemoryError,
    OSError,
    NotImplementedError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
)
MODULE_DEPTH_LIMIT = 40
VALUE_LIMIT = 200_000  # a few nested references can spell more values than any memory holds


class StorageSource(Protocol):
    """Gives the raw little-endian bytes of a storage."""

    def read(self, key: str) -> bytes: ...


class _ZipStorages:
    """Stays open until it is collected: a model has hundreds of storages, and opening reads the whole directory."""

    def __init__(self, path: Path, root: str) -> None:
        self._archive, self._root = zipfile.ZipFile(path), root

    def read(self, key: str) -> bytes:
        return self._archive.read(f"{self._root}data/{key}")


class PickledFile:
    """What a ``.pt`` file holds: ``content`` of plain containers, stand-ins and tensor records."""

    def __init__(self, path: Path, content: Any, storages: StorageSource) -> None:
        self.path, self.content, self._storages = path, content, storages
        self._values_left = VALUE_LIMIT

    def tensor(self, record: TensorRecord) -> Tensor:
        """The tensor of a record, floating point as float32, contiguous, owning its memory."""
        try:
            raw = bytearray(self._storages.read(record.storage.key))
            flat = torch.frombuffer(raw, dtype=record.storage.dtype) if raw else torch.empty(0)
            first = record.storage.start + record.offset
            spanned = first + sum((n - 1) * step for n, step in zip(record.size, record.stride, strict=True)) + 1
            count = 1
            for length in record.size:
                count *= length
            # A stride of zero would let a few bytes claim any size.
            if count and (spanned > len(flat) or count > len(flat)):
                raise ValueError(f"a tensor of size {record.size} in a storage of {len(flat)} values")
            view = torch.as_strided(flat.to(record.storage.dtype), record.size, record.stride, first)
        except DAMAGE as error:
            raise damaged(self.path, error) from error
        return view.float().clone() if view.is_floating_point() else view.clone()

    def plain(self, value: Any, depth: int = 0) -> Any:
        """``value`` with every record replaced by its tensor; stand-ins and ignored values become None."""
        self._count(depth)
        if isinstance(value, TensorRecord):
            return self.tensor(value)
        if isinstance(value, dict):
            return {key: self.plain(each, depth + 1) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(each, depth + 1) for each in value]
        return value if value is None or isinstance(value, (bool, int, float, str)) else None

    def _count(self, depth: int) -> None:
        self._values_left -= 1
        if depth > MODULE_DEPTH_LIMIT or self._values_left < 0:
            raise UserError(f"{self.path}: refused, nested too deep or too often for a checkpoint")

    def state_dict(self, module: StandIn) -> dict[str, Tensor]:
        """Parameters and buffers of a pickled module by their dotted names, as ``nn.Module.state_dict`` would give."""
        found: dict[str, Tensor] = {}
        self._collect(module, "", found)
        return found

    def _collect(self, module: StandIn, prefix: str, found: dict[str, Tensor]) -> None:
        self._count(prefix.count("."))
        volatile = module.attributes.get("_non_persistent_buffers_set")
        for group in ("_parameters", "_buffers"):
            for name, record in _mapping(module.attributes.get(group)).items():
                if isinstance(record, TensorRecord) and not (isinstance(volatile, set) and name in volatile):
                    found[f"{prefix}{name}"] = self.tensor(record)
        for name, child in _mapping(module.attributes.get("_modules")).items():
            if isinstance(child, StandIn):
                self._collect(child, f"{prefix}{name}.", found)


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def damaged(path: Path, error: BaseException) -> UserError:
    """The line for a file that breaks off or contradicts itself."""
    return UserError(
        f"{path}: not a readable checkpoint ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    )


def read_pickled(path: Path) -> PickledFile:
    """Opens a ``.pt`` file without running anything in it.

    UserError in one line: the file is missing, damaged, or asks for a name outside the list (the line says which).
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        legacy = read_legacy_tar(path) if tarfile.is_tarfile(path) else read_legacy_stream(path)
        return PickledFile(path, *legacy)
    except RefusedNameError as refusal:
        raise UserError(f"{path}: refused, the file asks for '{refusal}', which no weights need") from refusal
    except DAMAGE as error:
        raise damaged(path, error) from error


def _read_zip(path: Path) -> PickledFile:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(names) != 1:
            raise UserError(f"{path}: not a checkpoint (a zip archive without data.pkl)")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UserError(f"{path}: refused, a checkpoint's entries are stored, these are compressed")
        root = names[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise UserError(f"{path}: written on a big-endian machine, which is not supported")
        content = RestrictedUnpickler(io.BytesIO(archive.read(names[0]))).load()
    return PickledFile(path, content, _ZipStorages(path, root))


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

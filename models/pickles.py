"""Restricted reader of ``.pt`` files: nothing that a file names is ever imported or run.

YOLOv5 publishes its weights as pickled modules, and a pickle is a program. This reader answers every name that the
program asks for out of a short list: plain containers, records that say which bytes form a tensor, and stand-ins that
only keep the attributes they are given. Any other name is refused. The same reader opens this project's own
checkpoints, which hold tensors and plain values only.

Format: a zip archive ``<root>/data.pkl`` and ``<root>/data/<key>`` raw little-endian storages (torch.save since 1.6).
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from utils.user_error import UserError

STORAGE_TYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
CONTAINERS: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
    ("__builtin__", "dict"): dict,
    ("builtins", "dict"): dict,
    ("torch", "Size"): tuple,
}
MODULE_PLACES = re.compile(r"torch\.nn\.modules\.\w+|models\.(?:common|yolo|experimental)")
# Values that trained checkpoints carry along and that no reader here needs.
IGNORED_NAMES = frozenset(
    {("_codecs", "encode"), ("argparse", "Namespace"), ("torch", "device"), ("numpy", "dtype"), ("numpy", "ndarray")}
    | {("numpy", f"{kind}{bits}") for kind in ("float", "int", "uint") for bits in (8, 16, 32, 64)}
    | {
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct", "_frombuffer")
    }
    | {
        (place, f"{pure}{system}Path")
        for place in ("pathlib", "pathlib._local")
        for pure in ("", "Pure")
        for system in ("", "Posix", "Windows")
    }
    | {("torch", name) for name in ("float16", "float32", "float64", "bfloat16", "int64", "int32", "uint8", "bool")}
)
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
    zipfile.BadZipFile,
)
MODULE_DEPTH_LIMIT = 40


@dataclass(frozen=True, slots=True)
class StorageType:
    """The element type that a storage class of torch stands for."""

    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class StorageRecord:
    """A run of ``elements`` values, found in the file under ``key``."""

    key: str
    dtype: torch.dtype
    elements: int


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor as the file describes it; its bytes are read only when it is asked for."""

    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class StandIn:
    """Takes the place of an object of the file: keeps its attributes, does nothing."""

    path = ""

    def __init__(self, *arguments: object) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.attributes = {str(k): v for k, v in state.items()} if isinstance(state, dict) else {}


class Ignored:
    """Takes the place of a value that is not needed; swallows whatever the pickle does to it."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass


class RefusedNameError(Exception):
    """The file asks for a name outside the list."""


class _Reader(pickle.Unpickler):
    """Unpickler whose every global is answered from the lists above."""

    def __init__(self, stream: io.BufferedIOBase | io.BytesIO) -> None:
        super().__init__(stream, encoding="utf-8")
        self._stand_ins: dict[str, type[StandIn]] = {}
        # Bound methods of this reader, so that a file cannot attach state to anything that outlives the reading.
        self._rebuilders: dict[str, Callable[..., object]] = {
            "_rebuild_tensor": self._tensor,
            "_rebuild_tensor_v2": self._tensor,
            "_rebuild_parameter": self._parameter,
            "_rebuild_parameter_with_state": self._parameter,
        }

    def find_class(self, module: str, name: str) -> Any:
        place = (module, name)
        if place in CONTAINERS:
            return CONTAINERS[place]
        if module == "torch._utils" and name in self._rebuilders:
            return self._rebuilders[name]
        if module == "torch" and name in STORAGE_TYPES:
            return StorageType(STORAGE_TYPES[name])
        if place in IGNORED_NAMES:
            return type("Ignored", (Ignored,), {})
        if MODULE_PLACES.fullmatch(module) and re.fullmatch(r"[A-Za-z_]\w*", name):
            path = f"{module}.{name}"
            return self._stand_ins.setdefault(path, type("StandIn", (StandIn,), {"path": path}))
        raise RefusedNameError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> StorageRecord:
        """``("storage", type, key, device, elements)``, with a sixth entry in some old files."""
        kind, storage_type, key, _, elements = pid[:5]
        if kind != "storage" or not isinstance(storage_type, StorageType) or not isinstance(elements, int):
            raise pickle.UnpicklingError("a reference to something else than a storage")
        return StorageRecord(str(key), storage_type.dtype, elements)

    def _tensor(self, storage: object, offset: object, size: object, stride: object, *ignored: object) -> TensorRecord:
        if not (
            isinstance(storage, StorageRecord)
            and isinstance(offset, int)
            and isinstance(size, tuple)
            and isinstance(stride, tuple)
            and len(size) == len(stride)
            and all(isinstance(each, int) and each >= 0 for each in (offset, *size, *stride))
        ):
            raise pickle.UnpicklingError("a tensor without storage, size and stride")
        return TensorRecord(storage, offset, size, stride)

    def _parameter(self, data: object, *ignored: object) -> object:
        return data


class StorageSource(Protocol):
    """Gives the raw bytes of a storage."""

    def read(self, key: str) -> bytes: ...


class _ZipStorages:
    def __init__(self, path: Path, root: str) -> None:
        self._path, self._root = path, root

    def read(self, key: str) -> bytes:
        with zipfile.ZipFile(self._path) as archive:
            return archive.read(f"{self._root}data/{key}")


class PickledFile:
    """What a ``.pt`` file holds: ``content`` of plain containers, stand-ins and tensor records."""

    def __init__(self, path: Path, content: Any, storages: StorageSource) -> None:
        self.path, self.content, self._storages = path, content, storages

    def tensor(self, record: TensorRecord) -> Tensor:
        """The tensor of a record, floating point as float32, contiguous, owning its memory."""
        try:
            raw = bytearray(self._storages.read(record.storage.key))
            flat = torch.frombuffer(raw, dtype=record.storage.dtype) if raw else torch.empty(0)
            spanned = (
                record.offset + sum((n - 1) * step for n, step in zip(record.size, record.stride, strict=True)) + 1
            )
            count = 1
            for length in record.size:
                count *= length
            # A stride of zero would let a few bytes claim any size.
            if count and (spanned > len(flat) or count > len(flat)):
                raise ValueError(f"a tensor of size {record.size} in a storage of {len(flat)} values")
            view = torch.as_strided(flat.to(record.storage.dtype), record.size, record.stride, record.offset)
        except DAMAGE as error:
            raise damaged(self.path, error) from error
        return view.float().clone() if view.is_floating_point() else view.clone()

    def plain(self, value: Any, depth: int = 0) -> Any:
        """``value`` with every record replaced by its tensor; stand-ins and ignored values become None."""
        if depth > MODULE_DEPTH_LIMIT:
            raise UserError(f"{self.path}: nested more than {MODULE_DEPTH_LIMIT} levels deep; not a checkpoint")
        if isinstance(value, TensorRecord):
            return self.tensor(value)
        if isinstance(value, dict):
            return {key: self.plain(each, depth + 1) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(each, depth + 1) for each in value]
        return value if value is None or isinstance(value, (bool, int, float, str)) else None

    def state_dict(self, module: StandIn) -> dict[str, Tensor]:
        """Parameters and buffers of a pickled module by their dotted names, as ``nn.Module.state_dict`` would give."""
        found: dict[str, Tensor] = {}
        self._collect(module, "", found)
        return found

    def _collect(self, module: StandIn, prefix: str, found: dict[str, Tensor]) -> None:
        if prefix.count(".") > MODULE_DEPTH_LIMIT:
            raise UserError(f"{self.path}: modules nested more than {MODULE_DEPTH_LIMIT} levels deep; not a model")
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
        if not zipfile.is_zipfile(path):
            raise UserError(f"{path}: not a checkpoint (torch.save since 1.6 writes zip archives)")
        return _read_zip(path)
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
        content = _Reader(io.BytesIO(archive.read(names[0]))).load()
    return PickledFile(path, content, _ZipStorages(path, root))
